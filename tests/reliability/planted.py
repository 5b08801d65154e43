"""Bugs, planted on purpose: a harness that doesn't find them proves nothing.

    python -m tests.reliability.planted NAME      plants one and says what found it

Each replaces a function of the engine, the kernel or a store in this process; the product knows nothing of it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from dalsegno import gateway
from dalsegno.engine import residents, timers, turns
from dalsegno.engine.commits import Committer
from dalsegno.engine.inbox import Inbox
from dalsegno.errors import StoreError
from dalsegno.kernel import entries as e
from dalsegno.kernel import execution, saga
from dalsegno.kernel.ports import Batch, Committed
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.guest import Guest
from dalsegno.stores.memory.meetings import Meetings
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.stores.sqlite import commit as sqlite_commit
from dalsegno.stores.sqlite import ownership
from dalsegno.stores.sqlite import store as sqlite_store


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put `make(original)` in the place of an attribute; one that is gone is an error, not a bug found."""
    setattr(owner, name, make(getattr(owner, name)))


# -- fences --------------------------------------------------------------------------------------------


def no_fence_on_commit() -> None:
    _replace(Disk, "check_fence", lambda original: lambda self, epoch: None)


def no_fence_on_load() -> None:
    def make(original: Any) -> Any:
        async def load(self: MemoryStore, keys: Any) -> Any:
            kept, self._epoch = self._epoch, None
            try:
                return await original(self, keys)
            finally:
                self._epoch = kept

        return load

    _replace(MemoryStore, "load", make)


def takeover_leaves_the_old_epoch() -> None:
    def make(original: Any) -> Any:
        return lambda name: "UPDATE nodes SET ended_at = ? WHERE 0" if name == "end_nodes" else original(name)

    _replace(ownership, "query", make)


# -- commits -------------------------------------------------------------------------------------------


def acknowledged_before_the_commit() -> None:
    def make(original: Any) -> Any:
        def durable(self: Committer) -> asyncio.Future[None]:
            original(self)
            future: asyncio.Future[None] = self._loop.create_future()
            future.set_result(None)
            return future

        return durable

    _replace(Committer, "durable", make)


def dispatched_before_the_commit() -> None:
    def make(original: Any) -> Any:
        def dispatch(self: turns.Turns, resident: Any, call: Any) -> None:
            kept, resident.batch = resident.batch, None
            original(self, resident, call)
            resident.batch = kept

        return dispatch

    _replace(turns.Turns, "dispatch", make)


def nothing_is_synced() -> None:
    def make(original: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            connection = original(*args, **kwargs)
            connection.execute("PRAGMA synchronous = OFF")
            return connection

        return connect

    _replace(sqlite_store, "connect", make)


def an_error_of_the_disk_is_ignored() -> None:
    def make(original: Any) -> Any:
        def done(self: Committer, batch: Batch, result: Any) -> None:
            if isinstance(result, StoreError):
                result = Committed(start_keys=list(range(1, 1 + len(batch.starts))))
                batch.transactions = []
            original(self, batch, result)

        return done

    _replace(Committer, "_done", make)


def a_result_is_not_journaled() -> None:
    def make(original: Any) -> Any:
        def append(self: turns.Turns, resident: Any, entry: Any, at: int) -> None:
            if not (isinstance(entry, e.StepCompleted) and entry.step == "act#2"):
                original(self, resident, entry, at)

        return append

    _replace(turns.Turns, "_append", make)


def entries_out_of_order() -> None:
    def make(original: Any) -> Any:
        def flush(self: Committer) -> None:
            rows = self.batch.rows
            for i in range(0, len(rows) - 9, 5):
                if rows[i] == rows[i + 5] and rows[i + 3] == rows[i + 8] == "step_completed":
                    rows[i + 4], rows[i + 9] = rows[i + 9], rows[i + 4]
            original(self)

        return flush

    _replace(Committer, "_flush", make)


def rows_of_a_failed_transaction_stay() -> None:
    def make(original: Any) -> Any:
        def one(self: Guest, work: Any) -> Any:
            try:
                return work.run(self.connection), None
            except Exception as error:
                return None, error

        return one

    _replace(Guest, "_one", make)


def transactions_run_beside_the_commit() -> None:
    def make(original: Any) -> Any:
        def transact(connection: Any, work: Any) -> Any:
            # What was written so far is durable before the journal says so.
            found = original(connection, work)
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            if found[0] is not None:
                connection.execute("DELETE FROM journal WHERE instance = ? AND seq = ?", (work.instance, work.seq))
                connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
                sqlite_commit._insert_entries.run(connection, [work.instance, work.seq, work.at, work.kind, found[0]])
            return found

        return transact

    _replace(sqlite_commit, "_transact", make)


# -- sagas and attempts --------------------------------------------------------------------------------


def undone_in_forward_order() -> None:
    vars(saga)["reversed"] = list


def undone_twice() -> None:
    def make(original: Any) -> Any:
        async def call_undo(self: Any, call: Any, undo: Any) -> None:
            await original(self, call, undo)
            await original(self, call, undo)

        return call_undo

    _replace(execution.Execution, "call_undo", make)


def a_cancellation_stops_the_undoing() -> None:
    _replace(saga, "shielded", lambda original: saga.unwind)


def attempts_are_forgotten() -> None:
    def make(original: Any) -> Any:
        def note(call: Any, entry: Any) -> None:
            original(call, entry)
            call.attempt = 1

        return note

    _replace(execution, "note_attempt", make)


# -- waiting and waking --------------------------------------------------------------------------------


def early_events_are_dropped() -> None:
    def make(original: Any) -> Any:
        def open_wait(self: Meetings, wait: Any, events_from: int) -> Any:
            return original(self, msgspec.structs.replace(wait, after=self.last_position), events_from)

        return open_wait

    _replace(Meetings, "open", make)


def timers_fire_early() -> None:
    def make(original: Any) -> Any:
        def next_timer(self: Any) -> Any:
            found = original(self)
            return None if found is None else (found[0] - 0.004, found[1])

        return next_timer

    _replace(execution.Execution, "next_timer", make)


def a_timer_beyond_the_window_is_lost() -> None:
    _replace(timers.Timers, "set", lambda original: lambda self, key, at: original(self, key, at) or True)


def evicted_before_it_is_durable() -> None:
    _replace(residents.Residents, "_leave_when_durable", lambda original: lambda self, one: self.evict(one))


def what_comes_for_a_paused_instance_is_forgotten() -> None:
    _replace(Inbox, "_keep", lambda original: lambda self, message: None)


def a_stopping_step_is_not_looked_for() -> None:
    def make(original: Any) -> Any:
        def never_ran(self: turns.Turns, resident: Any, call: Any) -> None:
            original(self, resident, call)
            resident.jobs.pop(call.key, None)

        return never_ran

    _replace(turns.Turns, "_never_ran", make)


def any_start_is_the_same_start() -> None:
    _replace(gateway, "check_same", lambda original: lambda *_: None)


#: each bug with the lane that has to find it
BUGS: dict[str, tuple[Callable[[], None], str]] = {
    plant.__name__: (plant, lane)
    for lane, plants in {
        "simulation": (
            no_fence_on_commit, no_fence_on_load, acknowledged_before_the_commit, dispatched_before_the_commit,
            a_result_is_not_journaled, entries_out_of_order, rows_of_a_failed_transaction_stay, undone_in_forward_order,
            undone_twice, a_cancellation_stops_the_undoing, attempts_are_forgotten, early_events_are_dropped,
            timers_fire_early, a_timer_beyond_the_window_is_lost, evicted_before_it_is_durable,
            what_comes_for_a_paused_instance_is_forgotten, any_start_is_the_same_start,
        ),
        "programs": (a_stopping_step_is_not_looked_for,),
        "kills": (takeover_leaves_the_old_epoch, transactions_run_beside_the_commit),
        "power": (nothing_is_synced,),
        "disk": (an_error_of_the_disk_is_ignored,),
    }.items()
    for plant in plants
}  # fmt: skip


def hunt(name: str) -> str | None:
    """Plant a bug in this process and run its lane until it shows; what showed, `None` if nothing did."""
    # Here, so that whoever only wants the names needs nothing else.
    from tests.reliability.hunts import HUNTS

    plant, lane = BUGS[name]
    plant()
    return HUNTS[lane]()


if __name__ == "__main__":
    shown = hunt(sys.argv[1])
    sys.stdout.write(f"{shown or 'nothing'}\n")
    sys.exit(0 if shown else 1)
