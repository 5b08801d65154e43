"""Finding clocks, randomness and I/O in process code by name, when it is declared."""

from __future__ import annotations

import dis
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

from dalsegno.errors import DefinitionError

_NOW = "use now()"
_RANDOM = "use random() or uuid()"
_STEP = "put it into a @step"
_FORBIDDEN: dict[str, str] = {
    "time.time": _NOW,
    "time.time_ns": _NOW,
    "time.monotonic": _NOW,
    "time.monotonic_ns": _NOW,
    "time.perf_counter": _NOW,
    "time.perf_counter_ns": _NOW,
    "time.sleep": "use await asyncio.sleep()",
    "datetime.datetime.now": _NOW,
    "datetime.datetime.utcnow": _NOW,
    "datetime.datetime.today": _NOW,
    "datetime.date.today": _NOW,
    "uuid.uuid1": "use uuid()",
    "uuid.uuid4": "use uuid()",
    "os.urandom": _RANDOM,
    "os.getenv": _STEP,
    "os.environ": _STEP,
    "os.getpid": _STEP,
    "os.system": _STEP,
    "os.popen": _STEP,
    "os.listdir": _STEP,
    "os.scandir": _STEP,
    "os.walk": _STEP,
    "os.stat": _STEP,
    "os.remove": _STEP,
    "os.unlink": _STEP,
    "os.rename": _STEP,
    "os.replace": _STEP,
    "os.mkdir": _STEP,
    "os.makedirs": _STEP,
    "os.path.exists": _STEP,
    "os.path.isfile": _STEP,
    "os.path.isdir": _STEP,
    "os.path.getsize": _STEP,
    "os.path.getmtime": _STEP,
    "builtins.open": _STEP,
    "builtins.input": "use ask()",
    "io.open": _STEP,
    "asyncio.to_thread": _STEP,
    "asyncio.open_connection": _STEP,
    "asyncio.create_subprocess_exec": _STEP,
    "asyncio.create_subprocess_shell": _STEP,
    # Of the modules below whose functions are refused, these classes are too; exceptions and types are not.
    "socket.socket": _STEP,
    "subprocess.Popen": _STEP,
    "threading.Thread": _STEP,
    "threading.Timer": _STEP,
    "random.SystemRandom": _RANDOM,
    "requests.Session": _STEP,
    "httpx.Client": _STEP,
    "httpx.AsyncClient": _STEP,
    "httpx2.Client": _STEP,
    "httpx2.AsyncClient": _STEP,
    "aiohttp.ClientSession": _STEP,
    "concurrent.futures.ThreadPoolExecutor": _STEP,
    "concurrent.futures.ProcessPoolExecutor": _STEP,
}
_FORBIDDEN_MODULES: dict[str, str] = {
    "random": _RANDOM,
    "secrets": _RANDOM,
    "socket": _STEP,
    "subprocess": _STEP,
    "threading": _STEP,
    "requests": _STEP,
    "httpx": _STEP,
    "httpx2": _STEP,
    "aiohttp": _STEP,
    "urllib.request": _STEP,
    "sqlite3": _STEP,
}
#: where things say they come from, and the name people know them by
_KNOWN_AS = (
    ("posixpath.", "os.path."),
    ("ntpath.", "os.path."),
    ("genericpath.", "os.path."),
    ("posix.", "os."),
    ("nt.", "os."),
    ("_io.", "io."),
    ("_sqlite3.", "sqlite3."),
    ("asyncio.threads.", "asyncio."),
    ("asyncio.streams.", "asyncio."),
    ("asyncio.subprocess.", "asyncio."),
    ("concurrent.futures.thread.", "concurrent.futures."),
    ("concurrent.futures.process.", "concurrent.futures."),
    ("requests.sessions.", "requests."),
    ("httpx._client.", "httpx."),
    ("httpx2._client.", "httpx2."),
    ("aiohttp.client.", "aiohttp."),
)


def check_determinism(function: Callable[..., Any]) -> None:
    """Raise `DefinitionError` where process code uses the clock, randomness or I/O by name."""
    for name, line, remedy in findings(function):
        raise DefinitionError(
            f"process {function.__name__!r}, line {line}: {name} gives another answer when the process is replayed "
            f"after a crash: {remedy}. (@process(lint=False) switches this check off.)"
        )


def findings(function: Callable[..., Any]) -> Iterator[tuple[str, int, str]]:
    """What a function uses that isn't deterministic: the name, the line, the remedy."""
    scope = {**vars(__import__("builtins")), **getattr(function, "__globals__", {})}
    for code in _codes(function.__code__):
        yield from _findings_in(code, scope)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _findings_in(code: types.CodeType, scope: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    line = code.co_firstlineno
    value: Any = None
    for instruction in dis.get_instructions(code):
        # Python 3.13 made `starts_line` a flag and put the number into `line_number`.
        number = getattr(instruction, "line_number", None) or instruction.starts_line
        line = number if isinstance(number, int) and not isinstance(number, bool) else line
        name = instruction.argval
        if instruction.opname == "LOAD_GLOBAL":
            value = scope.get(name)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and value is not None and isinstance(name, str):
            value = getattr(value, name, None) if isinstance(value, (types.ModuleType, type)) else None
        else:
            value = None
        if value is not None and (found := _forbidden(value)) is not None:
            yield found[0], line, found[1]


def _forbidden(value: Any) -> tuple[str, str] | None:
    if isinstance(value, types.ModuleType):
        return None
    name = "os.environ" if value is os.environ else _name(value)
    if name in _FORBIDDEN:
        return name, _FORBIDDEN[name]
    if not isinstance(value, type):
        for module, remedy in _FORBIDDEN_MODULES.items():
            if name.startswith(module + "."):
                return name, remedy
    return None


def _name(value: Any) -> str:
    """The dotted name of a function or class, as people know it."""
    owner = getattr(value, "__self__", None)
    module = getattr(value, "__module__", None) or ""
    path = getattr(value, "__qualname__", "") or ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    elif isinstance(owner, type):
        module, path = owner.__module__, f"{owner.__qualname__}.{getattr(value, '__name__', '')}"
    elif module == "random" or type(owner).__module__ == "random":
        module, path = "random", getattr(value, "__name__", "")
    name = f"{module}.{path}"
    for said, known in _KNOWN_AS:
        if name.startswith(said):
            return known + name.removeprefix(said)
    return name
