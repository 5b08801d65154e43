"""`@transaction` steps: the effect and its journal entry in one commit, exactly once."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.jobs import Job
from dalsegno.errors import InvalidValue, LimitExceeded, UsageError
from dalsegno.kernel import entries as e
from dalsegno.kernel.context import current_step
from dalsegno.kernel.ports import Transaction

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_COMPLETIONS = """
CREATE TABLE IF NOT EXISTS dalsegno_completions (
    step_key TEXT PRIMARY KEY, result BLOB NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID
"""


class Transactions:
    """Runs transaction steps in the engine's commit, or on a database of the user's own."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def submit(self, job: Job) -> None:
        """Run a transaction step."""
        if job.call.spec.database is None:
            self._in_the_commit(job)
        else:
            job.task = self._node.spawn(self._on_own_database(job, job.call.spec.database))

    def _in_the_commit(self, job: Job) -> None:
        resident = job.resident
        if job.cancelled or resident.gone:
            self._node.outcomes.add(job, None, asyncio.CancelledError())
            return
        if resident.held:
            resident.queue.append(lambda: self._in_the_commit(job))
            return
        # Until the commit is back nothing else is journaled for this instance: the entry's number is taken.
        resident.held = True
        batch = self._node.committer.batch
        resident.batch = batch
        batch.transactions.append(
            Transaction(
                instance=resident.key,
                seq=resident.next_seq,
                kind="step_completed",
                at=self._node.store.now(),
                run=lambda connection: self._run(job, connection),
                tag=job,
            )
        )
        self._node.committer.touch()

    def _run(self, job: Job, connection: Any) -> bytes:
        call = job.call
        token = current_step.set(job)
        try:
            result = self._result(job, connection)
        finally:
            current_step.reset(token)
        return e.encode(e.StepCompleted(call.key, call.arguments, msgspec.Raw(result), job.attempt, job.started_at))

    def _result(self, job: Job, connection: Any) -> bytes:
        """Call the step. What it returns is looked at before the commit: a result nobody can read undoes the effect."""
        call = job.call
        try:
            value = call.spec.function(connection, *call.args, **call.kwargs)
        except sqlite3.DatabaseError as error:
            if str(error) != "not authorized":
                raise
            raise UsageError(
                f"transaction {call.spec.name!r} begins or ends a transaction itself: what it does is committed for it "
                "when it returns, and undone when it raises. Leave out BEGIN, COMMIT, ROLLBACK and `with tx:`."
            ) from error
        result = encoded_result(job, value, self._node.limits.payload_bytes)
        try:
            call.spec.decode(result)
        except ValueError as error:
            wanted = codec.type_name(call.spec.result_type)
            raise InvalidValue(f"result of {job.describe()} isn't a {wanted}: {error}. It was undone.") from error
        return result

    def committed(self, work: Transaction, entry: bytes | None, error: BaseException | None) -> None:
        """The commit is back, with the step's entry in it or the step's error."""
        job: Job = work.tag
        resident = job.resident
        resident.held = False
        if entry is None:
            self._node.outcomes.add(job, None, error)
        else:
            resident.next_seq += 1
            resident.jobs.pop(job.call.key, None)
            completed = e.decode(entry)
            assert isinstance(completed, e.StepCompleted)
            self._node.turns.delivered(resident, completed, work.at)
        waiting, resident.queue = resident.queue, []
        for callback in waiting:
            callback()

    async def _on_own_database(self, job: Job, path: str) -> None:
        try:
            value = await asyncio.to_thread(self._exactly_once, job, path)
        except (Exception, SystemExit) as error:
            self._node.outcomes.add(job, None, error)
        else:
            self._node.outcomes.add(job, value, None)

    def _exactly_once(self, job: Job, path: str) -> Any:
        """The effect and its completion row in one transaction of the user's database."""
        call = job.call
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        current_step.set(job)
        try:
            connection.execute(_COMPLETIONS)
            connection.execute("BEGIN IMMEDIATE")
            done = connection.execute(
                "SELECT result FROM dalsegno_completions WHERE step_key = ?", (job.key,)
            ).fetchone()
            if done is not None:
                connection.execute("ROLLBACK")
                return call.spec.decode(done[0])
            connection.set_authorizer(_deny_transactions)
            result = self._result(job, connection)
            connection.set_authorizer(None)
            connection.execute(
                "INSERT INTO dalsegno_completions VALUES (?, ?, ?)", (job.key, result, time.time_ns() // 1000)
            )
            connection.execute("COMMIT")
            return call.spec.decode(result)
        finally:
            # Closing rolls back what was not committed.
            connection.close()


def _deny_transactions(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


def encoded_result(job: Job, value: Any, payload_bytes: int) -> bytes:
    """A step's result as JSON. Raises `Unserialisable` or `LimitExceeded`."""
    if value is None:
        return codec.NULL
    try:
        result = codec.dump(value)
    except Exception:
        result = codec.encode(value, f"result of {job.describe()}")
    if len(result) > payload_bytes:
        raise LimitExceeded(
            f"result of {job.describe()} has {len(result)} bytes, the limit is {payload_bytes} (Limits.payload_bytes). "
            "The step took effect and isn't tried again; keep the data elsewhere and return a reference."
        )
    return result
