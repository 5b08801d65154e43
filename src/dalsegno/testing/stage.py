"""The stage that steps play on in a lab: their doubles, and a witness of every attempt."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast

from dalsegno.authoring.step import Step
from dalsegno.engine.jobs import Job
from dalsegno.errors import UsageError
from dalsegno.kernel.context import current_step
from dalsegno.kernel.definition import StepSpec
from dalsegno.testing.clock import Clock
from dalsegno.testing.doubles import Double
from dalsegno.testing.loop import outside

Target = "Step[..., Any] | Callable[..., Any] | str"


@dataclass(slots=True)
class Call:
    """One attempt of a step, as the world saw it: it outlives the node that made it.

    `step` is the step's name, `operation` its name in the journal ("charge#2"), `key` its idempotency key. `outcome`
    stays "running" where the node died in the middle of it.
    """

    step: str
    operation: str
    key: str
    attempt: int
    instance: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: datetime
    outcome: Literal["running", "returned", "raised"] = "running"
    result: Any = None
    error: BaseException | None = None
    function: Any = field(default=None, repr=False)


class Stage:
    """Doubles and witness of one lab."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._doubles: dict[Any, Double] = {}
        self._wrapped: dict[StepSpec, StepSpec] = {}
        self._originals: dict[StepSpec, StepSpec] = {}
        self._calls: list[Call] = []

    def double(self, target: Any) -> Double:
        """A new double of a step, an undo function, or a step of that name."""
        identity = _identity(target)
        name = target if isinstance(target, str) else target.__name__
        # What hides behind a name is not known here: its double may be either.
        is_async = isinstance(target, str) or inspect.iscoroutinefunction(identity)
        undo = _undo_of(target)
        return Double(
            self._clock, name, is_async, self._placing(identity), None if undo is None else lambda: self.double(undo)
        )

    def _placing(self, identity: Any) -> Callable[[Double], None]:
        def place(double: Double) -> None:
            self._doubles[identity] = double

        return place

    def calls(self, target: Any = None) -> list[Call]:
        """Attempts in the order in which they began, of one step or of all."""
        if target is None:
            return list(self._calls)
        identity = _identity(target)
        return [call for call in self._calls if identity in (call.function, call.step)]

    def fresh(self, clock: Clock) -> Stage:
        """The same doubles before their first use, with a witness who saw nothing yet."""
        stage = Stage(clock)
        for identity, double in self._doubles.items():
            double.fresh(clock, stage._placing(identity))
        return stage

    # -- what the node runs ------------------------------------------------------------------------

    def delay_seconds(self, spec: StepSpec) -> float:
        """How long a `def` step takes."""
        double = self._double_of(self._originals.get(spec, spec))
        return 0.0 if double is None else double.delay_seconds

    def _double_of(self, spec: StepSpec) -> Double | None:
        found = self._doubles.get(spec.function)
        return found if found is not None else self._doubles.get(spec.name)

    def wrapped(self, spec: StepSpec) -> StepSpec:
        """A step whose attempts are witnessed and doubled; in everything else the same."""
        found = self._wrapped.get(spec)
        if found is None:
            play = self._play_async(spec) if spec.executor == "async" else self._play(spec)
            found = replace(spec, function=play, _decode=spec.decode)
            self._wrapped[spec] = self._wrapped[found] = found
            self._originals[found] = spec
        return found

    def _play_async(self, spec: StepSpec) -> Callable[..., Any]:
        @functools.wraps(spec.function)
        async def play(*args: Any, **kwargs: Any) -> Any:
            call = self._begin(spec, args, kwargs)
            try:
                double = self._double_of(spec)
                if double is not None and double.delay_seconds:
                    await asyncio.sleep(double.delay_seconds)
                work = spec.function(*args, **kwargs) if double is None else double.perform(spec.function, args, kwargs)
                return _returned(call, await work if inspect.isawaitable(work) else work)
            except (Exception, asyncio.CancelledError) as error:
                call.outcome, call.error = "raised", error
                raise

        return play

    def _play(self, spec: StepSpec) -> Callable[..., Any]:
        is_transaction = spec.executor == "transaction"

        @functools.wraps(spec.function)
        def play(*args: Any, **kwargs: Any) -> Any:
            call = self._begin(spec, args[1:] if is_transaction else args, kwargs)
            try:
                double = self._double_of(spec)
                if double is None:
                    return _returned(call, outside(spec.function, *args, **kwargs))
                _refuse_delay(spec, double)
                return _returned(call, outside(double.perform, spec.function, args, kwargs))
            except Exception as error:
                call.outcome, call.error = "raised", error
                raise

        return play

    def _begin(self, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        job = cast("Job", current_step.get())
        call = Call(
            step=spec.name,
            operation=job.call.key,
            key=job.key,
            attempt=job.attempt,
            instance=job.resident.id,
            args=args,
            kwargs=kwargs,
            at=self._clock.date,
            function=spec.function,
        )
        self._calls.append(call)
        return call


def _returned(call: Call, value: Any) -> Any:
    call.outcome, call.result = "returned", value
    return value


def _refuse_delay(spec: StepSpec, double: Double) -> None:
    if double.delay_seconds and spec.executor in ("inline", "transaction"):
        raise UsageError(
            f"step {spec.name!r} runs {'in line' if spec.executor == 'inline' else 'within a commit'}, where nothing "
            "may take long: its double can't have delays()"
        )


def _undo_of(target: Any) -> Any:
    if isinstance(target, str):
        return None if target.startswith("undo:") else f"undo:{target}"
    undo = target.spec.undo if isinstance(target, Step) else None
    return None if undo is None else undo.function


def _identity(target: Any) -> Any:
    if isinstance(target, Step):
        return target.spec.function
    if isinstance(target, str) or callable(target):
        return target
    raise UsageError(f"{target!r} isn't a step: give a @step, an undo function, or the name of a step")
