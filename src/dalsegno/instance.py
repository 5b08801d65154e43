"""What is shown of an instance, and the handle to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.event import AnyEvent
from dalsegno.engine.requests import Request
from dalsegno.errors import NotFound, ProcessCancelled, ProcessFailed, ProcessTerminated
from dalsegno.kernel import entries as e
from dalsegno.kernel.definition import check_id
from dalsegno.kernel.fault import restore
from dalsegno.kernel.ports import InstanceRow, TaskRow

if TYPE_CHECKING:
    from dalsegno.gateway import Gateway

T = TypeVar("T")


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as it stands."""

    id: str
    namespace: str
    process: str
    version: int
    status: str
    run: int
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    wake_at: datetime | None = None
    waiting_for: str | None = None
    error: str | None = None
    annotations: dict[str, Any] = {}
    parent: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a person."""

    id: str
    namespace: str
    instance: str
    role: str
    title: str | None
    about: Any
    answer_schema: Any
    state: str
    asked_at: datetime
    due_at: datetime | None = None
    answer: Any = None
    answered_by: str | None = None
    answered_at: datetime | None = None


def moment(at: int | None) -> datetime | None:
    """A store's time as a datetime in UTC."""
    return None if at is None else datetime.fromtimestamp(at / 1e6, UTC)


def instance_of(row: InstanceRow) -> Instance:
    """What is shown of a row."""
    return Instance(
        id=row.id,
        namespace=row.namespace,
        process=row.process,
        version=row.version,
        status=row.status,
        run=row.run,
        started_at=cast("datetime", moment(row.created_at)),
        updated_at=cast("datetime", moment(row.updated_at)),
        ended_at=moment(row.ended_at),
        wake_at=moment(row.wake_at),
        waiting_for=row.waiting_for,
        error=row.error,
        annotations=msgspec.json.decode(row.annotations) if row.annotations else {},
        parent=row.parent,
    )


def task_of(row: TaskRow) -> Task:
    """What is shown of a question."""
    return Task(
        id=row.id,
        namespace=row.namespace,
        instance=row.instance,
        role=row.role,
        title=row.title,
        about=codec.decode(row.about),
        answer_schema=codec.decode(row.answer_schema),
        state=row.state,
        asked_at=cast("datetime", moment(row.at)),
        due_at=moment(row.due_at),
        answer=codec.decode(row.answer) if row.answer is not None else None,
        answered_by=row.answered_by,
        answered_at=moment(row.answered_at),
    )


class Run(Generic[T]):
    """A handle to an instance: its result, its state, and what can be done to it."""

    def __init__(
        self, gateway: Callable[[], Gateway], namespace: str, id: str, result_type: Any, key: int | None
    ) -> None:
        self._gateway = gateway
        self._result_type = result_type
        self._key = key
        self.namespace = namespace
        self.id = id

    def __repr__(self) -> str:
        return f"<run {self.id!r}>"

    async def result(self, timeout_seconds: float | None = None) -> T:
        """Wait for the end. Returns the process's result or raises its error.

        Raises `ProcessCancelled`, `ProcessTerminated`, `TimeoutError` after `timeout_seconds`, `NotFound`.
        """
        waiting = self._gateway().ended(self.namespace, self.id, self._key)
        if timeout_seconds is None:
            return self._read(await waiting)
        async with asyncio.timeout(timeout_seconds):
            return self._read(await waiting)

    def _read(self, ended: e.Ended) -> T:
        if ended.outcome == "completed":
            data = ended.result or codec.NULL
            return cast("T", codec.decode(data, self._result_type, f"result of {self.id!r}"))
        if ended.outcome == "cancelled":
            raise ProcessCancelled(f"instance {self.id!r} was cancelled")
        if ended.outcome == "terminated":
            raise ProcessTerminated(f"instance {self.id!r} was terminated: {ended.reason or 'no reason given'}")
        assert ended.error is not None
        error = restore(ended.error, ProcessFailed)
        error.add_note(f"instance {self.id!r} failed; its journal: dalsegno show {self.id}")
        raise error

    async def describe(self) -> Instance:
        """The instance as it stands. Raises `NotFound`."""
        return instance_of(await self._row())

    async def status(self) -> str:
        """The instance's status."""
        return (await self._row()).status

    async def annotations(self) -> dict[str, Any]:
        """What the process says of its state."""
        return (await self.describe()).annotations

    async def _row(self) -> InstanceRow:
        row = await self._gateway().find(self.namespace, self.id)
        if row is None:
            raise NotFound(f"no instance {self.id!r} in namespace {self.namespace!r}")
        return row

    async def history(self, after: int = -1) -> list[e.Record]:
        """The whole journal, all runs; with `after`, what follows that sequence number."""
        row = await self._row()
        return await self._gateway().history(row.key, after)

    async def cancel(self, reason: str | None = None, by: str | None = None) -> None:
        """Ask the instance to stop; what it did in sagas is undone."""
        await self._request("cancel", Request(by, reason))

    async def terminate(self, reason: str | None = None, by: str | None = None) -> None:
        """End the instance at once, without undo."""
        await self._request("terminate", Request(by, reason))

    async def pause(self, reason: str | None = None, by: str | None = None) -> None:
        """Begin no further step until `resume`; running steps end."""
        await self._request("pause", Request(by, reason))

    async def resume(self, reason: str | None = None, by: str | None = None) -> None:
        """Let a paused or parked instance go on."""
        await self._request("resume", Request(by, reason))

    async def retry(self, reason: str | None = None, by: str | None = None) -> None:
        """Go on with a failed instance from its failure; steps that were undone are done anew."""
        await self._request("retry", Request(by, reason))

    async def fork(self, *, step: str | None = None, id: str | None = None, by: str | None = None) -> Run[T]:
        """A new instance that stands where this one stood before `step` ended."""
        if id is not None:
            check_id(id)
        new_id = await self._request("fork", Request(by, step=step, new_id=id))
        return Run(self._gateway, self.namespace, new_id, self._result_type, None)

    async def publish(self, event: AnyEvent, *, id: str | None = None) -> str:
        """Publish an event that only this instance gets; returns its id. Again under the same `id` changes nothing."""
        return await self._gateway().publish(self.namespace, event, self.id, id)

    async def update(self, event: AnyEvent, by: str | None = None) -> Any:
        """Send a request that the process's `@on` handler answers; returns the reply or raises its refusal."""
        reply = await self._gateway().update(self.namespace, self.id, event, by)
        return reply if event.event_reply is None else codec.convert(reply, event.event_reply, "reply")

    async def _request(self, verb: str, request: Request) -> Any:
        return await self._gateway().request(verb, self.namespace, self.id, request)
