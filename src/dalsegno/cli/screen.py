"""What is printed, and where: data on standard output, remarks on standard error."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 1_000
STATUS_STYLES = {
    "running": "cyan",
    "waiting": "blue",
    "paused": "yellow",
    "parked": "bold magenta",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "terminated": "red",
}


def console() -> Console:
    """Standard output: as wide as the terminal, or as wide as it takes where it is piped."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_WIDE)


def emit(value: Any) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    # A reader at the other end of a pipe waits for it.
    sys.stdout.flush()


def emit_pretty(value: Any) -> None:
    """Print a value as JSON to be read by people."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def say(text: str | Text) -> None:
    """Print a line."""
    console().print(text, soft_wrap=True)


class _Remarks:
    allowed = True


def allow_remarks(allowed: bool) -> None:
    """Whether standard error carries remarks; beside JSON it carries errors only, so that programs can read them."""
    _Remarks.allowed = allowed


def note(text: str, style: str = "dim") -> None:
    """A remark that isn't part of the data."""
    if not _Remarks.allowed:
        return
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(Text(text, style), soft_wrap=True)


def complain(error: BaseException, as_json: bool) -> None:
    """Say on standard error what went wrong."""
    if as_json:
        sys.stderr.write(msgspec.json.encode({"error": error_data(error)}).decode() + "\n")
        return
    text = Text.assemble((f"{type(error).__name__}: ", "bold red"), str(error))
    Console(stderr=True, highlight=False, emoji=False).print(text, soft_wrap=True)


def error_data(error: BaseException) -> dict[str, str]:
    """An error as it stands in JSON."""
    return {"type": type(error).__name__, "message": str(error)}


def status(text: str) -> Text:
    """A status in its colour."""
    return Text(text, STATUS_STYLES.get(text, ""))


def table(*columns: str) -> Table:
    """A table without lines, so that it can be read by people and cut by programs; the last column gives way."""
    narrow = console().is_terminal
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=narrow)
    for column in columns[:-1]:
        found.add_column(column, no_wrap=True)
    found.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1 if narrow else None)
    return found
