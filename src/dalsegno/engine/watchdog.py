"""Stops process code that holds the node's thread: a turn takes microseconds, one that takes seconds will not end.

One thread looks at what the nodes' threads are doing, a few times within the limit. A turn that it meets again and
again is interrupted where it stands; its instance is parked, and the node goes on.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import types

from dalsegno.kernel.loop import DeterministicLoop, Spun

_TURN = DeterministicLoop.run_entered.__code__
_LOOKS = 4
_lock = threading.Lock()
_watched: dict[int, _Watched] = {}
_any = threading.Event()
_thread: threading.Thread | None = None


class _Watched:
    """A thread that runs nodes, and the turn it was last seen in."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self.nodes = 1
        self.turn: types.FrameType | None = None
        self.since = 0.0


def watch(limit_seconds: float) -> int:
    """Watch the calling thread; returns what `unwatch` wants."""
    global _thread
    me = threading.get_ident()
    with _lock:
        known = _watched.get(me)
        if known is None:
            _watched[me] = _Watched(limit_seconds)
        else:
            known.nodes += 1
            known.limit_seconds = min(known.limit_seconds, limit_seconds)
        _any.set()
        if _thread is None:
            _thread = threading.Thread(target=_look_for_ever, name="dalsegno-watchdog", daemon=True)
            _thread.start()
    return me


def unwatch(thread: int) -> None:
    """A node of the thread was closed."""
    with _lock:
        known = _watched.get(thread)
        if known is not None:
            known.nodes -= 1
            if not known.nodes:
                del _watched[thread]
        if not _watched:
            _any.clear()


def _look_for_ever() -> None:
    while True:
        _any.wait()
        with _lock:
            pause = min((w.limit_seconds for w in _watched.values()), default=1.0) / _LOOKS
        time.sleep(min(pause, 1.0))
        with _lock:
            for thread, watched in _watched.items():
                _look(thread, watched)


def _look(thread: int, watched: _Watched) -> None:
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not _TURN:
        frame = frame.f_back
    if frame is None or frame is not watched.turn:
        watched.turn, watched.since = frame, time.monotonic()
    elif time.monotonic() - watched.since > watched.limit_seconds:
        watched.since = time.monotonic()
        loop: DeterministicLoop = frame.f_locals["self"]
        loop.spun_seconds = watched.limit_seconds
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Spun))
