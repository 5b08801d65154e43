"""How an instance ended, as `run` and `result` print it."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

from dalsegno.cli import screen
from dalsegno.cli.standing import failure_lines, headline, last_end
from dalsegno.contracts import codec
from dalsegno.instance import Run
from dalsegno.kernel.ports import FINAL


class Outcome(msgspec.Struct, kw_only=True):
    """The end of an instance."""

    id: str
    namespace: str
    process: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None


async def print_outcome(run: Run[Any], timeout_seconds: float | None, as_json: bool) -> int:
    """Wait for the end and print it; 0 where the instance completed. Raises `TimeoutError`, `NotFound`."""
    await _ended(run, timeout_seconds)
    instance = await run.describe()
    journal = await run.history()
    ended = last_end(journal)
    assert ended is not None
    outcome = Outcome(id=run.id, namespace=run.namespace, process=instance.process, status=instance.status)
    if ended.outcome == "completed":
        outcome.result = codec.decode(ended.result or codec.NULL)
    if ended.error is not None:
        outcome.error = {"type": ended.error.type.rpartition(":")[2], "message": ended.error.message}
    if as_json:
        screen.emit(outcome)
    elif ended.outcome == "completed":
        screen.emit_pretty(outcome.result)
    else:
        errors = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        for line in [headline(instance), *failure_lines(journal)]:
            errors.print(line, soft_wrap=True)
        screen.note(f"its history: dalsegno show {run.id}")
    return 0 if ended.outcome == "completed" else 1


async def _ended(run: Run[Any], timeout_seconds: float | None) -> None:
    try:
        await run.result(timeout_seconds)
    except TimeoutError:
        # The process may have ended with one of its own; then the status says so.
        if await run.status() not in FINAL:
            raise TimeoutError(f"instance {run.id!r} has not ended within {timeout_seconds} s") from None
    except Exception:
        # What the process raised is told from the journal, with its traceback.
        if await run.status() not in FINAL:
            raise
