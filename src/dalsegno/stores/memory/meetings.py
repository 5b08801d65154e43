"""Events, waits, and which of them have met."""

from __future__ import annotations

from typing import Any

import msgspec

from dalsegno.kernel.ports import EventRow, Match, WaitRow

_Sort = tuple[str, str]
_decode = msgspec.json.decode


class Meetings:
    """The tables of events and waits. A wait is open until its event is found, and kept until it is closed."""

    def __init__(self) -> None:
        self.events: dict[int, EventRow] = {}
        self.last_position = 0
        self.waits: dict[tuple[int, str], WaitRow] = {}
        self.matched: dict[tuple[int, str], int] = {}
        self._ids: set[tuple[str, str]] = set()
        self._positions: dict[_Sort, list[int]] = {}
        self._open: dict[_Sort, dict[tuple[int, str], WaitRow]] = {}

    def close(self, pair: tuple[int, str]) -> None:
        """Forget a wait."""
        wait = self.waits.pop(pair, None)
        self.matched.pop(pair, None)
        if wait is not None:
            self._open[_sort(wait)].pop(pair, None)

    def open(self, wait: WaitRow, events_from: int) -> list[Match]:
        """Keep a wait, and look whether its event is there; what came before the instance counts only if sent to it."""
        pair = (wait.instance, wait.operation)
        self.close(pair)
        self.waits[pair] = wait
        self._open.setdefault(_sort(wait), {})[pair] = wait
        for position in self._positions.get(_sort(wait), ()):
            event = self.events[position]
            is_early = event.to is None and position <= events_from
            if position > wait.after and not is_early and _meets(event, wait):
                return [self._match(wait, position, event)]
        return []

    def publish(self, event: EventRow) -> list[Match]:
        """Keep an event and give it to the waits that are open for it. A known event id changes nothing."""
        if (event.namespace, event.id) in self._ids:
            return []
        self._ids.add((event.namespace, event.id))
        self.last_position += 1
        self.events[self.last_position] = event
        self._positions.setdefault(_sort(event), []).append(self.last_position)
        waits = list(self._open.get(_sort(event), {}).values())
        return [self._match(wait, self.last_position, event) for wait in waits if _meets(event, wait)]

    def _match(self, wait: WaitRow, position: int, event: EventRow) -> Match:
        pair = (wait.instance, wait.operation)
        self.matched[pair] = position
        self._open[_sort(wait)].pop(pair, None)
        return Match(
            instance=wait.instance,
            operation=wait.operation,
            position=position,
            event_id=event.id,
            payload=event.payload,
        )

    def matches(self) -> list[Match]:
        """Waits whose event has been found."""
        return [self._match(self.waits[pair], at, self.events[at]) for pair, at in list(self.matched.items())]

    def forget(self, before: int, limit: int) -> int:
        """Drop events older than that, but for those that are still to be delivered; how many went."""
        kept = set(self.matched.values())
        old = [at for at, event in self.events.items() if event.at < before and at not in kept]
        gone = sorted(old, key=lambda position: self.events[position].at)[:limit]
        for position in gone:
            event = self.events.pop(position)
            self._ids.discard((event.namespace, event.id))
            self._positions[_sort(event)].remove(position)
        return len(gone)


def _sort(row: Any) -> _Sort:
    return row.namespace, row.event_type


def _meets(event: EventRow, wait: WaitRow) -> bool:
    if event.to not in (None, wait.instance_id) or wait.key not in (None, event.key):
        return False
    wanted = _decode(wait.match)
    fields = _decode(event.payload) if wanted else {}
    return all(name in fields and fields[name] == value for name, value in wanted.items())
