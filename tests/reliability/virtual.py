"""A loop whose time jumps when nothing is ready: an hour of waiting costs nothing, and every run is alike."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dalsegno.errors import StoreError

EPOCH_SECONDS = 1_800_000_000.0


class Clock:
    """Virtual time, which outlives loops as real time outlives processes."""

    def __init__(self) -> None:
        self.elapsed_seconds = 0.0

    def now(self) -> int:
        """Microseconds since the epoch, as a store tells the time."""
        return round((EPOCH_SECONDS + self.elapsed_seconds) * 1e6)


class Stuck(Exception):
    """Nothing is ready and no timer is set: whatever is awaited will never come."""


class Crash(KeyboardInterrupt):
    """The process dies here. (Loops and tasks let only this kind of exception through.)"""


class _NoFiles:
    """A selector over nothing: waiting only moves the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.dead = False

    def select(self, timeout: float | None) -> list[Any]:
        if self.dead:
            # Something caught the crash, which no code can in earnest.
            raise Crash
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._clock.elapsed_seconds += timeout
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, without files and without threads."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.set_task_factory(self._new_task)
        self._selector = _NoFiles(clock)
        self.set_exception_handler(self._report)
        self.errors: list[str] = []

    def _new_task(self, _loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        # Asking asyncio for all tasks of a loop looks at those of every loop there ever was.
        task = asyncio.Task(work, loop=self, **options)
        self.tasks.add(task)
        return task

    def _report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # Whoever waited for a node that stopped may be gone himself.
        if error is not None and not isinstance(error, StoreError):
            self.errors.append(f"{context.get('message')}: {error!r}")

    def die(self) -> None:
        """Run no further round."""
        self._selector.dead = True

    def time(self) -> float:
        return self._clock.elapsed_seconds

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Threads would bring real time in: run it here."""
        future: asyncio.Future[Any] = self.create_future()
        done: Future[Any] = Future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        asyncio.futures._chain_future(done, future)  # type: ignore[attr-defined]
        return future


def abandon(loop: VirtualLoop) -> None:
    """Forget a loop as a dead process is forgotten.

    Python closes coroutines that nobody holds, and then their `finally` blocks run: have that done here and now,
    where the caller has seen to it that it changes nothing.
    """
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)
    try:
        for task in list(loop.tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(task.get_coro())
    finally:
        asyncio._set_running_loop(outer)
    # Closing properly would wait for what never ends.
    loop._closed = True  # type: ignore[attr-defined]


def _close(coroutine: Any) -> None:
    for _ in range(10):
        try:
            coroutine.close()
        except BaseException:
            # It awaits something in a `finally`, or fails there; once more, until it is through.
            continue
        return
