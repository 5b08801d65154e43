"""The interpreter, tuned while a node runs.

The garbage collector: a node allocates a few hundred small objects an instance and frees them by reference count;
a look every 700 allocations costs a fifth of the throughput and finds nothing (docs/decisions/0004).

The switch interval: the writer's thread needs the interpreter for a moment between two statements, and would wait 5 ms
for it each time while the loop is busy (docs/decisions/0002).
"""

from __future__ import annotations

import gc
import sys

_ALLOCATIONS = 50_000
_SWITCH_SECONDS = 0.0005
_tuned = 0
_thresholds = (700, 10, 10)
_switch_seconds = 0.005


def tune() -> None:
    """Look for garbage less often and switch threads sooner, until as many `restore` as `tune` were called."""
    global _tuned, _thresholds, _switch_seconds
    if _tuned == 0:
        _thresholds, _switch_seconds = gc.get_threshold(), sys.getswitchinterval()
        gc.set_threshold(max(_thresholds[0], _ALLOCATIONS), 20, 50)
        sys.setswitchinterval(min(_switch_seconds, _SWITCH_SECONDS))
    _tuned += 1


def restore() -> None:
    """Put everything back as it was."""
    global _tuned
    _tuned -= 1
    if _tuned == 0:
        gc.set_threshold(*_thresholds)
        sys.setswitchinterval(_switch_seconds)
