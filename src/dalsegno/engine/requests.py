"""What an operation on an instance is asked with, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.errors import DalsegnoError
from dalsegno.kernel.fault import Fault, capture, restore


class Request(msgspec.Struct, omit_defaults=True):
    """What an operation needs besides its verb and instance."""

    by: str | None = None
    reason: str | None = None
    event_type: str | None = None
    event: msgspec.Raw = EMPTY
    update: str | None = None
    task: str | None = None
    answer: msgspec.Raw = EMPTY
    step: str | None = None
    new_id: str | None = None


class Reply(msgspec.Struct, omit_defaults=True):
    """How an operation went."""

    value: msgspec.Raw = EMPTY
    error: Fault | None = None

    def read(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise restore(self.error)
        return codec.decode(self.value) if self.value else None


Done = Callable[[Reply], None]


def refusal(error: DalsegnoError) -> Reply:
    """The reply that says why not."""
    return Reply(error=capture(error))


def value_of(value: Any) -> Reply:
    """The reply that carries a value."""
    return Reply(value=msgspec.Raw(codec.encode(value)))
