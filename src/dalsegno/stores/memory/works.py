"""Steps on queues, in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from dalsegno.kernel.ports import Batch
from dalsegno.kernel.work import (
    Claim,
    Claimed,
    Ended,
    Hold,
    QueueDepth,
    QueueRow,
    WorkBeat,
    WorkEnd,
    WorkRow,
    again_after,
    most_allowance,
)

replace = msgspec.structs.replace

_GRACE_MICROSECONDS = 1_000_000


class _Item:
    """A row with what only the store knows of it."""

    def __init__(self, row: WorkRow, turn: int) -> None:
        self.row = row
        self.turn = turn
        self.state = "ready"
        self.late_at: int | None = None

    @property
    def order(self) -> tuple[int, int, int]:
        return -self.row.priority, self.turn, self.row.id


class Works:
    """The tables of queues and of work."""

    def __init__(self) -> None:
        self.items: dict[int, _Item] = {}
        self.ended: dict[int, tuple[str, int]] = {}
        self.queues: dict[tuple[str, str], QueueRow] = {}
        self._attempts: dict[tuple[int, str, int], _Item] = {}
        self._allowances: dict[tuple[str, str], tuple[float, int]] = {}
        self._last_id = 0

    # -- the node's side ---------------------------------------------------------------------------

    def write(self, batch: Batch, details: Callable[[int, str], bytes | None], moment: int) -> None:
        """What a batch hands out, takes back and ends."""
        for row in batch.work:
            self._put(row, details)
        for id in batch.ended_work:
            item = self.items.get(id)
            if item is not None:
                if item.row.token:
                    self.ended[id] = (item.row.token, moment)
                self._drop(item)
        for instance in batch.dropped_work:
            for item in [i for i in self.items.values() if i.row.instance == instance]:
                self._drop(item)

    def _put(self, row: WorkRow, details: Callable[[int, str], bytes | None]) -> None:
        attempt = (row.instance, row.step_key, row.attempt)
        item = self._attempts.get(attempt)
        if item is None:
            self._last_id += 1
            kept = details(row.instance, row.operation)
            item = _Item(replace(row, id=self._last_id, cancelled=False, details=kept), self._turn(row))
            self.items[self._last_id] = self._attempts[attempt] = item
        if row.cancelled:
            item.row.cancelled = True
            if item.state == "ready":
                self._end(item, "cancelled")

    def _turn(self, row: WorkRow) -> int:
        band = [i for i in self._of(row.namespace, row.queue) if i.row.priority == row.priority]
        own = max((i.turn + 1 for i in band if i.row.key == row.key), default=0)
        return max(own, min((i.turn for i in band if i.state == "ready"), default=0))

    def _of(self, namespace: str, queue: str, state: str | None = None) -> list[_Item]:
        place = (namespace, queue)
        return [i for i in self.items.values() if (i.row.namespace, i.row.queue) == place and state in (None, i.state)]

    def _drop(self, item: _Item) -> None:
        row = item.row
        del self.items[row.id]
        del self._attempts[row.instance, row.step_key, row.attempt]

    @staticmethod
    def _end(item: _Item, ended: Ended, outcome: bytes | None = None) -> None:
        item.state = "done"
        item.row.ended = ended
        item.row.outcome = outcome

    def done(self, limit: int, known: Collection[int], moment: int) -> list[WorkRow]:
        """Attempts that have ended."""
        for item in self.items.values():
            if _is_lapsed(item, moment) and _is_hopeless(item, moment):
                late = item.late_at is not None and item.late_at <= moment
                self._end(item, "cancelled" if item.row.cancelled else "late" if late else "lost")
        found = [replace(i.row) for i in self.items.values() if i.state == "done" and i.row.id not in known]
        return found[:limit]

    # -- the workers' side -------------------------------------------------------------------------

    def claim(
        self,
        namespace: str,
        queue: str,
        limit: int,
        worker: str,
        lease_seconds: float,
        steps: Collection[str] | None,
        moment: int,
    ) -> Claimed:
        """Claim what may begin now."""
        for item in self._of(namespace, queue, "claimed"):
            if _is_lapsed(item, moment) and not _is_hopeless(item, moment):
                self._free(item)
        settings = self.queues.get((namespace, queue))
        running = self._of(namespace, queue, "claimed")
        places, again = self._room(settings, limit, len(running), moment)
        chosen = self._choose(namespace, queue, places, steps, settings, running)
        until = moment + int(lease_seconds * 1e6)
        for item in chosen:
            self._claim(item, worker, moment, until)
        if settings is not None and settings.per_second is not None:
            self._spend(settings, len(chosen), moment)
        lapse = min((i.row.lease_until or 0 for i in self._of(namespace, queue, "claimed")), default=None)
        if again is None and lapse is not None:
            again = max(0.0, (lapse - moment) / 1e6)
        return Claimed([replace(item.row) for item in chosen], again)

    def _room(self, settings: QueueRow | None, limit: int, running: int, moment: int) -> tuple[int, float | None]:
        if settings is None:
            return limit, None
        if settings.concurrency is not None:
            limit = min(limit, settings.concurrency - running)
        if settings.per_second is None:
            return limit, None
        allowance = self._allowance(settings, moment)
        again = again_after(settings.per_second, allowance) if allowance < 1 else None
        return min(limit, int(allowance)), again

    def _allowance(self, settings: QueueRow, moment: int) -> float:
        assert settings.per_second is not None
        allowance, at = self._allowances.get((settings.namespace, settings.name), (0.0, 0))
        passed = max(0, moment - at) / 1e6
        return min(most_allowance(settings.per_second), allowance + passed * settings.per_second)

    def _spend(self, settings: QueueRow, count: int, moment: int) -> None:
        left = self._allowance(settings, moment) - count
        self._allowances[settings.namespace, settings.name] = (left, moment)

    def _choose(
        self,
        namespace: str,
        queue: str,
        places: int,
        steps: Collection[str] | None,
        settings: QueueRow | None,
        running: list[_Item],
    ) -> list[_Item]:
        most = None if settings is None else settings.concurrency_per_key
        counts: dict[str, int] = {}
        for item in running:
            counts[item.row.key] = counts.get(item.row.key, 0) + 1
        chosen: list[_Item] = []
        for item in sorted(self._of(namespace, queue, "ready"), key=lambda i: i.order):
            if len(chosen) >= places:
                break
            count = counts.get(item.row.key, 0)
            if (most is None or count < most) and (steps is None or item.row.step in steps):
                counts[item.row.key] = count + 1
                chosen.append(item)
        return chosen

    @staticmethod
    def _claim(item: _Item, worker: str, moment: int, until: int) -> None:
        row = item.row
        item.state = "claimed"
        item.late_at = None
        if row.timeout_seconds is not None:
            item.late_at = moment + int(row.timeout_seconds * 1e6) + _GRACE_MICROSECONDS
        row.claims += 1
        row.token = secrets.token_hex(12)
        row.worker = worker
        row.began_at = moment
        row.lease_until = until if item.late_at is None else min(until, item.late_at)

    @staticmethod
    def _free(item: _Item) -> None:
        item.state = "ready"
        item.row.token, item.row.worker, item.row.lease_until = "", None, None

    def _own(self, claim: Claim, namespace: str | None = None, state: str = "claimed") -> _Item | None:
        item = self.items.get(claim.id)
        if item is None or item.state != state or item.row.token != claim.token:
            return None
        return item if namespace in (None, item.row.namespace) else None

    def beat(self, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float, moment: int) -> list[Hold]:
        """Prolong leases."""
        until = moment + int(lease_seconds * 1e6)
        for beat in beats:
            item = self._own(beat.claim, namespace)
            if item is not None:
                item.row.lease_until = until if item.late_at is None else min(until, item.late_at)
                item.row.details = item.row.details if beat.details is None else beat.details
        return [_hold(self._own(beat.claim, namespace)) for beat in beats]

    def held(self, claims: Sequence[Claim]) -> list[Hold]:
        """Which claims still hold."""
        return [_hold(self._own(claim)) for claim in claims]

    def complete(self, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
        """Write outcomes; whether each of them counts."""
        return [self._complete(namespace, end) for end in ends]

    def _complete(self, namespace: str, end: WorkEnd) -> bool:
        item = self._own(end.claim, namespace)
        if item is not None:
            self._end(item, "told", end.outcome)
            return True
        done = self._own(end.claim, namespace, "done")
        if done is not None:
            return done.row.ended == "told"
        return self.ended.get(end.claim.id, ("", 0))[0] == end.claim.token

    def give_back(self, namespace: str, claims: Sequence[Claim]) -> None:
        """Make claims ready again."""
        for claim in claims:
            item = self._own(claim, namespace)
            if item is not None:
                self._free(item)
                item.row.most_claims += 1
                if item.row.cancelled:
                    self._end(item, "cancelled")

    def depths(self, namespace: str | None) -> list[QueueDepth]:
        """What stands in the queues."""
        groups: dict[tuple[str, str], list[_Item]] = {}
        for item in self.items.values():
            if namespace in (None, item.row.namespace):
                groups.setdefault((item.row.namespace, item.row.queue), []).append(item)
        return [_depth(place, items) for place, items in sorted(groups.items())]

    def forget(self, before: int, limit: int) -> int:
        """Forget ended claims."""
        old = [id for id, (_, at) in self.ended.items() if at < before][:limit]
        for id in old:
            del self.ended[id]
        return len(old)


def _is_lapsed(item: _Item, moment: int) -> bool:
    return item.state == "claimed" and (item.row.lease_until or 0) <= moment


def _is_hopeless(item: _Item, moment: int) -> bool:
    late = item.late_at is not None and item.late_at <= moment
    return item.row.cancelled or item.row.claims >= item.row.most_claims or late


def _hold(item: _Item | None) -> Hold:
    if item is None:
        return "lost"
    return "cancelled" if item.row.cancelled else "held"


def _depth(place: tuple[str, str], items: list[_Item]) -> QueueDepth:
    states: dict[str, list[Any]] = {"ready": [], "claimed": [], "done": []}
    for item in items:
        states[item.state].append(item.row.at)
    return QueueDepth(
        namespace=place[0],
        name=place[1],
        ready=len(states["ready"]),
        running=len(states["claimed"]),
        done=len(states["done"]),
        oldest_at=min(states["ready"], default=None),
    )
