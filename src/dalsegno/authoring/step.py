"""`@step` and `@transaction`: the calls whose outcome is journaled once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

import msgspec

from dalsegno.authoring.declared import running
from dalsegno.authoring.steps import declare as declare_step
from dalsegno.contracts import codec
from dalsegno.contracts.duration import Duration, seconds
from dalsegno.errors import DefinitionError, UsageError
from dalsegno.kernel.definition import Executor, StepSpec
from dalsegno.kernel.retry import Retry, as_retry
from dalsegno.kernel.work import check_queue

P = ParamSpec("P")
T = TypeVar("T")
Undo = TypeVar("Undo", bound=Callable[..., Any])

_UNSET: Any = object()
_DEFAULT_RETRY = Retry()
_MOST_PRIORITY = 1_000_000
_UNDO_RETRY = Retry(attempts=20, then="park")


class Step(Generic[P, T]):
    """A declared step. Inside a process a call is journaled; outside it is the plain function."""

    def __init__(self, spec: StepSpec) -> None:
        self.spec = spec
        functools.update_wrapper(self, spec.function)
        declare_step(spec)

    def __repr__(self) -> str:
        return f"<step {self.spec.name}>"

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
        execution = running()
        if execution is None:
            return cast("Coroutine[object, object, T]", self.spec.function(*args, **kwargs))
        return execution.call_step(self.spec, args, kwargs)

    def using(
        self,
        *,
        retry: Retry | int | None = _UNSET,
        timeout: Duration | None = _UNSET,
        heartbeat_timeout: Duration | None = _UNSET,
        executor: Literal["thread", "process", "inline"] | None = _UNSET,
        queue: str | None = _UNSET,
        priority: int = _UNSET,
        key: Callable[..., Any] | None = _UNSET,
        name: str = _UNSET,
    ) -> Step[P, T]:
        """A copy of the step with other options; what isn't given stays.

        >>> import dalsegno
        >>> @dalsegno.step
        ... async def ping() -> str: return "pong"
        >>> ping.using(timeout="2s", retry=3).spec.timeout_seconds
        2.0
        """
        old = self.spec
        spec = StepSpec(
            name=old.name if name is _UNSET else name,
            function=old.function,
            executor=old.executor if executor is _UNSET else _executor(old.function, executor),
            retry=old.retry if retry is _UNSET else as_retry(retry),
            timeout_seconds=old.timeout_seconds if timeout is _UNSET else _seconds(timeout),
            heartbeat_timeout_seconds=(
                old.heartbeat_timeout_seconds
                if heartbeat_timeout is _UNSET
                else _seconds(heartbeat_timeout, "heartbeat_timeout")
            ),
            undo=old.undo,
            even_if_unknown=old.even_if_unknown,
            database=old.database,
            queue=old.queue if queue is _UNSET else _queue(queue),
            priority=old.priority if priority is _UNSET else priority,
            queue_key=old.queue_key if key is _UNSET else key,
        )
        return Step(_checked(spec))

    @overload
    def undo(self, function: Undo, /) -> Undo: ...

    @overload
    def undo(
        self,
        /,
        *,
        even_if_unknown: bool = False,
        retry: Retry | int | None = _UNSET,
        timeout: Duration | None = None,
        executor: Literal["thread", "process", "inline"] | None = None,
    ) -> Callable[[Undo], Undo]: ...

    def undo(
        self,
        function: Any = None,
        /,
        *,
        even_if_unknown: bool = False,
        retry: Retry | int | None = _UNSET,
        timeout: Duration | None = None,
        executor: Literal["thread", "process", "inline"] | None = None,
    ) -> Any:
        """Declare how the step is undone: a function of the step's arguments and its result.

        Parameters: `even_if_unknown`, undo also a step that may or may not have taken effect (the result is
        `None` then); `retry`, 20 attempts by default: when they end, the instance waits for an operator whatever the
        policy says; `timeout` of an attempt.
        """

        def declare(undo: Callable[..., Any]) -> Callable[..., Any]:
            self.spec.undo = StepSpec(
                name=f"undo:{self.spec.name}",
                function=undo,
                executor=_executor(undo, executor),
                # An undo that can't be done is never passed over: an operator decides what becomes of it.
                retry=_UNDO_RETRY if retry is _UNSET else msgspec.structs.replace(as_retry(retry), then="park"),
                timeout_seconds=_seconds(timeout),
                even_if_unknown=even_if_unknown,
            )
            return undo

        return declare if function is None else declare(function)


def _seconds(duration: Duration | None, option: str = "timeout") -> float | None:
    if duration is None:
        return None
    found = seconds(duration)
    if not found > 0:
        raise UsageError(f"{option}={duration!r}: no attempt can end in that time; leave it out for no limit")
    return found


def _queue(name: str | None) -> str | None:
    return None if name is None else check_queue(name)


def _checked(spec: StepSpec) -> StepSpec:
    """A spec whose options go together. Raises `DefinitionError`."""
    if spec.queue is not None and spec.executor in ("inline", "transaction"):
        what = (
            "a transaction runs in the node's own commit" if spec.executor == "transaction" else "it runs on the node"
        )
        raise DefinitionError(f"step {spec.name!r}: {what}, so no worker can run it: leave out queue=")
    if spec.queue is None and (spec.priority or spec.queue_key is not None):
        raise DefinitionError(
            f"step {spec.name!r}: priority= and key= order a queue: give queue= too, or leave them out"
        )
    if not isinstance(spec.priority, int) or abs(spec.priority) > _MOST_PRIORITY:
        raise DefinitionError(f"step {spec.name!r}: priority={spec.priority!r}: a number from -{_MOST_PRIORITY} to it")
    if spec.queue_key is not None and not callable(spec.queue_key):
        raise DefinitionError(f"step {spec.name!r}: key={spec.queue_key!r}: give a function of the step's arguments")
    return spec


def _executor(function: Callable[..., Any], wanted: str | None) -> Executor:
    is_async = inspect.iscoroutinefunction(function)
    if wanted is None:
        return "async" if is_async else "thread"
    if wanted not in ("thread", "process", "inline"):
        raise DefinitionError(f"executor={wanted!r}: choose 'thread', 'process' or 'inline', or leave it out")
    if is_async:
        raise DefinitionError(
            f"step {function.__name__!r} is async and runs on the node's loop: executor={wanted!r} is for def steps"
        )
    return wanted  # type: ignore[return-value]


def _check(function: Any, word: str) -> None:
    if isinstance(function, Step):
        raise DefinitionError(f"{function!r} is a step already")
    if not callable(function) or inspect.isclass(function):
        raise DefinitionError(f"@{word} decorates a function, not {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(f"{function.__name__!r} is a generator: a step returns one value; return a list instead")


@overload
def step(function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...
@overload
def step(function: Callable[P, T], /) -> Step[P, T]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | None = _UNSET,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    executor: Literal["thread", "process", "inline"] | None = None,
    queue: str | None = None,
    priority: int = 0,
    key: Callable[..., Any] | None = None,
) -> _Decorator: ...
def step(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = _UNSET,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    executor: Literal["thread", "process", "inline"] | None = None,
    queue: str | None = None,
    priority: int = 0,
    key: Callable[..., Any] | None = None,
) -> Any:
    """Declare a step: a call whose result is journaled once and never repeated after that.

    Parameters: `name` in journals (the function's name); `retry`, a `Retry`, a number of attempts or `None` for a
    single one (5 attempts with backoff by default); `timeout` of one attempt; `heartbeat_timeout`, how long it may
    go without `heartbeat()`; `executor` of a `def` step: "thread" (the default), "process" for work that holds the
    processor, "inline" for work of microseconds; `queue`, from which workers in other processes take it, those of
    higher `priority` first and those of different `key`, a function of the step's arguments, by turns. Raises
    `DefinitionError`.

    >>> from dalsegno import step
    >>> @step(retry=3, timeout="10s")
    ... async def charge(amount: int) -> str:
    ...     return f"charged {amount}"
    >>> import asyncio; asyncio.run(charge(5))
    'charged 5'
    """

    def declare(function: Callable[..., Any]) -> Step[Any, Any]:
        _check(function, "step")
        codec.check_readable(codec.return_type(function), f"the result of step {function.__name__!r}")
        spec = StepSpec(
            name=name or function.__name__,
            function=function,
            executor=_executor(function, executor),
            retry=_DEFAULT_RETRY if retry is _UNSET else as_retry(retry),
            timeout_seconds=_seconds(timeout),
            heartbeat_timeout_seconds=_seconds(heartbeat_timeout, "heartbeat_timeout"),
            queue=_queue(queue),
            priority=priority,
            queue_key=key,
        )
        return Step(_checked(spec))

    return declare if function is None else declare(function)


class _Decorator:
    """What `@step(...)` with options returns; for type checkers only."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Step[P, T]: ...
    def __call__(self, function: Any, /) -> Any:
        raise NotImplementedError


class _TransactionDecorator:
    """What `@transaction(...)` with options returns; for type checkers only."""

    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Step[P, T]:
        raise NotImplementedError


@overload
def transaction(function: Callable[Concatenate[Any, P], T], /) -> Step[P, T]: ...
@overload
def transaction(
    *, name: str | None = None, on: str | None = None, retry: Retry | int | None = _UNSET
) -> _TransactionDecorator: ...
def transaction(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    on: str | None = None,
    retry: Retry | int | None = _UNSET,
) -> Any:
    """Declare a step whose effect and journal entry are one commit: exactly once.

    The function gets a database connection as its first argument, in a transaction that is committed for it; it is
    called without it. Parameters: `on`, the user's own database ("sqlite:///own.db"), where a small table
    `dalsegno_completions` is kept; without it the store's own. `name`, `retry` as for `step`.

    >>> from dalsegno import transaction
    >>> @transaction
    ... def book(tx, account: str, amount: int) -> None:
    ...     tx.execute("INSERT INTO bookings VALUES (?, ?)", (account, amount))
    """

    def declare(function: Callable[..., Any]) -> Step[Any, Any]:
        _check(function, "transaction")
        codec.check_readable(codec.return_type(function), f"the result of transaction {function.__name__!r}")
        if asyncio.iscoroutinefunction(function):
            raise DefinitionError(f"transaction {function.__name__!r} is async: SQLite's driver isn't; write def")
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        if not kinds or kinds[0] not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            raise DefinitionError(
                f"transaction {function.__name__!r} takes no connection: declare it as the first parameter, such as tx"
            )
        return Step(
            StepSpec(
                name=name or function.__name__,
                function=function,
                executor="transaction",
                retry=_DEFAULT_RETRY if retry is _UNSET else as_retry(retry),
                database=None if on is None else _sqlite_path(on),
            )
        )

    return declare if function is None else declare(function)


def _sqlite_path(url: str) -> str:
    if not url.startswith("sqlite:///"):
        raise DefinitionError(f"transaction(on={url!r}): give sqlite:///path, or leave it out for the store's database")
    return url.removeprefix("sqlite:///")
