"""Step doubles: what a step does in a lab instead of reaching for the world."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dalsegno.contracts.duration import Duration, seconds
from dalsegno.errors import UsageError
from dalsegno.testing.clock import Clock, microseconds


class Attempt(NamedTuple):
    """One call of a doubled step. `number` is the act that was chosen for it."""

    double: Double
    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Act(NamedTuple):
    """One thing a double does: so many times, or for so long in microseconds (`None`: without end)."""

    perform: Callable[[Attempt], Any]
    times: int | None = None
    during: int | None = None


class Double:
    """What a step does in a lab. Its acts are used up one after the other, then the step's own code runs.

    It takes the place of an earlier double of the same step with its first act.

    >>> from dalsegno import step
    >>> from dalsegno.testing import Lab
    >>> @step
    ... async def charge(amount: int) -> str: ...
    >>> double = Lab().double(charge).raises(ConnectionError("down"), times=2).returns("paid")
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        is_async: bool,
        take_place: Callable[[Double], None],
        undo: Callable[[], Double] | None = None,
    ) -> None:
        self._clock = clock
        self._name = name
        self._is_async = is_async
        self._take_place = take_place
        self._undo = undo
        self._acts: list[Act] = []
        self._used: list[int] = []
        self._since: list[int] = []
        self.delay_seconds = 0.0

    @property
    def undo(self) -> Double:
        """The double of the step's undo."""
        if self._undo is None:
            raise UsageError(f"step {self._name!r} has no undo to double: declare it with @{self._name}.undo")
        return self._undo()

    def returns(self, value: Any, times: int | None = None) -> Double:
        """Return a value, so many times; from then on where no number is given."""
        return self._then(Act(lambda attempt: value, times))

    def raises(
        self, error: BaseException | type[BaseException], times: int | None = None, during: Duration | None = None
    ) -> Double:
        """Raise an error, so many times, or for so long from now: an outage."""

        def fail(attempt: Attempt) -> Any:
            # The same instance each time would carry the tracebacks of all earlier attempts.
            raise error if isinstance(error, type) else error.with_traceback(None)

        return self._then(Act(fail, times, _span(during)))

    def loses_answer(self, times: int | None = None, during: Duration | None = None) -> Double:
        """Do what comes next in the double, and then time out: the effect took place and nobody knows."""
        return self._then(Act(_lose_answer, times, _span(during)))

    def sequence(self, outcomes: Iterable[Any]) -> Double:
        """One outcome a call, the last one from then on: an exception is raised, anything else returned."""
        found = list(outcomes)
        if not found:
            raise UsageError("sequence() takes at least one outcome")
        for number, outcome in enumerate(found, 1):
            times = 1 if number < len(found) else None
            if isinstance(outcome, BaseException) or (inspect.isclass(outcome) and issubclass(outcome, BaseException)):
                self.raises(outcome, times)
            else:
                self.returns(outcome, times)
        return self

    def calls(self, function: Callable[..., Any], times: int | None = None) -> Double:
        """Run this function instead, with the step's arguments."""
        if inspect.iscoroutinefunction(function) and not self._is_async:
            raise UsageError(f"step {self._name!r} is a def function: its double can't be async")
        return self._then(Act(lambda attempt: function(*attempt.args, **attempt.kwargs), times))

    def delays(self, duration: Duration) -> Double:
        """Take so long before anything else, in virtual time."""
        self.delay_seconds = seconds(duration)
        self._take_place(self)
        return self

    def _then(self, act: Act) -> Double:
        self._acts.append(act)
        self._used.append(0)
        self._since.append(self._clock.elapsed)
        self._take_place(self)
        return self

    def perform(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], first: int = 0
    ) -> Any:
        """Do what is next from an act on; what an async step does is to be awaited."""
        for number in range(first, len(self._acts)):
            act = self._acts[number]
            is_over = act.during is not None and self._clock.elapsed >= self._since[number] + act.during
            if not is_over and (act.times is None or self._used[number] < act.times):
                self._used[number] += 1
                return act.perform(Attempt(self, number, function, args, kwargs))
        return function(*args, **kwargs)

    def fresh(self, clock: Clock, take_place: Callable[[Double], None]) -> None:
        """Make the same double before its first use, for another lab."""
        copy = Double(clock, self._name, self._is_async, take_place)
        copy.delay_seconds = self.delay_seconds
        for act in self._acts:
            copy._then(act)
        take_place(copy)


def _span(during: Duration | None) -> int | None:
    return None if during is None else microseconds(during)


def _lose_answer(attempt: Attempt) -> Any:
    done = attempt.double.perform(attempt.function, attempt.args, attempt.kwargs, attempt.number + 1)
    return _lose_later(done) if inspect.isawaitable(done) else _time_out()


async def _lose_later(work: Any) -> Any:
    await work
    return _time_out()


def _time_out() -> Any:
    raise TimeoutError("the answer was lost: nobody knows whether the step took effect")
