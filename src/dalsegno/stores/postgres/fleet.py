"""Many nodes on one database: what is nobody's, and how a node takes it over.

An instance is nobody's if its owner is 0 or a node that has ended. An epoch that has ended never lives again, so a
claim names the ended ones it saw: of two nodes that claim at once, the second finds another owner in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from dalsegno.kernel.ports import Match, Message
from dalsegno.kernel.work import WorkRow
from dalsegno.stores.postgres import read
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.ownership import hold_fence
from dalsegno.stores.postgres.session import Session
from dalsegno.stores.postgres.work import work_of

Result = TypeVar("Result")

_NO_BOUND = 2**31 - 1


class Fleet:
    """What one node asks in order to find its work; everything on one session."""

    def __init__(self, session: Session, epoch: int) -> None:
        self._session = session
        self._epoch = epoch
        self._schema = session.schema
        self._names: list[str] | None = None
        self._versions: list[int] | None = None
        self._suspicious = _NO_BOUND
        self._handed_out: set[int] = set()

    def knows(self, processes: Collection[tuple[str, int]] | None) -> None:
        """Which processes this node has code for: it claims no others."""
        self._names = None if processes is None else [name for name, _ in processes]
        self._versions = None if processes is None else [version for _, version in processes]

    def fenced(self, job: Callable[[Connection], Result]) -> Result:
        """Do something in a transaction that begins with the proof of ownership. Raises `Fenced`."""

        def proved(connection: Connection) -> Result:
            hold_fence(connection, self._schema, self._epoch)
            return job(connection)

        return self._session.transact(proved)

    def _claim(self, name: str, owners: Sequence[int], *values: Any, code: bool = True) -> list[int]:
        """Take over what a statement says of what these owners had."""
        if not owners:
            return []
        known = (self._names, self._versions) if code else ()
        parameters = (self._epoch, list(owners), *values, *known)

        def claim(connection: Connection) -> list[int]:
            cursor = connection.execute(query(name, self._schema), parameters)
            return sorted(row[0] for row in cursor.fetchall()) if cursor.description else []

        return self.fenced(claim)

    def _ended_owners(self) -> list[int]:
        return [row[0] for row in self._session.rows("fleet/ended_owners")]

    # -- recovery ----------------------------------------------------------------------------------

    def mark_recovered(self, parking: int, trial: int | None) -> list[int]:
        """End the nodes whose lease is over and count a crash for what they ran; the poisoned are this node's now."""
        self._suspicious = _NO_BOUND if trial is None else trial
        if not self._session.rows("fleet/lapsed_nodes", self._epoch):
            # Looking costs nothing; but a node that was ended itself must learn it here.
            self.check()
            return []
        free = parking if trial is None else trial

        def mark(connection: Connection) -> list[int]:
            over = [row[0] for row in connection.execute(query("end_nodes", self._schema), (self._epoch,)).fetchall()]
            connection.execute(query("count_crash", self._schema), (over, free))
            found = connection.execute(query("poisoned", self._schema), (parking, free, self._epoch, over))
            return sorted(row[0] for row in found.fetchall())

        return self.fenced(mark)

    def check(self) -> None:
        """Raise `Fenced` where this node was ended."""
        read.check_fence(self._session.rows("fence", self._epoch), self._epoch)

    def running(self, after_key: int, limit: int) -> list[int]:
        """Take over running instances that are nobody's and nothing is held against."""
        return self._claim("running", self._ended_owners(), after_key, self._suspicious, limit)

    def suspects(self, crashes: int) -> list[tuple[int, int]]:
        """This node's suspects, with what was nobody's."""
        self._claim("fleet/claim_suspects", self._ended_owners(), crashes)
        return self._session.rows("suspects", crashes, self._epoch)

    def put_on_trial(self, keys: Sequence[int]) -> None:
        """Hold a crash against these of this node's instances only."""
        values = (list(keys), self._epoch)
        self.fenced(lambda connection: connection.execute(query("put_on_trial", self._schema), values).rowcount)

    def mismatched(self) -> list[int]:
        """Instances parked for want of the right code, with what was nobody's."""
        self._claim("fleet/claim_mismatched", self._ended_owners())
        return [row[0] for row in self._session.rows("mismatched", self._epoch)]

    def release(self, keys: Sequence[int]) -> None:
        """Give instances to nobody."""
        values = (list(keys), self._epoch)
        self.fenced(lambda connection: connection.execute(query("fleet/release", self._schema), values).rowcount)

    # -- work that comes ---------------------------------------------------------------------------

    def due(self, until: int, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """This node's instances that are due, with what was nobody's."""
        self._claim("fleet/claim_due", self._ended_owners(), until, *after, limit)
        return self._session.rows("due", until, *after, limit, self._epoch)

    def matches(self) -> list[Match]:
        """Matched waits of this node's instances, with what was nobody's."""
        ended = [row[0] for row in self._session.rows("fleet/unclaimed_matched")]
        self._claim("fleet/claim_matched", ended)
        return read.matches(self._session.rows("matches", self._epoch))

    def messages(self, after: int) -> list[Message]:
        """Open messages for this node's instances, with what was nobody's.

        A message with a low position may be committed after one with a higher: it comes when it is there.
        """
        ended = [row[0] for row in self._session.rows("fleet/unclaimed_messages")]
        self._claim("fleet/claim_messages", ended, code=False)
        if self._handed_out:
            still = self._session.rows("fleet/still_open", list(self._handed_out))
            self._handed_out = {row[0] for row in still}
        found = read.messages(self._session.rows("open_messages", after, list(self._handed_out), self._epoch))
        self._handed_out.update(message.position for message in found)
        return found

    def work_done(self, limit: int, known: Collection[int]) -> list[WorkRow]:
        """Ended attempts of this node's instances, with what was nobody's; those end here that no worker will end."""
        [(moment,)] = self._session.rows("fleet/clock")
        if self._session.rows("hopeless_work", moment):
            text = query("end_hopeless_work", self._schema)
            self.fenced(lambda connection: connection.execute(text, (moment,)).rowcount)
        self._claim("fleet/claim_worked", [row[0] for row in self._session.rows("fleet/unclaimed_work")])
        text = f"{query('work_columns', self._schema)} {query('fleet/done_work', self._schema)}"
        return [work_of(row) for row in self._session.select(text, (self._epoch, list(known), limit))]

    def forget_work(self, before: int, limit: int) -> int:
        """Forget claims that ended."""
        text = query("forget_work", self._schema)
        return self.fenced(lambda connection: connection.execute(text, (before, limit)).rowcount)

    def forget_events(self, before: int, limit: int) -> int:
        """Drop old events."""

        def forget(connection: Connection) -> int:
            connection.execute(query("fleet/forget_attempts", self._schema))
            return connection.execute(query("forget_events", self._schema), (before, limit)).rowcount

        return self.fenced(forget)
