"""An asyncio event loop on virtual time: no sockets, no threads, no waiting.

Where another loop would ask the operating system to wake it, this one looks at its next timer. What would
reach out of the program is refused, with the remedy.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any

from dalsegno.errors import UsageError
from dalsegno.testing.clock import Clock

_PASSES_WITHOUT_TIME = 1_000_000


class _Handle:
    """A callback that is ready, or will be when its time comes."""

    __slots__ = ("_cancelled", "_when", "args", "callback", "context")

    def __init__(self, callback: Any, args: tuple[Any, ...], context: Any, when: float = 0.0) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.AbstractEventLoop):
    """A loop whose time is a `Clock`. `unhandled` keeps what nobody caught."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.unhandled: list[BaseException] = []
        #: what ended it: code that catches everything on its way runs no further than to its next wait
        self.died: BaseException | None = None
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[int, int, _Handle]] = []
        self._timer_count = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_bound = 64
        self._running = False

    # -- driving it --------------------------------------------------------------------------------

    def settle(self) -> None:
        """Run what is ready, and what becomes ready by that, until nothing is; time stands still."""
        if events._get_running_loop() is not None:
            raise UsageError("a lab is for plain tests: call it from a def function, not from async code")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        events._set_running_loop(self)
        self._running = True
        try:
            for _ in range(_PASSES_WITHOUT_TIME):
                if not self._pass():
                    return
        finally:
            self._running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        raise UsageError(
            "a step or process goes round without ever waiting for anything: in virtual time that never ends. Wait "
            "with asyncio.sleep(seconds) in it."
        )

    def _pass(self) -> bool:
        """Run what is ready now; false where nothing is ready after it."""
        ready, timers, elapsed = self._ready, self._timers, self.clock.elapsed
        while timers and timers[0][0] <= elapsed:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.unhandled.append(error)
            if self.died is not None:
                raise self.died
        return bool(ready or (timers and timers[0][0] <= elapsed))

    def jump(self, until: int) -> bool:
        """Move time to the next timer, if it is due by then (microseconds on the clock)."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers or timers[0][0] > until:
            return False
        self.clock.elapsed = max(self.clock.elapsed, timers[0][0])
        return True

    def abandon(self) -> None:
        """Let go of everything that is still open, as the end of a process does: nothing of it goes on."""
        for task in self._tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                task.get_coro().close()
            except Exception:
                # Code that tries to go on in a `finally` is refused; there is nobody left to tell.
                pass
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()

    # -- what asyncio asks of it -------------------------------------------------------------------

    def time(self) -> float:
        return self.clock.elapsed / 1e6

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, context or contextvars.copy_context())
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self.clock.elapsed / 1e6 + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, context or contextvars.copy_context(), when)
        self._timer_count += 1
        heapq.heappush(self._timers, (round(when * 1e6), self._timer_count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "lab task", context=context)
        tasks = self._tasks
        tasks.append(task)
        if len(tasks) > self._tasks_bound:
            self._tasks = [task for task in tasks if not task.done()]
            self._tasks_bound = max(64, 2 * len(self._tasks))
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run the function in the next turn: a thread would make the order of things a matter of luck."""
        future = self.create_future()
        self.call_soon(_fulfil, future, func, args)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(error if error is not None else RuntimeError(str(context.get("message"))))

    default_exception_handler = call_exception_handler

    def get_exception_handler(self) -> None:
        return None

    def _close_generator(self, generator: Any) -> None:
        self.call_soon(self.create_task, generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        return None


def outside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function as if from a thread, where no loop runs."""
    loop = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return function(*args, **kwargs)
    finally:
        events._set_running_loop(loop)


def _fulfil(future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = outside(function, *args)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _refused(name: str) -> Callable[..., Any]:
    def refuse(self: VirtualLoop, *args: Any, **kwargs: Any) -> Any:
        raise UsageError(
            f"loop.{name}(): a step reaches for the network or another process, which a lab has not. Give it a double: "
            "lab.double(the_step).returns(value), or .calls(function)."
        )

    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in VirtualLoop.__dict__:
        setattr(VirtualLoop, _name, _refused(_name))
# The abstract methods are all there now; Python looked at them when the class was made.
VirtualLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
