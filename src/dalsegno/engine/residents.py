"""Which instances are in memory, and which of them can leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dalsegno.engine.resident import Resident
from dalsegno.errors import DalsegnoError, Refused, StoreError
from dalsegno.kernel import entries as e
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import FINAL, Loaded

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Residents:
    """The instances in memory, by key and by id; those that only wait leave it, the longest waiting first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_key: dict[int, Resident] = {}
        self._by_id: dict[tuple[str, str], Resident] = {}
        self._resting: dict[int, Resident] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self._by_key.values()))

    def add(self, resident: Resident) -> None:
        """Keep an instance."""
        self._by_key[resident.key] = resident
        self._by_id[resident.namespace, resident.id] = resident

    def get(self, key: int) -> Resident | None:
        """The instance of a key, if it is in memory."""
        return self._by_key.get(key)

    def by_id(self, namespace: str, id: str) -> Resident | None:
        """The instance of an id, if it is in memory and has not ended."""
        resident = self._by_id.get((namespace, id))
        return None if resident is None or resident.gone else resident

    def rest(self, resident: Resident) -> None:
        """An instance only waits; if memory is short the longest waiting one leaves."""
        self._resting.pop(resident.key, None)
        self._resting[resident.key] = resident
        # Never the one that has just come to rest: it may have been woken for something it hasn't got yet.
        while len(self._by_key) > self._limit and len(self._resting) > 1:
            oldest = self._resting.pop(next(iter(self._resting)))
            if self._can_leave(oldest):
                self._leave_when_durable(oldest)

    @staticmethod
    def _can_leave(resident: Resident) -> bool:
        return not (resident.jobs or resident.held or resident.gone)

    def _leave_when_durable(self, resident: Resident) -> None:
        if resident.durable:
            self.evict(resident)
        elif resident.batch is not None:
            resident.batch.after.append(lambda: self._leave_later(resident))

    def _leave_later(self, resident: Resident) -> None:
        if self._can_leave(resident) and self._by_key.get(resident.key) is resident:
            self._leave_when_durable(resident)

    def evict(self, resident: Resident) -> None:
        """Drop an instance from memory; its journal has everything."""
        reach("evict.before")
        self.remove(resident)
        resident.gone = True
        resident.execution.drop()

    def remove(self, resident: Resident) -> None:
        """Forget an instance."""
        if self._by_key.get(resident.key) is resident:
            del self._by_key[resident.key]
            self._by_id.pop((resident.namespace, resident.id), None)
        self._resting.pop(resident.key, None)


Then = Callable[[Resident], None]
Otherwise = Callable[[DalsegnoError], None]


class Waking:
    """Brings instances back into memory, many in one read, and replays them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted: dict[int, list[tuple[Then | None, Otherwise | None]]] = {}
        self._loading = False

    def wake(self, key: int, then: Then | None = None, otherwise: Otherwise | None = None) -> None:
        """Have an instance in memory; `then` is called with it, at once if it is there.

        `otherwise` is called with the reason where it can't be: it ended, was set aside, or has no code here.
        """
        resident = self._node.residents.get(key)
        if resident is not None:
            if not resident.gone:
                if then is not None:
                    then(resident)
            elif otherwise is not None:
                otherwise(Refused(f"instance {resident.id!r} is {resident.status}"))
            return
        self._wanted.setdefault(key, []).append((then, otherwise))
        if not self._loading:
            self._loading = True
            self._node.spawn(self._load())

    @property
    def backlog(self) -> int:
        """Instances that wait to be loaded."""
        return len(self._wanted)

    async def _load(self) -> None:
        node = self._node
        try:
            while self._wanted:
                keys = list(self._wanted)[: node.limits.loading_instances]
                reach("wake.before")
                loaded = await node.store.load(keys)
                # Process code must not be entered from within a task.
                node.loop.call_soon(self._loaded, keys, loaded)
                await node.turn()
        finally:
            self._loading = False

    def _loaded(self, keys: list[int], loaded: list[Loaded]) -> None:
        found = {item.row.key: item for item in loaded}
        for key in keys:
            self._node.guarded(self._hand_out, self._wanted.pop(key, []), found.get(key))
        reach("wake.loaded")

    def _hand_out(self, wanted: list[tuple[Then | None, Otherwise | None]], item: Loaded | None) -> None:
        if item is None:
            return
        row = item.row
        resident = None
        if not self._node.owns(row):
            for _, otherwise in wanted:
                if otherwise is not None:
                    otherwise(Refused(f"instance {row.id!r} is run by another node by now: ask again"))
            return
        if row.status not in FINAL and row.status not in ("paused", "parked"):
            resident = self._node.residents.get(row.key) or self._revive(item)
        for then, otherwise in wanted:
            if resident is not None and not resident.gone:
                if then is not None:
                    then(resident)
            elif otherwise is not None:
                known = self._node.definitions.find(row.process, row.version)
                status = row.status if known is not None else f"without its code here ({row.process} v{row.version})"
                otherwise(Refused(f"instance {row.id!r} is {status}"))

    def _revive(self, item: Loaded) -> Resident | None:
        """An instance from its journal; `None` where this node has no code for it or it had to be parked."""
        node = self._node
        row = item.row
        spec = node.definitions.find(row.process, row.version)
        if spec is None:
            node.definitions.miss(row)
            return None
        execution = Execution(spec, row.namespace, row.id, node.limits)
        resident = Resident(row.key, row.namespace, row.id, execution)
        resident.base_seq = row.base_seq
        resident.next_seq = item.journal[-1][0] + 1 if item.journal else row.base_seq
        resident.status = row.status
        resident.wake_at = row.wake_at
        resident.waits_for = row.waiting_for
        resident.parent, resident.parent_operation = row.parent, row.parent_operation
        node.residents.add(resident)
        if not node.parking.replay(resident, item):
            return None
        at = node.store.now()
        if not row.begun:
            node.committer.tally.started += 1
            node.turns.change(resident, "running", at)
        node.turns.absorb(resident, at)
        return resident


def records(journal: list[tuple[int, int, bytes]]) -> list[e.Record]:
    """A stored journal as records."""
    return [e.Record(seq, at, e.decode(data)) for seq, at, data in journal]


def last_end(loaded: list[Loaded]) -> e.Ended:
    """How a loaded instance ended."""
    for record in reversed(records(loaded[0].journal)):
        if isinstance(record.entry, e.Ended):
            return record.entry
    raise StoreError(f"instance {loaded[0].row.id!r} is {loaded[0].row.status}, but its journal has no end")
