"""Steps in worker processes: for work that would hold the interpreter's lock.

Arguments and results travel as JSON lines over pipes; the worker imports the step's function by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.engine.jobs import Job, Report, within
from dalsegno.errors import StepFailed
from dalsegno.kernel.fault import Fault, restore
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.points import reach


class Request(msgspec.Struct):
    """What the node asks of a worker."""

    module: str
    path: str
    main_file: str | None
    step: str
    arguments: msgspec.Raw
    key: str
    attempt: int
    instance: str
    details: Any = None


class Reply(msgspec.Struct, omit_defaults=True):
    """What a worker says: a heartbeat, a result or an error."""

    result: msgspec.Raw = EMPTY
    error: Fault | None = None
    heartbeat: msgspec.Raw = EMPTY


class _Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def attempt(self, job: Job) -> Any:
        """Run one attempt."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(codec.encode(_request(job)) + b"\n")
        await self.process.stdin.drain()
        while line := await self.process.stdout.readline():
            reply = msgspec.json.decode(line, type=Reply)
            if reply.heartbeat:
                job.heartbeat(codec.decode(reply.heartbeat))
            elif reply.error is not None:
                raise restore(reply.error)
            else:
                return job.call.spec.decode(reply.result or codec.NULL)
        code = await self.process.wait()
        raise StepFailed(f"{job.describe()}: its worker process ended with code {code} before it replied")

    async def end(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class ProcessSteps:
    """A small pool of worker processes, started when they are first needed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, report: Report) -> None:
        self._loop = loop
        self._report = report
        self._slots = asyncio.Semaphore(limits.step_processes)
        self._payload_bytes = limits.payload_bytes
        self._idle: list[_Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, job: Job) -> None:
        """Run a step in a worker process."""
        task = self._loop.create_task(self._attempt(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        job.task = task

    async def _attempt(self, job: Job) -> None:
        worker = None
        try:
            async with self._slots:
                worker = self._idle.pop() if self._idle else await self._spawn()
                reach("effect.before")
                work = worker.attempt(job)
                timeout = job.call.spec.timeout_seconds
                result = await (work if timeout is None else within(timeout, job, work))
                reach("effect.after")
                self._idle.append(worker)
                worker = None
        except asyncio.CancelledError as error:
            self._report(job, None, error)
        except Exception as error:
            if worker is not None and worker.process.returncode is None and not _is_attempts_fault(error):
                self._idle.append(worker)
                worker = None
            self._report(job, None, error)
        else:
            self._report(job, result, None)
        finally:
            if worker is not None:
                await worker.end()

    async def _spawn(self) -> _Worker:
        # Modules are found where this process finds them.
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dalsegno.engine.process_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            limit=4 * self._payload_bytes + 65536,
        )
        return _Worker(process)

    def cancel(self, job: Job) -> None:
        """Stop an attempt and the process it runs in."""
        job.cancelled = True
        if job.task is not None:
            job.task.cancel()

    async def close(self) -> None:
        """End all worker processes."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._idle), return_exceptions=True)


def _is_attempts_fault(error: Exception) -> bool:
    """Whether the worker can't be used again: it is still busy, or out of step."""
    return isinstance(error, (StepFailed, TimeoutError, msgspec.DecodeError, OSError, ValueError)) and (
        error.__class__.__module__ in ("dalsegno.errors", "builtins", "msgspec")
    )


def _request(job: Job) -> Request:
    function = job.call.spec.function
    return Request(
        module=function.__module__,
        path=function.__qualname__,
        main_file=getattr(sys.modules["__main__"], "__file__", None),
        step=job.call.spec.name,
        arguments=msgspec.Raw(job.call.encoded),
        key=job.key,
        attempt=job.attempt,
        instance=job.resident.id,
        details=job.details,
    )
