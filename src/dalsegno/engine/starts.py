"""Starting instances: idempotent by id, decided by the commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from dalsegno.engine.resident import Resident
from dalsegno.engine.turns import input_hash
from dalsegno.errors import StartConflict
from dalsegno.kernel import entries as e
from dalsegno.kernel import points
from dalsegno.kernel.definition import Arguments, ProcessSpec
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.ports import FINAL, InstanceRow, Start

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

IfExists = Literal["same", "return", "fail", "restart"]


class Starts:
    """Puts new instances into the batch and begins them once that is durable."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def submit(
        self,
        start: Start,
        started: e.Started,
        spec: ProcessSpec | None,
        done: asyncio.Future[int | None] | None = None,
        prepared: Arguments | None = None,
    ) -> None:
        """Start with the next commit; `done` gets the key, or `None` where the id is taken."""
        if points.armed is not None:
            points.reach("start.before")
        start.tag = (started, spec, done, prepared)
        self._node.committer.batch.starts.append(start)
        self._node.committer.touch()

    def committed(self, start: Start, key: int | None) -> None:
        """A start is durable, or its id was taken."""
        started, spec, done, prepared = start.tag
        if points.armed is not None:
            points.reach("start.committed")
        if key is None:
            self._refused(start, done)
            return
        spec = spec or self._node.definitions.find(start.process, start.version)
        if spec is not None:
            self.begin(key, start, started, spec, prepared)
        if done is not None and not done.done():
            done.set_result(key)

    def _refused(self, start: Start, done: asyncio.Future[int | None] | None) -> None:
        if done is not None and not done.done():
            done.set_result(None)
        if start.refusal is not None:
            self._node.inbox.look()

    def begin(self, key: int, start: Start, started: e.Started, spec: ProcessSpec, prepared: Arguments | None) -> None:
        """Run a new instance until it waits for the first time."""
        node = self._node
        execution = Execution(spec, start.namespace, start.id, node.limits)
        execution.prepared = prepared
        resident = Resident(key, start.namespace, start.id, execution)
        resident.next_seq = 1
        resident.parent = start.parent
        resident.parent_operation = start.parent_operation
        node.residents.add(resident)
        node.turns.delivered(resident, started, start.at)


def check_same(row: InstanceRow, process: str, data: Any, policy: IfExists) -> None:
    """Raise `StartConflict` unless the existing instance is what was to be started, by the policy."""
    if policy == "return":
        return
    if policy == "fail":
        raise StartConflict(f"instance {row.id!r} exists already ({row.process}, {row.status}): choose another id")
    if policy == "restart" and row.status not in FINAL:
        raise StartConflict(f"instance {row.id!r} is {row.status}: only an ended one can be restarted")
    if policy == "same" and row.input_hash != input_hash(process, data):
        raise StartConflict(
            f"instance {row.id!r} was started with another process or input ({row.process}, {row.status}). Choose "
            "another id, or if_exists='return' to take the existing one."
        )
