"""Named points of the write path, where a test may stop the world.

Nothing happens at a point unless a test armed one: the reliability lanes kill the process there.
"""

from __future__ import annotations

from collections.abc import Callable

armed: Callable[[str], None] | None = None

#: every point that exists; a lane that never reaches one of them fails
POINTS = (
    "start.before",
    "start.committed",
    "advance.before",
    "advance.appended",
    "dispatch.before",
    "dispatch.after",
    "effect.before",
    "effect.after",
    "result.before",
    "result.appended",
    "attempt_failed.appended",
    "undo.before",
    "undo.after",
    "timer.before",
    "timer.appended",
    "event.before",
    "event.appended",
    "message.before",
    "message.appended",
    "wake.before",
    "wake.loaded",
    "evict.before",
    "end.appended",
    "end.committed",
    "commit.before",
    "commit.fenced",
    "commit.rows",
    "commit.executed",
    "commit.after",
    "transaction.before",
    "transaction.after",
    "lease.acquired",
    "lease.renewed",
    "recover.before",
    "recover.loaded",
    "migrate.before",
    "migrate.after",
)


def reach(name: str) -> None:
    """Pass a named point; does nothing unless a test armed the points."""
    if armed is not None:
        armed(name)
