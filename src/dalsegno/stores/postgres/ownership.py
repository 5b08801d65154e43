"""Who owns what: a node's row, its lease by the database's clock, and that clock."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import NodeInfo
from dalsegno.stores.postgres.arrays import storable
from dalsegno.stores.postgres.commit import fenced
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.session import Session


class Clock:
    """The database's time: measured now and then, carried on by this machine's monotonic clock, never backwards."""

    def __init__(self) -> None:
        self._offset = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        self._floor = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """Microseconds since the epoch."""
        moment = time.monotonic_ns() // 1000 + self._offset
        return moment if moment > self._floor else self._floor

    def measure(self, session: Session, *, first: bool = False) -> None:
        """Ask the database for its time."""
        asked = time.monotonic_ns() // 1000
        [(answer,)] = session.rows("fleet/clock")
        took = time.monotonic_ns() // 1000 - asked
        with self._lock:
            # Where the database's clock was put back, this one stands still until it is reached.
            self._floor = 0 if first else self.now()
            self._offset = answer - asked - took // 2


def acquire(session: Session, name: str, lease_seconds: float, processes: str) -> int:
    """Become a node; its epoch."""
    host = socket.gethostname()
    values = (storable(name), host, os.getpid(), int(lease_seconds * 1e6), processes)

    def enter(connection: Connection) -> int:
        row = connection.execute(query("insert_node", session.schema), values).fetchone()
        assert row is not None
        return int(row[0])

    epoch = session.transact(enter)
    reach("lease.acquired")
    return epoch


def renew(session: Session, epoch: int, lease_seconds: float, processes: str, figures: str) -> None:
    """Prolong the lease and show what the node knows and its figures. Raises `Fenced`."""

    def prolong(connection: Connection) -> None:
        values = (epoch, int(lease_seconds * 1e6))
        if connection.execute(query("renew_lease", session.schema), values).rowcount != 1:
            raise fenced(epoch)
        connection.execute(query("show_node", session.schema), (processes, storable(figures), epoch))

    session.transact_again(prolong)
    reach("lease.renewed")


def end(session: Session, epoch: int) -> None:
    """Give the lease back: what the node owned is nobody's."""
    session.transact_again(lambda connection: connection.execute(query("end_node", session.schema), (epoch,)).rowcount)


def hold_fence(connection: Connection, schema: str, epoch: int) -> None:
    """Prove within a transaction that the node has not been ended, and isn't until the end of it. Raises `Fenced`."""
    if connection.execute(query("fleet/hold_fence", schema), (epoch,)).fetchone() is None:
        raise fenced(epoch)


_NODE = (
    "epoch", "name", "host", "pid", "doorbell", "started_at", "lease_until", "ended_at", "processes", "figures",
)  # fmt: skip


def node_info(row: tuple[Any, ...]) -> NodeInfo:
    """A node from its row."""
    values = dict(zip(_NODE, row, strict=True))
    values["processes"], values["figures"] = values["processes"].encode(), values["figures"].encode()
    return NodeInfo(**values)
