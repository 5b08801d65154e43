"""The worker process of `executor="process"` steps: reads requests, writes replies."""

from __future__ import annotations

import functools
import importlib
import runpy
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.process_steps import Reply, Request
from dalsegno.errors import UsageError
from dalsegno.kernel.context import current_step
from dalsegno.kernel.fault import capture


class _Attempt:
    """What a step in this process can ask of itself."""

    def __init__(self, key: str, details: Any, record: Callable[[Any], None]) -> None:
        self.key = key
        self._details = details
        self._record = record

    def heartbeat(self, details: Any) -> Any:
        """Record details to resume from; returns what was recorded before."""
        before = self._details
        if details is not None:
            self._details = details
        self._record(details)
        return before


def main() -> None:
    """Serve until the pipe closes."""
    output = sys.stdout.buffer
    # What steps print must not get between the replies.
    sys.stdout = sys.stderr
    for line in sys.stdin.buffer:
        _write(output, _serve(msgspec.json.decode(line, type=Request), output))


def _write(output: BinaryIO, reply: Reply) -> None:
    output.write(msgspec.json.encode(reply) + b"\n")
    output.flush()


def _serve(request: Request, output: BinaryIO) -> Reply:
    def beat(details: Any) -> None:
        _write(output, Reply(heartbeat=msgspec.Raw(codec.encode(details))))

    current_step.set(_Attempt(request.key, request.details, beat))
    try:
        function = _function(request)
        raw = codec.decode(request.arguments, list[msgspec.Raw])
        types = codec.parameter_types(function)
        args = [codec.decode(part, types[i] if i < len(types) else Any) for i, part in enumerate(raw[:-1])]
        hints = codec.hints(function)
        named = codec.decode(raw[-1], dict[str, msgspec.Raw])
        kwargs = {name: codec.decode(part, hints.get(name, Any)) for name, part in named.items()}
        return Reply(result=msgspec.Raw(codec.encode(function(*args, **kwargs), f"result of step {request.step!r}")))
    except Exception as error:
        return Reply(error=capture(error))


@functools.cache
def _main(path: str | None) -> Any:
    """The node's script as a module, without running what it does when it is started."""
    return types.SimpleNamespace(**runpy.run_path(path, run_name="__dalsegno_worker__")) if path else None


def _function(request: Request) -> Any:
    found: Any = _main(request.main_file) if request.module == "__main__" else importlib.import_module(request.module)
    for part in request.path.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise UsageError(
            f"step {request.step!r} has executor='process', but {request.module}.{request.path} can't be imported: "
            "declare it at the top of a module"
        )
    return getattr(found, "function", found)


if __name__ == "__main__":
    main()
