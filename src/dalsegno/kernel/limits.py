"""Every bound of the engine, in one place."""

from __future__ import annotations

import msgspec

from dalsegno.errors import UsageError


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds that an `App` keeps; each is checked before anything is appended.

    >>> Limits(payload_bytes=64_000).payload_bytes
    64000
    """

    #: the largest input, result, event or annotation, as JSON
    payload_bytes: int = 2 * 1024 * 1024
    #: the longest journal of one run; beyond it a process continues as new
    journal_entries: int = 50_000
    #: steps, children and waits that one instance may have open at once
    open_operations: int = 100_000
    #: callbacks one instance may run before it must wait for something: more is taken for a spin
    callbacks_per_turn: int = 5_000_000
    #: how long process code may run before it must wait for something: more is taken for a spin
    turn_seconds: float = 10.0
    #: steps that run at once on a node
    running_steps: int = 1_000
    #: threads for `def` steps on a node
    step_threads: int = 64
    #: worker processes for `executor="process"` steps
    step_processes: int = 2
    #: instances kept in memory; waiting ones beyond it are dropped and replayed on waking
    resident_instances: int = 10_000
    #: instances loaded at once during recovery and waking
    loading_instances: int = 500
    #: timers further away than this stay on disk
    timer_window_seconds: float = 60.0
    #: a step that outlives this is journaled as started
    slow_step_seconds: float = 1.0
    #: restarts that find an instance without progress before it is suspected of causing them and tried apart
    crashes_before_trial: int = 2
    #: how long a suspect that runs apart must not crash the node
    trial_seconds: float = 1.0
    #: crashes without progress, the last ones on trial, before an instance is parked
    crashes_before_parking: int = 5
    #: a node looks this often for messages whose ring it missed
    poll_seconds: float = 1.0
    #: the lease of a node
    lease_seconds: float = 10.0
    #: a node at work shows its figures this often
    figures_seconds: float = 1.0
    #: events are kept this long for instances that wait for them later
    event_retention_seconds: float = 30 * 86400.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            least = _LEAST.get(name, 1 if isinstance(value, int) else _SHORTEST_SECONDS)
            if value < least:
                raise UsageError(f"Limits({name}={value!r}): at least {least}")


_SHORTEST_SECONDS = 0.001
#: the smallest values that make sense, where that isn't one, or a moment
_LEAST = {"journal_entries": 3, "resident_instances": 0, "event_retention_seconds": 0.0}
