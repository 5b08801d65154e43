"""Finding clocks, randomness and I/O in process code by name, when it is declared."""

from __future__ import annotations

import dis
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
    "builtins.open": _STEP,
    "builtins.input": "use ask()",
    "io.open": _STEP,
    "asyncio.to_thread": _STEP,
    "asyncio.open_connection": _STEP,
    "asyncio.create_subprocess_exec": _STEP,
    "asyncio.create_subprocess_shell": _STEP,
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
    owner = getattr(value, "__self__", None)
    module = getattr(value, "__module__", None) or ""
    path = getattr(value, "__qualname__", "") or ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    elif isinstance(owner, type):
        module, path = owner.__module__, f"{owner.__qualname__}.{getattr(value, '__name__', '')}"
    elif module == "random" or type(owner).__module__ == "random":
        module, path = "random", getattr(value, "__name__", "")
    name = f"{module}.{path}".replace("_io.", "io.").replace("asyncio.threads.", "asyncio.")
    name = name.replace("asyncio.streams.", "asyncio.").replace("asyncio.subprocess.", "asyncio.")
    if name == "os._Environ":
        name = "os.environ"
    if name in _FORBIDDEN:
        return name, _FORBIDDEN[name]
    for forbidden, remedy in _FORBIDDEN_MODULES.items():
        if (module == forbidden or module.startswith(forbidden + ".")) and not isinstance(value, type):
            return name, remedy
    return None
