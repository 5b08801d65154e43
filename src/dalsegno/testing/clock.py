"""Virtual time: it stands still while anything can run, and jumps when everything waits."""

from __future__ import annotations

from datetime import UTC, datetime

from dalsegno.contracts.duration import Duration, seconds
from dalsegno.errors import UsageError


class Clock:
    """The time of a lab, in whole microseconds: it outlives the nodes, as the world's does.

    >>> clock = Clock("2026-01-01")
    >>> clock.move("3d"); clock.date.isoformat()
    '2026-01-04T00:00:00+00:00'
    """

    def __init__(self, start: str | datetime) -> None:
        begin = start if isinstance(start, datetime) else datetime.fromisoformat(start)
        # A date without a zone is meant in UTC, whatever the machine's zone is: tests run everywhere alike.
        begin = begin if begin.tzinfo is not None else begin.replace(tzinfo=UTC)
        self._begin = int(begin.timestamp() * 1_000_000)
        self.elapsed = 0

    def now(self) -> int:
        """The time in microseconds since the epoch, as stores count it."""
        return self._begin + self.elapsed

    @property
    def date(self) -> datetime:
        """The time as a datetime in UTC."""
        return datetime.fromtimestamp(self.now() / 1e6, UTC)

    def move(self, duration: Duration) -> None:
        """Let time pass while nothing runs."""
        self.elapsed += microseconds(duration)


def microseconds(duration: Duration) -> int:
    """A duration in whole microseconds. Raises `UsageError` for one that goes back."""
    found = round(seconds(duration) * 1_000_000)
    if found < 0:
        raise UsageError(f"{duration!r} goes back in time: a lab's time only moves forward")
    return found
