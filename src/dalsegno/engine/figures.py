"""A node's figures: what it did and how it does, for whoever looks on.

What is counted is counted once a commit; everything else is looked at once a second.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from dalsegno.kernel.ports import Batch, Committed

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

#: upper bounds of the buckets that commits are counted in
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_ENTRIES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
_WINDOW_SECONDS = 10.0
_MOST_SAMPLES = 4_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


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


class Tally:
    """Counts commits and what they hold."""

    def __init__(self) -> None:
        self.commits = 0
        self.rows = 0
        self.started = 0
        self.kinds: Counter[str] = Counter()
        self.became: Counter[str] = Counter()
        #: (when, seconds, entries) of the last commits
        self.recent: deque[tuple[float, float, int]] = deque(maxlen=_MOST_SAMPLES)
        self.seconds = Spread(buckets=[0] * (len(COMMIT_SECONDS) + 1))
        self.entries = Spread(buckets=[0] * (len(COMMIT_ENTRIES) + 1))

    def add(self, batch: Batch, found: Committed, now: float) -> None:
        """A batch is durable."""
        seconds = now - batch.began_at
        started = sum(1 for key in found.start_keys if key is not None)
        done = sum(1 for entry, _ in found.transactions if entry is not None)
        entries = len(batch.rows) // 5 + started + done
        self.commits += 1
        self.rows += entries
        self.started += started
        self.kinds.update(batch.rows[3::5])
        self.kinds["step_completed"] += done
        self.became.update([change.status for change in batch.changes.values()])
        self.recent.append((now, seconds, entries))
        self.seconds.buckets[bisect_left(COMMIT_SECONDS, seconds)] += 1
        self.seconds.sum += seconds
        self.entries.buckets[bisect_left(COMMIT_ENTRIES, entries)] += 1
        self.entries.sum += entries


_ENDED = ("completed", "failed", "cancelled", "terminated")
_Sample = tuple[float, float, float, int, int, int, int, int]


class Meter:
    """Takes a node's figures."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tally = node.committer.tally
        #: (when, loop lag, timer lag, commits, entries, steps, started, ended), one a second
        self._samples: deque[_Sample] = deque()
        self._shown: object = None
        self._sample(0.0)

    async def pause(self) -> None:
        """Wait until the node's lease is to be renewed: sooner than it has to be where there is news to show."""
        loop, limits = self._node.loop, self._node.limits
        renew_at = loop.time() + limits.lease_seconds / 3
        while True:
            seconds = max(0.0, min(limits.figures_seconds, renew_at - loop.time()))
            awake_at = loop.time() + seconds
            await asyncio.sleep(seconds)
            self._sample(loop.time() - awake_at)
            if loop.time() >= renew_at or self._news() != self._shown:
                return

    def shown(self) -> bytes:
        """The figures as JSON, to be shown now."""
        self._shown = self._news()
        return msgspec.json.encode(self.figures())

    def _news(self) -> object:
        """What must change before the figures are worth a write; rates are news until they have come to rest."""
        first, last = self._samples[0], self._samples[-1]
        return last[3:], first[3:] != last[3:] and last[0], self._open_steps, self._node.steps.backlog

    def _sample(self, loop_lag: float) -> None:
        tally, now = self._tally, self._node.loop.time()
        ended = sum(tally.became[outcome] for outcome in _ENDED)
        lag = self._node.timers.lag_seconds()
        self._open_steps = sum(len(resident.jobs) for resident in self._node.residents)
        steps = tally.kinds["step_completed"]
        self._samples.append((now, max(0.0, loop_lag), lag, tally.commits, tally.rows, steps, tally.started, ended))
        while self._samples[0][0] < now - _WINDOW_SECONDS * 1.05:
            self._samples.popleft()

    def figures(self) -> Figures:
        """The figures of this moment."""
        node, tally = self._node, self._tally
        since = node.loop.time() - _WINDOW_SECONDS
        recent = [commit for commit in tally.recent if commit[0] >= since]
        return Figures(
            at=node.store.now(),
            commits=tally.commits,
            entries=tally.rows,
            started=tally.started,
            ended={outcome: tally.became[outcome] for outcome in _ENDED},
            parked=tally.became["parked"],
            steps_done=tally.kinds["step_completed"],
            steps_failed=tally.kinds["step_failed"],
            steps_retried=tally.kinds["attempt_failed"],
            steps_open=self._open_steps,
            steps_backlog=node.steps.backlog,
            commit_seconds=_spread(tally.seconds, [seconds for _, seconds, _ in recent]),
            commit_entries=_spread(tally.entries, [entries for _, _, entries in recent]),
            rates=self._rates(),
            residents=len(node.residents),
            waking=node.waking.backlog,
            timer_lag_seconds=max(sample[2] for sample in self._samples),
            loop_lag_seconds=max(sample[1] for sample in self._samples),
            memory_bytes=memory_bytes(),
        )

    def _rates(self) -> Rates:
        first, last = self._samples[0], self._samples[-1]
        seconds = last[0] - first[0]
        if seconds <= 0:
            return Rates()
        commits, entries, steps, started, ended = ((b - a) / seconds for a, b in zip(first[3:], last[3:], strict=True))
        return Rates(commits=commits, entries=entries, steps=steps, started=started, ended=ended)


def _spread(whole: Spread, recent: Sequence[float]) -> Spread:
    ordered = sorted(recent)
    return Spread(
        p50=_quantile(ordered, 0.5),
        p99=_quantile(ordered, 0.99),
        max=ordered[-1] if ordered else None,
        sum=whole.sum,
        buckets=list(whole.buckets),
    )


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None


def memory_bytes() -> int:
    """What this process holds in memory; at its most where the system tells nothing else."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def total(shown: Iterable[Figures]) -> Figures:
    """The figures of several nodes together; of what can't be added, the worst."""
    whole = Figures(ended=dict.fromkeys(_ENDED, 0))
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
