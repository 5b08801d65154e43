"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from dalsegno.errors import UsageError

Duration: TypeAlias = "str | int | float | timedelta"

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")


def seconds(duration: Duration) -> float:
    """A duration in seconds: a number, a `timedelta`, or text such as "1h30m".

    >>> seconds("1h30m"), seconds(0.5), seconds("250ms")
    (5400.0, 0.5, 0.25)
    """
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, int | float):
        return float(duration)
    text = duration.strip()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise UsageError(f"{duration!r} isn't a duration: write seconds, a timedelta, or '90s', '1h30m', '3d'")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
