"""Work spread over processes: each gets a job with a seed, and returns its figures."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from tests.reliability.simulated import quiet

from dalsegno.testing import chaos, witness

CORES = 2


def spread(work: Callable[[Any], Any], jobs: Iterable[Any], processes: int = CORES) -> Iterator[Any]:
    """Results of `work` for each job, as they come."""
    waiting = iter(jobs)
    # Spawned, not forked: a fork of a program with threads is not a program to trust.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=quiet) as pool:
        running = {pool.submit(work, job) for job in islice(waiting, processes * 2)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()
                running |= {pool.submit(work, job) for job in islice(waiting, 1)}


def with_witness(work: Callable[[Any, str], Any], job: Any) -> Any:
    """Do a job with a witness at hand."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-witness-") as folder:
        socket_path = f"{folder}/socket"
        process = witness.start(socket_path)
        try:
            return work(job, socket_path)
        finally:
            process.kill()
            process.wait()


class preloaded:
    """Within it, new processes stand on a disk that can fail and lose."""

    def __enter__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dalsegno-chaos-")
        os.environ["LD_PRELOAD"] = chaos.build(Path(self._folder.name))

    def __exit__(self, *_: object) -> None:
        del os.environ["LD_PRELOAD"]
        self._folder.cleanup()
