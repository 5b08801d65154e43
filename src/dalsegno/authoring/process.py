"""`@process`: plain async functions that survive crashes."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from dalsegno.authoring.declared import declare as declare_process
from dalsegno.authoring.declared import execution, running
from dalsegno.authoring.lint import check_determinism
from dalsegno.contracts import codec
from dalsegno.errors import DefinitionError, UsageError
from dalsegno.kernel.calls import ChildCall
from dalsegno.kernel.definition import ProcessSpec, check_id
from dalsegno.kernel.entries import ParentClose
from dalsegno.kernel.execution import ContinueAsNew, Execution
from dalsegno.kernel.saga import open_scope

P = ParamSpec("P")
T = TypeVar("T")


class Process(Generic[P, T]):
    """A declared process. Started by an `App`; called inside another process it is a child of that."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        functools.update_wrapper(self, spec.function)

    def __repr__(self) -> str:
        return f"<process {self.spec.name} version {self.spec.version}>"

    @property
    def function(self) -> Callable[..., Any]:
        """The plain function."""
        return self.spec.function

    @property
    def name(self) -> str:
        """The name in journals."""
        return self.spec.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, T]:
        # `object`, not `Any`: with an `Any` in it mypy gives up on asyncio.gather's overloads.
        found = running()
        if found is None:
            return cast("Coroutine[object, object, T]", self.spec.function(*args, **kwargs))
        return _await_child(found, self.spec, args, kwargs)


async def _await_child(found: Execution, spec: ProcessSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = found.start_child(spec, args, kwargs, None, "cancel")
    try:
        return await call.future
    except BaseException:
        # Whatever ends the waiting, a cancellation or a time-out, ends the child.
        found.cancel_child(call, "its parent no longer waits for it")
        raise


class Child(Generic[T]):
    """A started child."""

    def __init__(self, owner: Execution, call: ChildCall) -> None:
        self._owner = owner
        self._call = call

    @property
    def id(self) -> str:
        """The child's instance id."""
        return self._call.id

    async def result(self) -> T:
        """The child's result, or its error raised."""
        return cast("T", await asyncio.shield(self._call.future))

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the child to stop and undo."""
        self._owner.cancel_child(self._call, reason)


async def start(
    process: Process[P, T],
    *args: Any,
    id: str | None = None,
    parent_close: ParentClose = "abandon",
    **kwargs: Any,
) -> Child[T]:
    """Start another process from process code and go on at once.

    Parameters: `process` and its arguments; `id` of the child (made from the parent's where none is given);
    `parent_close`, what becomes of the child when the parent ends first: "abandon" leaves it alone, "cancel" and
    "terminate" end it. Raises `OutsideProcess`; outside process code use `App.start`.
    """
    if not isinstance(process, Process):
        raise DefinitionError(f"start() takes a @process, not {process!r}")
    if id is not None:
        check_id(id)
    found = execution("start()")
    return Child(found, found.start_child(process.spec, args, kwargs, id, parent_close))


def continue_as_new(*args: Any, **kwargs: Any) -> Any:
    """End this run and go on under the same id with new arguments and an empty journal.

    Raises `UsageError` inside a saga with steps to undo: the next run could not undo them.
    """
    execution("continue_as_new()")
    scope = open_scope()
    if scope is not None and scope.calls:
        raise UsageError(
            "continue_as_new() inside a saga: what was done in it could not be undone any more. Call it after the saga."
        )
    raise ContinueAsNew(args, kwargs)


@overload
def process(function: Callable[P, Coroutine[Any, Any, T]], /) -> Process[P, T]: ...
@overload
def process(
    *, name: str | None = None, version: int = 1, lint: bool = True
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Process[P, T]]: ...
def process(function: Any = None, /, *, name: str | None = None, version: int = 1, lint: bool = True) -> Any:
    """Declare a process: an `async def` function that is replayed from its journal after a crash.

    Parameters: `name` in journals (the function's name); `version`: instances stay with the version they were
    started with; `lint`, look for clocks, randomness and I/O in the code at declaration. Raises `DefinitionError`.

    >>> from dalsegno import process
    >>> @process(version=2)
    ... async def greet(name: str) -> str:
    ...     return f"hello {name}"
    >>> greet
    <process greet version 2>
    """

    def declare(function: Callable[..., Any]) -> Process[Any, Any]:
        if isinstance(function, Process):
            raise DefinitionError(f"{function!r} is a process already")
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(f"@process decorates an async def function, not {function!r}")
        if not isinstance(version, int) or version < 1:
            raise DefinitionError(f"process {function.__name__!r}: version={version!r} must be a number from 1")
        for parameter, kind in codec.hints(function).items():
            named = "result" if parameter == "return" else f"argument {parameter!r}"
            codec.check_readable(kind, f"the {named} of process {function.__name__!r}")
        if lint:
            check_determinism(function)
        declared = Process[Any, Any](ProcessSpec(name or function.__name__, version, function))
        declare_process(declared)
        return declared

    return declare if function is None else declare(function)
