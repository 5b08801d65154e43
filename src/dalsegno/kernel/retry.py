"""When a failed attempt is tried again."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dalsegno.contracts.duration import Duration, seconds
from dalsegno.errors import ContractError, UsageError


class Retry(msgspec.Struct, frozen=True):
    """Exponential backoff with jitter.

    Parameters: `attempts`, how often the step is tried in all (`None`: without end); `first`, the wait
    after the first failure; `factor`, by which each wait grows; `limit`, the longest wait; `jitter`, the
    share of a wait that is random (0 to 1); `never_on`, exception types that are final at once; `then`,
    what happens when the attempts are used up: "fail" raises in the process, "park" keeps the instance
    for an operator.

    >>> Retry(first="1s", factor=2, limit="3s", jitter=0).wait_seconds(3, 0.5)
    3.0
    """

    attempts: int | None = 5
    first: Duration = "1s"
    factor: float = 2.0
    limit: Duration = "1m"
    jitter: float = 0.2
    never_on: tuple[type[BaseException], ...] = ()
    then: Literal["fail", "park"] = "fail"

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise UsageError(f"Retry(attempts={self.attempts}): at least 1, or None for no end")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"Retry(jitter={self.jitter}): a share between 0 and 1")
        if self.factor < 1:
            raise UsageError(f"Retry(factor={self.factor}): at least 1, waits don't shrink")
        seconds(self.first)
        seconds(self.limit)

    def wait_seconds(self, attempt: int, chance: float) -> float:
        """The wait after the given failed attempt (1 is the first); `chance` in [0, 1) places the jitter."""
        first, limit = seconds(self.first), seconds(self.limit)
        exponent = min(attempt - 1, 1024)
        try:
            wait = min(limit, first * self.factor**exponent)
        except OverflowError:
            wait = limit
        return wait * (1 - self.jitter * chance)

    def is_final(self, attempt: int, error: BaseException) -> bool:
        """Whether no attempt follows this one."""
        if isinstance(error, (UsageError, ContractError, *self.never_on)):
            return True
        return self.attempts is not None and attempt >= self.attempts


def as_retry(value: Any) -> Retry:
    """A retry policy from what a decorator accepts: a `Retry`, a number of attempts, or `None` for one."""
    if value is None:
        return Retry(attempts=1)
    if isinstance(value, Retry):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(attempts=value)
    raise UsageError(f"retry={value!r}: give a Retry, a number of attempts, or None for a single attempt")
