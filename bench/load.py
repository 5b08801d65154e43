"""Closed-loop clients: each starts a process, waits for its result, starts the next.

Runs are sized by time, since the contestants differ by two orders of magnitude. No client starts a process
after the deadline, but what was started is waited for and its time counted, so that a thousand processes
which crawl side by side are neither cut off nor counted as none. Each client finishes at least one.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

import msgspec


class Sample(msgspec.Struct, frozen=True):
    concurrency: int
    finished: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.finished / self.seconds


class Outcome(msgspec.Struct):
    """What one contestant reports of one round."""

    samples: list[Sample] = []
    figures: dict[str, float] = {}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def sample(concurrency: int, latencies: list[float], seconds: float) -> Sample:
    p50, p99 = percentile(latencies, 0.50), percentile(latencies, 0.99)
    return Sample(concurrency, len(latencies), seconds, p50 * 1e3, p99 * 1e3)


async def drive(call: Callable[[], Awaitable[object]], concurrency: int, seconds: float) -> Sample:
    latencies: list[float] = []
    began = perf_counter()

    async def client() -> None:
        started = began
        while True:
            await call()
            ended = perf_counter()
            latencies.append(ended - started)
            if ended >= began + seconds:
                return
            started = ended

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return sample(concurrency, latencies, perf_counter() - began)


def drive_threads(call: Callable[[], object], concurrency: int, seconds: float) -> Sample:
    latencies: list[float] = []
    began = perf_counter()

    def client() -> None:
        while True:
            started = perf_counter()
            call()
            ended = perf_counter()
            latencies.append(ended - started)
            if ended >= began + seconds:
                return

    threads = [threading.Thread(target=client) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sample(concurrency, latencies, perf_counter() - began)
