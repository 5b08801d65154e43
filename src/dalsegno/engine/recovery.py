"""What a node does first: find what ran when the last one died, and go on from the sign."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from dalsegno.engine.parking import HELP
from dalsegno.kernel.points import reach

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_PAGE = 2_000
_GROUPS = 8
_POISON = "the node crashed {} times while this instance was running and made no progress: it may be what crashes it"


async def recover(node: Node) -> None:
    """Load what was running, as fast as steps can take it and no faster."""
    reach("recover.before")
    limits = node.limits
    apart = set()
    for key in await node.store.mark_recovered(limits.crashes_before_parking, limits.crashes_before_trial):
        apart.add(key)
        await node.stored.park(key, _POISON.format(limits.crashes_before_parking), HELP)
    suspects = await node.store.suspects(limits.crashes_before_trial)
    apart.update(key for key, _ in suspects)
    await _load(node, apart)
    reach("recover.loaded")
    if suspects:
        node.spawn(_try(node, suspects))
    for key in await node.store.mismatched():
        await node.parking.try_again(key)


async def _load(node: Node, apart: set[int]) -> None:
    after = 0
    while True:
        keys = await node.store.running(after, _PAGE)
        for key in keys:
            if key not in apart:
                node.loop.call_soon(node.waking.wake, key)
        await node.turn()
        await _room(node)
        if len(keys) < _PAGE:
            return
        after = keys[-1]


async def _try(node: Node, suspects: list[tuple[int, int]]) -> None:
    """Run suspects in groups, one group after the other, so that a crash tells in which of them the cause is.

    Most of them only happened to run when another instance, or the machine, went down. Each crash leaves an eighth of
    the suspects; what is parked in the end crashed the node alone.
    """
    for _, same in itertools.groupby(suspects, key=lambda suspect: suspect[1]):
        keys = [key for key, _ in same]
        size = -(-len(keys) // _GROUPS)
        for first in range(0, len(keys), size):
            group = keys[first : first + size]
            await node.store.put_on_trial(group)
            for key in group:
                node.loop.call_soon(node.guarded, node.waking.wake, key)
            await asyncio.sleep(node.limits.trial_seconds)
    await node.store.put_on_trial([])


async def _room(node: Node) -> None:
    """Wait until the steps of what was loaded so far are mostly running."""
    while node.waking.backlog > node.limits.loading_instances or node.steps.backlog > 2 * node.limits.running_steps:
        await node.committer.durable()
        await node.pause()
