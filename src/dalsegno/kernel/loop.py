"""A deterministic event loop for one instance.

It runs callbacks in the order in which they became ready and knows no time but the journal's. Nothing in
it waits: it is run until idle, and then somebody outside delivers the next completion.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import logging
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from dalsegno.errors import ForbiddenInProcess

_log = logging.getLogger("dalsegno.process")


class Spun(BaseException):
    """Thrown into process code that doesn't come to an end by itself."""


class Handle:
    """A callback that is ready."""

    __slots__ = ("_cancelled", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._cancelled = False

    def cancel(self) -> None:
        """Never run the callback."""
        self._cancelled = True
        self.args = ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled


class Timer(Handle):
    """A callback that is ready when its timer fires."""

    __slots__ = ("number", "when_seconds")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context, when_seconds: float
    ) -> None:
        super().__init__(callback, args, context)
        self.when_seconds = when_seconds
        self.number = 0

    def when(self) -> float:
        """When it is due, in seconds since the epoch."""
        return self.when_seconds


class ProcessTask(asyncio.Task[Any]):
    """A task that hashes by its number, so that sets of tasks iterate alike on every replay."""

    number: int

    def __hash__(self) -> int:
        return self.number


class ProcessFuture(asyncio.Future[Any]):
    """A future that hashes by its number, for the same reason."""

    number: int

    def __hash__(self) -> int:
        return self.number


class DeterministicLoop(asyncio.AbstractEventLoop):
    """The loop that process code runs on. `time()` is the time of the last delivered entry."""

    def __init__(self, owner: Any, callbacks_per_turn: int) -> None:
        self.owner = owner
        self.now_seconds = 0.0
        self._ready: deque[Handle] = deque()
        self.timers: list[tuple[float, int, Timer]] = []
        self._by_timer: dict[int, Timer] = {}
        self._timer_count = 0
        self._number = 0
        self._tasks: list[ProcessTask] = []
        self._live_mark = 64
        self._callbacks_per_turn = callbacks_per_turn
        #: how long a turn had run when it was interrupted
        self.spun_seconds: float | None = None
        # Asking for the running loop is a system call: the loop that this one is driven from stays the same.
        self._outer = events._get_running_loop()

    # -- what asyncio asks of a loop ---------------------------------------------------------------

    def time(self) -> float:
        return self.now_seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self.now_seconds + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        # The context is the caller's, as the standard library has it: a timer may fire in another turn.
        timer = Timer(callback, args, context or contextvars.copy_context(), when)
        if when <= self.now_seconds:
            self._ready.append(timer)
            return timer
        self._timer_count += 1
        timer.number = self._timer_count
        self._by_timer[timer.number] = timer
        heapq.heappush(self.timers, (when, timer.number, timer))
        return timer

    def count_from(self, number: int) -> None:
        """Number tasks and futures from here on.

        asyncio keeps all tasks of all loops in one set: numbers that differ by instance keep it fast.
        """
        self._number = number

    def create_future(self) -> ProcessFuture:
        future = ProcessFuture(loop=self)
        self._number += 1
        future.number = self._number
        return future

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_options: Any,
    ) -> ProcessTask:
        self._number += 1
        task = _new_task(self._number, coro, self, name or "process task", context)
        tasks = self._tasks
        tasks.append(task)
        if len(tasks) > self._live_mark:
            self._tasks = [t for t in tasks if not t.done()]
            self._live_mark = max(64, 2 * len(self._tasks))
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        _log.error(
            "%s: %s",
            self.owner,
            context.get("message", "error in process code"),
            exc_info=context.get("exception"),
        )

    default_exception_handler = call_exception_handler

    def get_exception_handler(self) -> None:
        return None

    async def shutdown_asyncgens(self) -> None:
        return None

    # -- what drives it ----------------------------------------------------------------------------

    def run_until_idle(self) -> None:
        """Run every ready callback, and those that become ready meanwhile.

        Called from a plain callback of the node's loop: CPython forbids entering a task within another.
        """
        self.enter()
        try:
            self.run_entered()
        finally:
            self.leave()

    def enter(self) -> None:
        """Be the running loop."""
        events._set_running_loop(self)

    def leave(self) -> None:
        """Let the loop that this one is driven from be the running one again."""
        events._set_running_loop(self._outer)

    def run_entered(self) -> None:
        """Run until idle, as the running loop."""
        ready = self._ready
        budget = self._callbacks_per_turn
        try:
            while ready:
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                budget -= 1
                if not budget:
                    raise self._spins(f"{self._callbacks_per_turn} callbacks")
                context = handle.context
                if context is None:
                    handle.callback(*handle.args)
                else:
                    context.run(handle.callback, *handle.args)
        except Spun:
            # Raised here or in a task, which keeps it for itself: said below in either case.
            pass
        if self.spun_seconds is not None:
            raise self._spins(f"for {self.spun_seconds:g} s")

    def _spins(self, what: str) -> ForbiddenInProcess:
        return ForbiddenInProcess(
            f"{self.owner}: process code ran {what} without waiting for anything: it spins. Wait with "
            "asyncio.sleep(seconds), an event or a step; work for the processor belongs into a step."
        )

    def next_timer(self) -> tuple[float, int] | None:
        """When the next timer is due (seconds since the epoch) and its number."""
        timers = self.timers
        while timers:
            when, number, handle = timers[0]
            if not handle._cancelled:
                return when, number
            heapq.heappop(timers)
            self._by_timer.pop(number, None)
        return None

    def fire(self, timer: int) -> bool:
        """Make a timer's callback ready; false where no such timer is open."""
        handle = self._by_timer.pop(timer, None)
        if handle is None or handle._cancelled:
            return False
        ready = Handle(handle.callback, handle.args, handle.context)
        handle.cancel()
        self._ready.append(ready)
        return True

    def forget(self) -> None:
        """Let go of everything: the run is over or has left memory."""
        self._ready.clear()
        self.timers.clear()
        self._by_timer.clear()
        self._tasks.clear()
        self.owner = None

    def live_tasks(self) -> list[ProcessTask]:
        """The tasks that aren't done, oldest first."""
        return [task for task in self._tasks if not task.done()]


def _new_task(
    number: int, coro: Coroutine[Any, Any, Any], loop: DeterministicLoop, name: str, context: Any
) -> ProcessTask:
    # asyncio registers a task while it is being made, which hashes it: the number must be there before.
    task = ProcessTask.__new__(ProcessTask)
    task.number = number
    ProcessTask.__init__(task, coro, loop=loop, name=name, context=context)
    return task


_ALLOWED = frozenset(DeterministicLoop.__dict__)


def _forbidden(name: str) -> Callable[..., Any]:
    def refuse(self: DeterministicLoop, *args: Any, **kwargs: Any) -> Any:
        raise ForbiddenInProcess(
            f"{self.owner}: loop.{name}() is not for process code, which is replayed after a crash. "
            "Put the call into a @step function and await that."
        )

    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in _ALLOWED:
        setattr(DeterministicLoop, _name, _forbidden(_name))
# The abstract methods are all there now; Python looked at them when the class was made.
DeterministicLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def _ordered_as_completed(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
        # The standard library puts coroutines into a set, whose order is the order of their addresses.
        if isinstance(events._get_running_loop(), DeterministicLoop):
            fs = [asyncio.ensure_future(f) for f in fs]
        return original(fs, timeout=timeout)

    return as_completed


asyncio.as_completed = asyncio.tasks.as_completed = _ordered_as_completed(asyncio.as_completed)
