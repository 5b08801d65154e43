"""Ties the life of a child process to the life of the process that started it."""

from __future__ import annotations

import os
import threading

STDIN = 0


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone."""
    threading.Thread(target=_wait_for_the_parent, name="lifeline", daemon=True).start()


def _wait_for_the_parent() -> None:
    # The parent holds the other end of our standard input and writes nothing: the read returns when it is
    # gone, however it went. `sys.stdin` would take a lock that the interpreter wants when it shuts down.
    os.read(STDIN, 1)
    os._exit(1)
