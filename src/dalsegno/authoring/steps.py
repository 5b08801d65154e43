"""Which steps were declared in this Python process, so that a worker finds them by name."""

from __future__ import annotations

from collections.abc import Collection

from dalsegno.errors import DefinitionError
from dalsegno.kernel.definition import StepSpec

_Place = tuple[str, str]
_declared: dict[str, dict[_Place, StepSpec]] = {}


def declare(spec: StepSpec) -> None:
    """Remember a step; the same function declared again under its name replaces it."""
    place = (spec.function.__module__, getattr(spec.function, "__qualname__", spec.name))
    known = _declared.setdefault(spec.name, {})
    former = known.get(place)
    if former is None or former.function is not spec.function or spec.queue is not None:
        # A copy with other options must not hide on which queue the step is.
        known.pop(place, None)
        known[place] = spec


def served(queues: Collection[str]) -> dict[str, StepSpec]:
    """What a worker of these queues can run: every step that has code here, by name.

    A process may put a step on a queue only where it calls it, so steps count that were declared on none.
    Raises `DefinitionError` where two modules declare a step of one name on these queues.
    """
    found = {}
    for name, places in _declared.items():
        here = {place: spec for place, spec in places.items() if spec.queue in queues}
        lasting = _lasting(here or places)
        if here and len(lasting) > 1:
            raise DefinitionError(
                f"step {name!r} is declared {len(lasting)} times on queue {'/'.join(sorted(queues))}: "
                f"{', '.join(sorted(lasting))}. Give one of them another name: @step(name=...)"
            )
        # Of those that functions declare within, tests for the most part, the newest is meant.
        newest = list((here or places).values())[-1]
        if len(lasting) <= 1 and newest.executor not in ("transaction", "inline"):
            found[name] = newest
    return found


def _lasting(places: Collection[_Place]) -> list[str]:
    """Those that stay: what a function declares within is gone with it."""
    return [f"{module}.{path}" for module, path in places if "<locals>" not in path]
