"""What a running step may know about itself."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any


class StepContext:
    """One attempt of a step."""

    __slots__ = ("_record", "attempt", "details", "instance", "key")

    def __init__(
        self, key: str, attempt: int, instance: str, details: Any, record: Callable[[Any], None] | None
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.instance = instance
        self.details = details
        self._record = record

    def heartbeat(self, details: Any) -> Any:
        """Record details to resume from; returns what was recorded before."""
        before = self.details
        if details is not None:
            self.details = details
        if self._record is not None:
            self._record(details)
        return before


current_step: contextvars.ContextVar[StepContext | None] = contextvars.ContextVar("dalsegno_step", default=None)
