"""A node's figures: what it did and how it does, for whoever looks on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

#: upper bounds of the buckets that commits are counted in
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_ENTRIES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
ENDED = ("completed", "failed", "cancelled", "terminated")


class Spread(msgspec.Struct, kw_only=True):
    """How something is spread: over the last seconds, and in buckets since the node began."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    sum: float = 0.0
    #: how many fell into each bucket, the last one without a bound
    buckets: list[int] = []


class Rates(msgspec.Struct, kw_only=True):
    """How often a second, over the last ten."""

    commits: float = 0.0
    entries: float = 0.0
    steps: float = 0.0
    started: float = 0.0
    ended: float = 0.0


class Figures(msgspec.Struct, kw_only=True):
    """What a node shows of itself. Counts are since it began."""

    #: when, in microseconds since the epoch by the store's clock; 0 where it hasn't shown any yet
    at: int = 0
    commits: int = 0
    entries: int = 0
    #: instances that began here
    started: int = 0
    #: how many instances ended, by outcome
    ended: dict[str, int] = {}
    parked: int = 0
    steps_done: int = 0
    steps_failed: int = 0
    steps_retried: int = 0
    #: open steps that run or wait for room, and those of them that wait
    steps_open: int = 0
    steps_backlog: int = 0
    commit_seconds: Spread = msgspec.field(default_factory=Spread)
    commit_entries: Spread = msgspec.field(default_factory=Spread)
    rates: Rates = msgspec.field(default_factory=Rates)
    residents: int = 0
    #: instances that wait to be loaded
    waking: int = 0
    #: the latest timer and the longest turn of the loop, over the last seconds
    timer_lag_seconds: float = 0.0
    loop_lag_seconds: float = 0.0
    memory_bytes: int = 0


_decoder = msgspec.json.Decoder(Figures)


def figures_of(data: bytes) -> Figures:
    """Figures as a node showed them; those of another version as far as they can be understood."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return Figures()


def total(shown: Iterable[Figures]) -> Figures:
    """The figures of several nodes together; of what can't be added, the worst."""
    whole = Figures(ended=dict.fromkeys(ENDED, 0))
    for figures in shown:
        for name in _SUMMED:
            setattr(whole, name, getattr(whole, name) + getattr(figures, name))
        for name in _WORST:
            setattr(whole, name, max(getattr(whole, name), getattr(figures, name)))
        for outcome, count in figures.ended.items():
            whole.ended[outcome] = whole.ended.get(outcome, 0) + count
        for name in Rates.__struct_fields__:
            setattr(whole.rates, name, getattr(whole.rates, name) + getattr(figures.rates, name))
        whole.commit_seconds = _worse(whole.commit_seconds, figures.commit_seconds)
        whole.commit_entries = _worse(whole.commit_entries, figures.commit_entries)
    return whole


_WORST = ("at", "timer_lag_seconds", "loop_lag_seconds")
_SUMMED = (
    "commits", "entries", "started", "parked", "steps_done", "steps_failed", "steps_retried", "steps_open",
    "steps_backlog", "residents", "waking", "memory_bytes",
)  # fmt: skip


def _worse(one: Spread, other: Spread) -> Spread:
    def worst(a: float | None, b: float | None) -> float | None:
        return max((x for x in (a, b) if x is not None), default=None)

    size = max(len(one.buckets), len(other.buckets))
    filled = [spread.buckets + [0] * (size - len(spread.buckets)) for spread in (one, other)]
    return Spread(
        p50=worst(one.p50, other.p50),
        p99=worst(one.p99, other.p99),
        max=worst(one.max, other.max),
        sum=one.sum + other.sum,
        buckets=[a + b for a, b in zip(*filled, strict=True)],
    )
