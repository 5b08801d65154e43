"""Taking a node's figures: what is counted is counted once a commit, the rest is looked at once a second."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dalsegno.engine.figures import COMMIT_ENTRIES, COMMIT_SECONDS, ENDED, Figures, Rates, Spread
from dalsegno.kernel.ports import Batch, Committed

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_WINDOW_SECONDS = 10.0
_MOST_SAMPLES = 4_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


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

    def add(self, batch: Batch, found: Committed, seconds: float, now: float) -> None:
        """A batch is durable."""
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
        ended = sum(tally.became[outcome] for outcome in ENDED)
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
            ended={outcome: tally.became[outcome] for outcome in ENDED},
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
