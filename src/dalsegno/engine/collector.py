"""The garbage collector, calmed while a node runs.

A node allocates a few hundred small objects an instance and frees them by reference count; the collector's default
of a look every 700 allocations costs a fifth of the throughput and finds nothing (docs/decisions/0004).
"""

from __future__ import annotations

import gc

_ALLOCATIONS = 50_000
_calmed = 0
_before = (700, 10, 10)


def calm() -> None:
    """Look less often, until as many `wake` as `calm` were called."""
    global _calmed, _before
    if _calmed == 0:
        _before = gc.get_threshold()
        gc.set_threshold(max(_before[0], _ALLOCATIONS), 20, 50)
    _calmed += 1


def wake() -> None:
    """Look as often as before."""
    global _calmed
    _calmed -= 1
    if _calmed == 0:
        gc.set_threshold(*_before)
