"""What can be wrong with a server for tests."""

from __future__ import annotations

from dalsegno.errors import DalsegnoError, UsageError


class ServerMissing(UsageError):
    """A server's program isn't installed; the message names what installs it."""


class ServerFailed(DalsegnoError):
    """A server didn't do what it was told; the message ends with what it logged."""
