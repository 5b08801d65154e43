"""What a running step may know about itself."""

from __future__ import annotations

import contextvars
from typing import Any, Protocol


class StepContext(Protocol):
    """One attempt of a step."""

    @property
    def key(self) -> str:
        """The idempotency key."""

    def heartbeat(self, details: Any) -> Any:
        """Record details to resume from; returns what was recorded before."""


current_step: contextvars.ContextVar[StepContext | None] = contextvars.ContextVar("dalsegno_step", default=None)
