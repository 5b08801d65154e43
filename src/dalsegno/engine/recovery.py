"""Going on from the sign: what ran on a node that died, or was left to nobody."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from dalsegno.engine.parking import HELP
from dalsegno.kernel.points import reach

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_PAGE = 2_000
# Nodes that recover side by side take turns.
_SHARED_PAGE = 200
_GROUPS = 8
_POISON = "the node crashed {} times while this instance was running and made no progress: it may be what crashes it"


class Recovery:
    """Finds what nobody runs: once as a node begins, and for as long as it shares its store with others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted = asyncio.Event()
        self._suspects: set[int] = set()
        self._mismatched: set[int] = set()
        self._living: set[int] = set()
        if node.store.shared:
            node.store.on_ring(self._wanted.set)

    async def run(self) -> None:
        """Take over what other nodes leave or clients start, until cancelled."""
        while True:
            await self._node.rung(self._wanted)
            await self.recover()

    async def recover(self) -> None:
        """Load what was running, as fast as steps can take it and no faster."""
        node, limits = self._node, self._node.limits
        reach("recover.before")
        for key in await node.store.mark_recovered(limits.crashes_before_parking, limits.crashes_before_trial):
            self._suspects.add(key)
            await node.stored.park(key, _POISON.format(limits.crashes_before_parking), HELP)
        found = await node.store.suspects(limits.crashes_before_trial)
        suspects = [pair for pair in found if pair[0] not in self._suspects]
        self._suspects.update(key for key, _ in suspects)
        await self._load()
        reach("recover.loaded")
        if suspects:
            node.spawn(_try(node, suspects))
        for key in await node.store.mismatched():
            if key not in self._mismatched:
                self._mismatched.add(key)
                await node.parking.try_again(key)
        if node.store.shared:
            await self._inherit_timers()

    async def _load(self) -> None:
        node, after = self._node, 0
        page = _SHARED_PAGE if node.store.shared else _PAGE
        while True:
            keys = await node.store.running(after, page)
            for key in keys:
                if key not in self._suspects:
                    node.loop.call_soon(node.waking.wake, key)
            await node.turn()
            await _room(node)
            if len(keys) < page:
                return
            after = keys[-1]

    async def _inherit_timers(self) -> None:
        """What a node that ended had waiting for a time is due on another one."""
        before = self._living
        self._living = {info.epoch for info in await self._node.store.nodes() if info.ended_at is None}
        if before - self._living:
            await self._node.timers.scan(anew=True)


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
