"""A run in a lab: its state to look at, what can be done to it, and what a test asserts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dalsegno import archive
from dalsegno.contracts.event import Event
from dalsegno.engine.residents import records
from dalsegno.errors import NotFound
from dalsegno.instance import Instance, Run, instance_of
from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import restore
from dalsegno.kernel.ports import InstanceRow
from dalsegno.testing.journal import Journal, step_name

if TYPE_CHECKING:
    from dalsegno.testing.lab import Lab

T = TypeVar("T")


class LabRun(Generic[T]):
    """A handle to an instance in a lab, without `await`. It outlives crashes."""

    def __init__(self, lab: Lab, id: str, result_type: Any) -> None:
        self._lab = lab
        self._result_type = result_type
        self.id = id

    def __repr__(self) -> str:
        return f"<run {self.id!r}: {self.status}>"

    # -- what it is --------------------------------------------------------------------------------

    def result(self) -> T:
        """The process's result, or its error raised; time jumps until the end.

        Raises `Stuck` where the end can't come: nothing is due any more and nobody publishes or answers.
        """
        found: T = self._lab.wait(lambda: self._handle().result(), f"run {self.id!r} can't end")
        return found

    def _handle(self) -> Run[T]:
        return self._lab.app.get(self.id, self._result_type)

    def _row(self) -> InstanceRow:
        row = self._lab.row(self.id)
        if row is None:
            raise NotFound(f"no instance {self.id!r} in this lab: it has {', '.join(self._lab.ids()) or 'none'}")
        return row

    def describe(self) -> Instance:
        """The instance as it stands."""
        return instance_of(self._row())

    @property
    def status(self) -> str:
        """running, waiting, paused, parked, completed, failed, cancelled or terminated."""
        return self._row().status

    @property
    def waiting_for(self) -> str | None:
        """What it waits for, in words."""
        return self._row().waiting_for

    @property
    def annotations(self) -> dict[str, Any]:
        """What the process says of its state."""
        return self.describe().annotations

    @property
    def error(self) -> BaseException | None:
        """The error that the run ended with."""
        ends = [entry for entry in self.journal.entries if isinstance(entry, e.Ended)]
        fault = ends[-1].error if ends and self._row().ended_at is not None else None
        return None if fault is None else restore(fault)

    @property
    def journal(self) -> Journal:
        """The journal as it is on disk, all runs."""
        return Journal(records(self._lab.stored(self._row().id)), self.id, self._lab.namespace)

    history = journal

    def export(self) -> str:
        """The instance as `dalsegno export` writes it: lines of JSON that `Lab.replay` reads."""
        return "".join(line.decode() + "\n" for line in archive.lines(self.describe(), self.journal))

    # -- what can be done to it --------------------------------------------------------------------

    def cancel(self, reason: str | None = None, by: str | None = None) -> None:
        """Ask it to stop; what it did in sagas is undone."""
        self._lab.wait_once(lambda: self._handle().cancel(reason, by))

    def terminate(self, reason: str | None = None, by: str | None = None) -> None:
        """End it at once, without undo."""
        self._lab.wait_once(lambda: self._handle().terminate(reason, by))

    def pause(self, reason: str | None = None, by: str | None = None) -> None:
        """Begin no further step until `resume`."""
        self._lab.wait_once(lambda: self._handle().pause(reason, by))

    def resume(self, reason: str | None = None, by: str | None = None) -> None:
        """Let a paused or parked run go on."""
        self._lab.wait_once(lambda: self._handle().resume(reason, by))

    def retry(self, reason: str | None = None, by: str | None = None) -> None:
        """Go on from the failure."""
        self._lab.wait_once(lambda: self._handle().retry(reason, by))

    def fork(self, *, step: str | None = None, id: str | None = None, by: str | None = None) -> LabRun[T]:
        """A new run that stands where this one stood before `step` ended."""
        new_id = id or self._lab.next_id(f"{self.id}-fork")
        self._lab.wait_once(lambda: self._handle().fork(step=step, id=new_id, by=by))
        return LabRun(self._lab, new_id, self._result_type)

    def update(self, event: Event, by: str | None = None) -> Any:
        """Send a request that an `@on` handler answers; returns the reply or raises its refusal."""
        return self._lab.update(self.id, event, by)

    def publish(self, event: Event) -> str:
        """Publish an event that only this run gets; returns its id."""
        return self._lab.publish(event, to=self.id)

    # -- what a test asserts -----------------------------------------------------------------------

    def assert_steps(self, *steps: Any) -> None:
        """Exactly these steps completed, in this order (steps or their names); the undone ones count too."""
        self._compare("steps completed", [step_name(step) for step in steps], self.journal.steps)

    def assert_undone(self, *steps: Any) -> None:
        """Exactly these steps were undone, in this order."""
        self._compare("steps undone", [step_name(step) for step in steps], self.journal.undone)

    def assert_status(self, status: str) -> None:
        """The run has this status."""
        self._compare("status", [status], [self.status])

    def _compare(self, what: str, expected: list[str], found: list[str]) -> None:
        if expected == found:
            return
        row = self._row()
        waits = f", waiting for {row.waiting_for}" if row.waiting_for else ""
        error = f", {row.error}" if row.error else ""
        raise AssertionError(
            f"{what} of run {self.id!r}\n  expected: {', '.join(expected) or 'none'}\n  found:    "
            f"{', '.join(found) or 'none'}\nThe run is {row.status}{waits}{error}. Its journal:\n{self.journal}"
        )
