"""What a node does first: find what ran when the last one died, and go on from the sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.engine.parking import HELP
from dalsegno.kernel.points import reach

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_PAGE = 2_000
_POISON = "the node crashed {} times while this instance was running and made no progress: it may be what crashes it"


async def recover(node: Node) -> None:
    """Load what was running, as fast as steps can take it and no faster."""
    reach("recover.before")
    poisoned = set(await node.store.mark_recovered(node.limits.crashes_before_parking))
    for key in poisoned:
        await node.stored.park(key, _POISON.format(node.limits.crashes_before_parking), HELP)
    after = 0
    while True:
        keys = await node.store.running(after, _PAGE)
        for key in keys:
            if key not in poisoned:
                node.loop.call_soon(node.waking.wake, key)
        await node.turn()
        await _room(node)
        if len(keys) < _PAGE:
            break
        after = keys[-1]
    reach("recover.loaded")
    for key in await node.store.mismatched():
        await node.parking.try_again(key)


async def _room(node: Node) -> None:
    """Wait until the steps of what was loaded so far are mostly running."""
    while node.waking.backlog > node.limits.loading_instances or node.steps.backlog > 2 * node.limits.running_steps:
        await node.committer.durable()
        await node.pause()
