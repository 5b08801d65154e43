"""Who owns the file: a node row with an epoch and a lease, and the operating system's word on who lives."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from datetime import UTC, datetime
from typing import Any

from dalsegno.errors import Fenced, StoreOwned
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import NodeInfo
from dalsegno.stores.sqlite.commit import now
from dalsegno.stores.sqlite.connection import query


class OwnerLock:
    """An advisory lock beside the database: held for as long as the owning process lives, however it dies."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path + "-owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.held = False

    def last_epoch(self) -> int:
        """The epoch of the last owner that held the lock."""
        text = os.pread(self._file, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdecimal() else 0

    def note(self, epoch: int) -> None:
        """Write down whose lock it is."""
        if self.held:
            os.pwrite(self._file, f"{epoch:<20}\n".encode(), 0)

    def take(self) -> bool:
        """Whether no other living process holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except OSError:
            self.held = False
        return self.held

    def release(self) -> None:
        """Let the next owner in."""
        os.close(self._file)


def acquire(
    connection: sqlite3.Connection, path: str, name: str, doorbell: int, lease_seconds: float, lock: OwnerLock
) -> tuple[int, bool]:
    """Become the owner; returns the new epoch, and whether the last owner died.

    Raises `StoreOwned` while another engine lives and holds its lease.
    """
    # A free lock says that its last holder died; an owner that took over from a frozen one never held it.
    died = lock.last_epoch() if lock.take() else 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        moment = now()
        before = living_nodes(connection)
        for owner in before:
            if owner.epoch > died and owner.lease_until > moment:
                raise StoreOwned(_refusal(path, owner))
        connection.execute(query("end_nodes"), (moment,))
        values = (
            name,
            socket.gethostname(),
            os.getpid(),
            doorbell,
            moment,
            moment + int(lease_seconds * 1e6),
        )
        epoch: int = connection.execute(query("insert_node"), values).fetchone()[0]
        lock.note(epoch)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    reach("lease.acquired")
    return epoch, bool(before)


def _refusal(path: str, owner: NodeInfo) -> str:
    until = datetime.fromtimestamp(owner.lease_until / 1e6, UTC).strftime("%H:%M:%S")
    return (
        f"{path} is owned by node {owner.name!r} (process {owner.pid} on {owner.host}), whose lease lasts until "
        f"{until} UTC. Stop that process, or use app.client() and the dalsegno commands beside it."
    )


def renew(connection: sqlite3.Connection, epoch: int, lease_seconds: float, shown: tuple[str, str, int]) -> None:
    """Prolong the lease and show what the node knows and its figures. Raises `Fenced`."""
    until = now() + int(lease_seconds * 1e6)
    if connection.execute(query("renew_lease"), (until, *shown)).rowcount != 1:
        raise Fenced(f"node epoch {epoch} was ended by another engine that took over: this one may write nothing")
    reach("lease.renewed")


def living_nodes(connection: sqlite3.Connection) -> list[NodeInfo]:
    """Nodes that didn't end, newest first."""
    return [node_info(row) for row in connection.execute(query("living_nodes")).fetchall()]


_NODE = (
    "epoch", "name", "host", "pid", "doorbell", "started_at", "lease_until", "ended_at", "processes", "figures",
)  # fmt: skip


def node_info(row: tuple[Any, ...]) -> NodeInfo:
    """A node from its row."""
    # The owner looks for living nodes before it migrates.
    values = dict(zip(_NODE, row, strict=False))
    values.update((name, values[name].encode()) for name in _NODE[-2:] if name in values)
    return NodeInfo(**values)
