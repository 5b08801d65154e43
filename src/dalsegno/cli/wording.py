"""Times, lengths of time and values in few characters."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

_STEPS = (("d", 86_400.0), ("h", 3_600.0), ("m", 60.0))


def length(seconds: float) -> str:
    """A length of time.

    >>> length(0.0042), length(12.34), length(5_400), length(200_000)
    ('4.2 ms', '12.3 s', '1 h 30 m', '2 d 7 h')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3_600:
        return f"{int(seconds // 60)} m {int(seconds % 60)} s"
    (big, size), (small, part) = _STEPS[:2] if seconds >= _STEPS[0][1] else _STEPS[1:]
    return f"{int(seconds // size)} {big} {int(seconds % size // part)} {small}"


def clock(at: datetime) -> str:
    """A moment in local time."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def brief(data: Any, limit: int | None = 100) -> str:
    """JSON on one line, cut where it is long."""
    text = bytes(data).decode() if isinstance(data, msgspec.Raw) else msgspec.json.encode(data).decode()
    return shortened(" ".join(text.split()), limit)


def shortened(text: str, limit: int | None) -> str:
    """A text cut where it is long."""
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
