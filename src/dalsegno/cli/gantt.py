"""Spans as bars along one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from rich.text import Text

from dalsegno.cli.wording import length
from dalsegno.history import Span

_BARS = {
    "completed": ("█", "green"),
    "failed": ("█", "bold red"),
    "cancelled": ("█", "yellow"),
    "dropped": ("·", "dim"),
    "running": ("█", "cyan"),
    "waiting": ("░", "blue"),
    "retrying": ("░", "yellow"),
}
_NAMES = 28


def gantt(spans: Sequence[Span], until: datetime, width: int) -> list[Text]:
    """A line for each span: its name, its bar, how long it took, and its attempts if there were several."""
    if not spans:
        return []
    begin = min(span.started_at for span in spans)
    cells = max(10, width - _NAMES - 34)
    axis = _Axis(begin, max((until - begin).total_seconds(), 1e-6), cells)
    return [_line(span, axis, until) for span in spans]


class _Axis:
    """Time to cells."""

    def __init__(self, begin: datetime, seconds: float, cells: int) -> None:
        self.cells = cells
        self._begin = begin
        self._seconds = seconds

    def cell(self, at: datetime) -> int:
        """The cell of a moment."""
        share = (at - self._begin).total_seconds() / self._seconds
        return min(self.cells - 1, max(0, int(share * self.cells)))


def _line(span: Span, axis: _Axis, until: datetime) -> Text:
    ended = span.ended_at or until
    name = span.name if span.count == 1 else f"{span.name} x{span.count}"
    name = name if len(name) <= _NAMES else name[: _NAMES - 1] + "…"
    took = length(max(0.0, (ended - span.started_at).total_seconds()))
    state = "" if span.state == "completed" else span.state
    tries = f"{len(span.attempts)} attempts" if len(span.attempts) > 1 else ""
    tail = ", ".join(part for part in (state, tries) if part)
    return Text.assemble(f"{name:<{_NAMES}} ", _bar(span, axis, ended), f" {took:>10}  ", (tail, _BARS[span.state][1]))


def _bar(span: Span, axis: _Axis, ended: datetime) -> Text:
    char, style = _BARS[span.state]
    if span.sort in ("wait", "ask") and span.state == "completed":
        char = "░"
    several = len(span.attempts) > 1
    cells = [(" ", "")] * axis.cells
    _fill(cells, axis, span.started_at, ended, ("░", "yellow") if several else (char, style))
    for attempt in span.attempts if several else ():
        mark = ("x", "red") if attempt.error is not None else (char, style)
        _fill(cells, axis, attempt.started_at, attempt.ended_at or ended, mark)
    runs = [(char * len(list(same)), style) for (char, style), same in groupby(cells)]
    return Text.assemble("▕", *runs, "▏")


def _fill(cells: list[tuple[str, str]], axis: _Axis, begin: datetime, end: datetime, mark: tuple[str, str]) -> None:
    first, last = axis.cell(begin), axis.cell(end)
    cells[first : last + 1] = [mark] * (last + 1 - first)
