"""Running steps: each attempt on the executor its declaration names."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dalsegno.engine.resident import Resident
from dalsegno.errors import AttemptTimedOut
from dalsegno.kernel import points
from dalsegno.kernel.calls import StepCall
from dalsegno.kernel.context import current_step
from dalsegno.kernel.limits import Limits


class Job:
    """One attempt of one step; what the step can ask of itself."""

    __slots__ = (
        "_record",
        "attempt",
        "beat_at",
        "call",
        "cancelled",
        "details",
        "recorded_at",
        "resident",
        "started_at",
        "task",
    )

    def __init__(self, resident: Resident, call: StepCall, started_at: int, record: Callable[[Job, Any], None]) -> None:
        self.resident = resident
        self.call = call
        self.attempt = call.attempt
        self.started_at = started_at
        self.details: Any = None
        self.beat_at = 0.0
        self.recorded_at = 0.0
        self.cancelled = False
        self.task: Any = None
        self._record = record

    @property
    def key(self) -> str:
        """The idempotency key: the same on every attempt."""
        return self.resident.execution.step_key(self.call.key)

    def heartbeat(self, details: Any) -> Any:
        """Record details to resume from; returns what was recorded before."""
        before = self.details
        if details is not None:
            self.details = details
        self._record(self, details)
        return before

    def describe(self) -> str:
        """How messages name it."""
        return f"step {self.call.key!r} of instance {self.resident.id!r}, attempt {self.attempt}"


Report = Callable[[Job, Any, BaseException | None], None]
_IDLE_WORKERS = 64


class AsyncSteps:
    """Runs `async def` steps on a pool of tasks.

    A task runs one step after the other; only a step that waits makes room for a further task. So a step
    that never waits costs no task of its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, report: Report) -> None:
        self._loop = loop
        self._limit = limit
        self._report = report
        self._ready: deque[Job] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._pumping = False

    def submit(self, job: Job) -> None:
        """Run a step as soon as there is room."""
        self._ready.append(job)
        if not self._pumping:
            self._pump()

    @property
    def backlog(self) -> int:
        """Steps that wait for room."""
        return len(self._ready)

    def _pump(self) -> None:
        if not self._ready:
            self._pumping = False
        elif self._idle:
            self._pumping = True
            self._idle.pop().set_result(None)
            self._loop.call_soon(self._pump)
        elif len(self._workers) < self._limit:
            self._pumping = True
            worker = self._loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
            self._loop.call_soon(self._pump)
        else:
            self._pumping = False

    async def _work(self) -> None:
        ready = self._ready
        task = asyncio.current_task()
        while True:
            while ready:
                await self._attempt(ready.popleft(), task)
            if len(self._idle) >= _IDLE_WORKERS:
                return
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            await idle

    async def _attempt(self, job: Job, task: Any) -> None:
        call = job.call
        if job.cancelled:
            self._report(job, None, asyncio.CancelledError())
            return
        job.task = task
        current_step.set(job)
        if points.armed is not None:
            points.reach("effect.before")
        try:
            timeout = call.spec.timeout_seconds
            if timeout is None:
                result = await call.spec.function(*call.args, **call.kwargs)
            else:
                result = await within(timeout, job, call.spec.function(*call.args, **call.kwargs))
        except asyncio.CancelledError as error:
            if not job.cancelled:
                self._report(job, None, error)
                raise
            job.task.uncancel()
            self._report(job, None, error)
        except (Exception, SystemExit) as error:
            # Code that was written as a program must not end the node.
            self._report(job, None, error)
        else:
            if points.armed is not None:
                points.reach("effect.after")
            self._report(job, result, None)
        finally:
            job.task = None

    def cancel(self, job: Job) -> None:
        """Stop an attempt, whether it has begun or not."""
        job.cancelled = True
        if job.task is not None:
            job.task.cancel()

    async def close(self) -> None:
        """Cancel what still runs."""
        self._ready.clear()
        for worker in list(self._workers):
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)


async def within(timeout_seconds: float, job: Job, work: Any) -> Any:
    """Await an attempt for so long at most. Raises `AttemptTimedOut`."""
    limit = asyncio.timeout(timeout_seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise AttemptTimedOut(
                f"{job.describe()} didn't end within {timeout_seconds:g} s; whether it took effect is unknown"
            ) from error
        raise


class ThreadSteps:
    """Runs `def` steps in threads. A thread can't be cancelled: its outcome is awaited, or the time-out's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, report: Report) -> None:
        self._loop = loop
        self._report = report
        self._pool = ThreadPoolExecutor(limits.step_threads, thread_name_prefix="dalsegno-step")

    def submit(self, job: Job) -> None:
        """Run a step in a thread."""
        call = job.call
        context = contextvars.copy_context()
        context.run(current_step.set, job)
        if points.armed is not None:
            points.reach("effect.before")
        future = self._pool.submit(context.run, call.spec.function, *call.args, **call.kwargs)
        job.task = future
        timer = None
        if call.spec.timeout_seconds is not None:
            timer = self._loop.call_later(call.spec.timeout_seconds, self._expire, job)
        future.add_done_callback(lambda f: self._call_soon(self._finish, job, f, timer))

    def _call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The node is gone; the step is done again by the next one.
            pass

    def _expire(self, job: Job) -> None:
        if job.task is not None:
            job.task = None
            seconds = job.call.spec.timeout_seconds
            self._report(
                job, None, AttemptTimedOut(f"{job.describe()} didn't end within {seconds:g} s; its thread goes on")
            )

    def _finish(self, job: Job, future: Future[Any], timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
        if job.task is None:
            return
        job.task = None
        if future.cancelled():
            self._report(job, None, asyncio.CancelledError())
            return
        if points.armed is not None:
            points.reach("effect.after")
        error = future.exception()
        self._report(job, None if error else future.result(), error)

    def cancel(self, job: Job) -> None:
        """Stop an attempt that has not begun; one that has is left to end."""
        job.cancelled = True
        if job.task is not None:
            job.task.cancel()

    async def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
