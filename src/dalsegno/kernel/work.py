"""Steps on queues: what a store keeps of them, and what workers ask of it.

Times are microseconds since the epoch. A row of work is one attempt of one step. Whoever claims it gets a token, a new
one with each claim: every word of a worker proves with it that the claim is still its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

import msgspec

from dalsegno.errors import UsageError

#: how an attempt was brought to its end: by what its worker said, because it was cancelled, or because its time-out
#: or its last lease was over
Ended = Literal["told", "cancelled", "late", "lost"]
#: what a worker's word met: the claim was its own; it should stop; the claim is another's, or nobody's, by now
Hold = Literal["held", "cancelled", "lost"]


class WorkRow(msgspec.Struct, kw_only=True):
    """An attempt of a step on a queue."""

    namespace: str
    queue: str
    instance: int
    instance_id: str
    operation: str
    attempt: int
    step: str
    step_key: str
    arguments: bytes
    at: int
    #: higher ones are claimed first
    priority: int = 0
    #: those with the same key take turns with others, and share a limit
    key: str = ""
    timeout_seconds: float | None = None
    heartbeat_timeout_seconds: float | None = None
    #: claims that may be lost, one after the other, before it counts as what its workers die of
    most_claims: int = 5
    cancelled: bool = False
    id: int = 0
    #: how often it was claimed
    claims: int = 0
    token: str = ""
    worker: str | None = None
    began_at: int | None = None
    lease_until: int | None = None
    #: what the step recorded to resume from
    details: bytes | None = None
    ended: Ended | None = None
    #: what the worker said it came to
    outcome: bytes | None = None


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue allows: attempts that run at once, of one key at once, and claims a second."""

    namespace: str
    name: str
    concurrency: int | None = None
    concurrency_per_key: int | None = None
    per_second: float | None = None


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a queue."""

    namespace: str
    name: str
    ready: int
    running: int
    #: done, but not taken up by the instance's node yet
    done: int
    #: since when the oldest that is ready waits
    oldest_at: int | None = None


class Claimed(msgspec.Struct):
    """What a worker got. `again_seconds`: there will be more by then, whether it is rung or not."""

    work: list[WorkRow]
    again_seconds: float | None = None


class Claim(msgspec.Struct, frozen=True):
    """A worker's proof that a row is its own."""

    id: int
    token: str


class WorkBeat(msgspec.Struct, kw_only=True):
    """A sign of life of a running attempt, with what it could resume from."""

    claim: Claim
    details: bytes | None = None


class WorkEnd(msgspec.Struct, kw_only=True):
    """What an attempt came to."""

    claim: Claim
    outcome: bytes


class Queues(Protocol):
    """What a store does for steps on queues; part of `Store`.

    `Batch.work` hands attempts out in the commit that dispatches them. Workers are beside the owner: none of their
    verbs is fenced by an epoch, each is fenced by its claim.
    """

    async def set_queues(self, queues: Sequence[QueueRow]) -> None:
        """From now on these queues have these limits, for every worker."""

    async def claim_work(
        self,
        namespace: str,
        queue: str,
        limit: int,
        worker: str,
        lease_seconds: float,
        steps: Collection[str] | None = None,
    ) -> Claimed:
        """Claim attempts of these steps: by priority, keys taking turns, as far as the queue's limits allow.

        What was claimed and whose lease has ended is claimed anew, under another token.
        """

    async def beat_work(self, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float) -> list[Hold]:
        """Prolong the leases of attempts that run, and keep their details."""

    async def held_work(self, claims: Sequence[Claim]) -> list[Hold]:
        """Which claims still hold, without prolonging them."""

    async def complete_work(self, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
        """Write what attempts came to; false for a claim that another took over. Saying it twice is saying it once."""

    async def return_work(self, namespace: str, claims: Sequence[Claim]) -> None:
        """Give claims back: others may claim them at once."""

    async def work_done(self, limit: int, known: Collection[int]) -> list[WorkRow]:
        """Attempts that have ended, of the instances of this node, but for the ids it knows; the oldest first.

        Those end here that no worker will end: too often lost, late, or cancelled and lost.
        """

    async def queue_depths(self, namespace: str | None) -> list[QueueDepth]:
        """What stands in the queues that have something in them, by namespace and name."""

    async def forget_work(self, before: int, limit: int) -> int:
        """Forget claims that ended before then: who repeats its last word later is refused; how many went."""


class Queue(msgspec.Struct, frozen=True):
    """What a queue allows all its workers together.

    Parameters: `name`; `concurrency`, attempts that run at once; `concurrency_per_key`, those of one key; `rate`,
    such as "100/s", "30/m" or "5/h", at which they begin.

    >>> Queue("gpu", concurrency=8, rate="30/m").per_second
    0.5
    """

    name: str
    concurrency: int | None = None
    concurrency_per_key: int | None = None
    rate: str | None = None

    def __post_init__(self) -> None:
        check_queue(self.name)
        for option in ("concurrency", "concurrency_per_key"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"Queue({self.name!r}, {option}={value!r}): at least 1, or leave it out for no limit")
        _ = self.per_second

    @property
    def per_second(self) -> float | None:
        """The rate as a number."""
        if self.rate is None:
            return None
        count, _, unit = self.rate.partition("/")
        try:
            found = float(count) / _UNITS[unit.strip()]
        except (ValueError, KeyError):
            found = 0.0
        if not 0 < found < 1e9:
            raise UsageError(f"Queue({self.name!r}, rate={self.rate!r}): write it as '100/s', '30/m' or '5/h'")
        return found


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_NAME = 100


def check_queue(name: object) -> str:
    """A queue's name as it was given. Raises `UsageError` for one that can't be in a URL."""
    if (
        isinstance(name, str)
        and 0 < len(name) <= _MOST_NAME
        and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        and name.isascii()
    ):
        return name
    raise UsageError(f"queue={name!r}: give 1 to {_MOST_NAME} letters, digits, '.', '-' or '_'")


def again_after(per_second: float, allowance: float) -> float:
    """How long until one more may begin at this rate."""
    return max(0.0, (1.0 - allowance) / per_second)


def most_allowance(per_second: float) -> float:
    """How many may begin at once after a pause: what a tenth of a second allows, one at least."""
    return max(1.0, per_second / 10)
