"""The run-time guard: process code that does I/O fails at the call, before anything has happened.

Python tells an audit hook of every file, socket, thread and program that is about to be opened. A thread whose running
loop is a `DeterministicLoop` is inside a turn of process code, and is refused; all other code is left alone. What
Python itself reads there, such as modules being imported and source lines for a traceback, stays allowed.
"""

from __future__ import annotations

import functools
import sys
import time
from asyncio import events
from collections.abc import Callable
from typing import Any

from dalsegno.errors import ForbiddenInProcess
from dalsegno.kernel.loop import DeterministicLoop

_STEP = "put it into a @step function and await that"
_SLEEP = "use await asyncio.sleep()"
_REMEDIES: dict[str, str] = {
    "time.sleep": _SLEEP,
    "builtins.input": "ask a person with await ask()",
    "_thread.start_new_thread": "put the work into a def @step, which runs in a thread, and await that",
    **dict.fromkeys(
        (
            "open",
            *(f"os.{name}" for name in ("chmod", "chown", "exec", "fork", "forkpty", "kill", "link", "listdir")),
            *(f"os.{name}" for name in ("mkdir", "posix_spawn", "putenv", "remove", "rename", "rmdir", "scandir")),
            *(f"os.{name}" for name in ("spawn", "symlink", "system", "truncate", "unsetenv", "utime")),
            *(f"socket.{name}" for name in ("__new__", "bind", "connect", "getaddrinfo", "gethostbyaddr")),
            *(f"socket.{name}" for name in ("gethostbyname", "gethostname", "getnameinfo", "sendmsg", "sendto")),
            "subprocess.Popen",
            "pty.spawn",
            "sqlite3.connect",
            "http.client.connect",
            "urllib.Request",
            "smtplib.connect",
            "ftplib.connect",
            "imaplib.open",
            "mmap.__new__",
            "tempfile.mkstemp",
            "tempfile.mkdtemp",
        ),
        _STEP,
    ),
}
#: time zones are read by C code, which leaves no frame to know it by
_DATA = ("/zoneinfo/", "/tzdata/")
#: Python's own readers, and logging, whose handlers write where the user told them to
_READERS = frozenset(
    {"_frozen_importlib", "_frozen_importlib_external", "importlib", "linecache", "logging", "tokenize", "traceback",
     "warnings", "zipimport", "zoneinfo"}
)  # fmt: skip
_LOOP = DeterministicLoop.__module__
_installed = False


def install() -> None:
    """Watch from now on, in this interpreter; done once, an audit hook can't be taken out again."""
    global _installed
    if _installed:
        return
    _installed = True
    sys.addaudithook(_hook)
    if sys.version_info < (3, 13):
        # From 3.13 on Python itself tells of it.
        time.sleep = _watched_sleep(time.sleep)  # type: ignore[assignment]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    remedy = _REMEDIES.get(event)
    if remedy is not None and type(loop := events._get_running_loop()) is DeterministicLoop:
        _refuse(loop, event, arguments, remedy)


def _refuse(loop: DeterministicLoop, event: str, arguments: tuple[Any, ...], remedy: str) -> None:
    if event == "open" and any(folder in str(arguments[0]) for folder in _DATA):
        return
    frame = sys._getframe(2)
    # As far down as the loop: what is below it started the node and has no part in this.
    while frame is not None and frame.f_globals.get("__name__") != _LOOP:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _READERS:
            return
        frame = frame.f_back  # type: ignore[assignment]
    named = arguments and isinstance(arguments[0], str | bytes | int | float)
    what = f"{event} of {arguments[0]!r}" if named else event
    raise ForbiddenInProcess(
        f"{loop.owner}: {what} is not for process code, which is replayed after a crash: {remedy}."
    )


def _watched_sleep(sleep: Callable[[float], None]) -> Callable[[float], None]:
    @functools.wraps(sleep)
    def watched(seconds: float, /) -> None:
        if type(loop := events._get_running_loop()) is DeterministicLoop:
            _refuse(loop, "time.sleep", (seconds,), _SLEEP)
        sleep(seconds)

    return watched
