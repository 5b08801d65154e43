"""An asyncio event loop on virtual time: no sockets, no threads, no waiting.

It is asyncio's own `BaseEventLoop` with another way of passing the time: where that one would ask the
operating system to wake it, this one looks at its next timer.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dalsegno.errors import UsageError
from dalsegno.testing.clock import Clock

_PASSES_WITHOUT_TIME = 1_000_000


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time is a `Clock`. `unhandled` keeps what nobody caught."""

    _ready: Any
    _scheduled: list[Any]

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.unhandled: list[BaseException] = []
        self._clock_resolution = 1e-6
        self._tasks: set[asyncio.Task[Any]] = set()

    def time(self) -> float:
        return self.clock.elapsed / 1e6

    # -- driving it --------------------------------------------------------------------------------

    def settle(self, done: Callable[[], bool] | None = None) -> None:
        """Run what is ready, and what becomes ready by that, until nothing is or `done`; time stands still."""
        passes = 0
        with self._entered():
            while self._pass():
                passes += 1
                if done is not None and done():
                    return
                if passes > _PASSES_WITHOUT_TIME:
                    raise UsageError(
                        "a step or process goes round without ever waiting for anything: in virtual time that never "
                        "ends. Wait with asyncio.sleep(seconds) in it."
                    )

    def jump(self, until: int) -> bool:
        """Move time to the next timer, if it is due by then (microseconds on the clock)."""
        when = self._next_timer()
        if when is None or when > until:
            return False
        self.clock.elapsed = max(self.clock.elapsed, when)
        return True

    def _next_timer(self) -> int | None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return round(scheduled[0]._when * 1e6) if scheduled else None

    def _pass(self) -> bool:
        """Run what is ready now; false where nothing is."""
        ready = self._ready
        end = self.time() + self._clock_resolution
        while self._scheduled and self._scheduled[0]._when < end:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        return bool(ready)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if events._get_running_loop() is not None:
            raise UsageError("a lab is for plain tests: call it from a def function, not from async code")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    # -- what asyncio asks of it -------------------------------------------------------------------

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(error if error is not None else RuntimeError(str(context.get("message"))))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Run the function here and now: a thread would make the order of things a matter of luck."""
        future: asyncio.Future[Any] = self.create_future()
        self.call_soon(_fulfil, future, func, args)
        return future

    def _write_to_self(self) -> None:
        # There is no wait from which it would have to be woken.
        pass

    def abandon(self) -> None:
        """Let go of everything that is still open, as the end of a process does: nothing of it goes on."""
        for task in list(self._tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                task.get_coro().close()
            except Exception:
                # Code that tries to go on in a `finally` is refused; there is nobody left to tell.
                pass
        self._ready.clear()
        self._scheduled.clear()
        self.close()


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


for _name in (
    "add_reader", "add_writer", "add_signal_handler", "connect_read_pipe", "connect_write_pipe",
    "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server",
    "sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_sendall",
    "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(VirtualLoop, _name, _refused(_name))
