"""The kit: workers on all cores, seed after seed, until enough was run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import msgspec

from dalsegno.errors import UsageError
from dalsegno.testing import chaos
from dalsegno.testing.verify.plan import Plan, Strike
from dalsegno.testing.verify.report import Report
from dalsegno.testing.verify.worker import Found, Job, Reference


def verify(
    plan: Plan,
    command: Sequence[str],
    *,
    runs: int,
    seconds: float | None = None,
    strikes: list[Strike] | None = None,
    cores: int = 2,
) -> Report:
    """Run so many rounds, or until the time is up, and report. Stops at the first violation.

    Parameters: `command`, a program that reads the plan and serves as a worker; `strikes`, these faults instead of
    those of the seeds. Raises `UsageError` where the process doesn't reach its end undisturbed.
    """
    plan.command = list(command)
    report = Report(plan=plan)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dalsegno-verify-") as folder:
        environment = _environment(plan, Path(folder))
        workers = [_Worker(plan, command, environment) for _ in range(max(1, min(cores, runs)))]
        try:
            references = [worker.reference() for worker in workers]
            report.reference = references[0]
            report.reference.steady = all(one.steady and one.ends == references[0].ends for one in references)
            report.began()
            if not report.violated:
                _run(workers, report, plan, runs, None if seconds is None else time.monotonic() + seconds, strikes)
        finally:
            for worker in workers:
                worker.end()
    report.seconds = time.monotonic() - began
    return report


def _environment(plan: Plan, folder: Path) -> dict[str, str]:
    # Journals are replayed in processes with another seed: who iterates over a set takes another way there.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    try:
        library = chaos.build(folder)
    except (FileNotFoundError, subprocess.CalledProcessError):
        # Without a C compiler the disk stays sound.
        return environment
    plan.disk = True
    return {**environment, "LD_PRELOAD": library}


def _run(
    workers: list[_Worker],
    report: Report,
    plan: Plan,
    runs: int,
    until: float | None,
    strikes: list[Strike] | None,
) -> None:
    answers: SimpleQueue[tuple[_Worker, Found | Exception]] = SimpleQueue()
    asked = 0

    def ask(worker: _Worker) -> int:
        is_over = report.violated or asked >= runs or (until is not None and time.monotonic() >= until)
        if is_over:
            return 0
        worker.ask(Job(plan.seed + asked, strikes), answers)
        return 1

    for worker in workers:
        asked += ask(worker)
    answered = 0
    while answered < asked:
        worker, found = answers.get()
        answered += 1
        if isinstance(found, Exception):
            raise found
        report.add(found)
        asked += ask(worker)


class _Worker:
    """A worker process, seen from outside."""

    def __init__(self, plan: Plan, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self._tell(msgspec.json.encode(plan))

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise UsageError(f"verifying stopped: {self._process.stderr.read().decode()[-2000:].strip()}")
        return line

    def reference(self) -> Reference:
        """What undisturbed runs came to. Raises `UsageError` where they reached no end."""
        found = msgspec.json.decode(self._read(), type=Reference)
        if found.refused:
            raise UsageError(
                f"the process doesn't reach its end undisturbed: {found.refused}\nGive --script file.py:function to "
                "publish and answer what it waits for, --double step=value for a step that can't run here, smaller "
                "times by --input, or --patience"
            )
        return found

    def ask(self, job: Job, answers: SimpleQueue[tuple[_Worker, Found | Exception]]) -> None:
        """Have a round run; what it came to is put into a queue."""
        self._tell(msgspec.json.encode(job))

        def wait() -> None:
            try:
                answers.put((self, msgspec.json.decode(self._read(), type=Found)))
            except Exception as error:
                answers.put((self, error))

        threading.Thread(target=wait, daemon=True).start()

    def end(self) -> None:
        """Let it go: at the end of its input it ends by itself, and its witness with it."""
        self._process.communicate()


def python(module: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module]
