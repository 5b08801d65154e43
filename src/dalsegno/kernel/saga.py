"""Sagas: what was done inside a scope is undone, in reverse order, when the scope fails.

After Garcia-Molina and Salem, "Sagas", SIGMOD 1987.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from dalsegno.errors import Refused

if TYPE_CHECKING:
    from dalsegno.kernel.calls import StepCall
    from dalsegno.kernel.execution import Execution

current_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("dalsegno_saga", default=None)


class Scope:
    """The steps called inside one `saga()` block."""

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        self.calls: list[StepCall] = []
        self.settled: list[StepCall] = []
        self.unwinding = False
        self.succeeded = False

    def hand_to_outer(self) -> None:
        """A scope that succeeded is undone with the scope around it."""
        self.succeeded = True
        if self.outer is not None:
            for call in self.calls:
                call.scope = self.outer
            self.outer.calls.extend(self.calls)
            self.outer.settled.extend(self.settled)

    @property
    def doomed(self) -> bool:
        """Whether this scope, or one around it, is being undone or has been."""
        return self.unwinding or (self.outer is not None and self.outer.doomed)


def open_scope() -> Scope | None:
    """The scope that a step called here belongs to: a task may have outlived the one in which it was made."""
    scope = current_scope.get()
    while scope is not None and scope.succeeded:
        scope = scope.outer
    return scope


async def unwind(execution: Execution, scope: Scope) -> None:
    """Undo what a scope did: wait until each open step's outcome is known, then reverse order."""
    running = [call for call in scope.calls if call.outcome is None]
    for call in running:
        execution.cancel_step(call)
    for call in running:
        await execution.outcome_of(call)
    for call in reversed(scope.settled):
        undo = call.spec.undo
        if undo is None:
            continue
        if call.outcome == "completed" or undo.even_if_unknown:
            await execution.call_undo(call, undo)


async def shielded(execution: Execution, scope: Scope) -> None:
    """Unwind to the end although the process is cancelled meanwhile; the cancellation is raised afterwards."""
    scope.unwinding = True
    work = execution.loop.create_task(unwind(execution, scope), context=contextvars.Context())
    execution.unwinding.append(work)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            if work.cancelled():
                raise
            cancelled = error
    work.result()
    if cancelled is not None:
        raise cancelled


class Saga:
    """The context manager behind `saga()`."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._scope: Scope | None = None
        self._token: Any = None

    async def __aenter__(self) -> None:
        self._scope = Scope(current_scope.get())
        self._token = current_scope.set(self._scope)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        scope = self._scope
        assert scope is not None
        if error is not None and not isinstance(error, (Exception, asyncio.CancelledError)):
            # The instance leaves memory: what was done stays done. The context is no longer the one it entered with.
            return
        current_scope.reset(self._token)
        if error is not None:
            await shielded(self._execution, scope)
        elif scope.outer is not None and (outer := open_scope()) is not None and outer.doomed:
            # The saga around it failed meanwhile and will not come back for this.
            await shielded(self._execution, scope)
            raise Refused(f"{self._execution}: a saga inside one that is being undone is undone too")
        else:
            scope.hand_to_outer()
