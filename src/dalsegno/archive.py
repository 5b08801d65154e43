"""Journals outside a store: an instance as lines of JSON, and back.

The first line says what the instance is, each further one is an entry: `seq`, `at` (microseconds since the epoch),
`time` (the same to read), `entry`. Several instances follow each other in one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from dalsegno.engine.turns import input_hash
from dalsegno.errors import InvalidValue
from dalsegno.history import moment
from dalsegno.instance import Instance
from dalsegno.kernel import entries as e
from dalsegno.kernel.ports import FINAL, Change, InstanceRow, Loaded, Start

FORMAT = 1


class Header(Instance, frozen=True, kw_only=True):
    """The line an instance begins with."""

    journal: int = FORMAT


class Line(msgspec.Struct, frozen=True):
    """The line of an entry."""

    seq: int
    at: int
    time: datetime
    entry: e.Entry


class Archived(msgspec.Struct):
    """An instance with its whole journal."""

    header: Header
    journal: list[e.Record]


def line_of(record: e.Record) -> Line:
    """An entry as a line."""
    return Line(record.seq, record.at, moment(record.at), record.entry)


def lines(instance: Instance, journal: Iterable[e.Record]) -> Iterator[bytes]:
    """An instance as lines of JSON."""
    yield msgspec.json.encode(Header(**msgspec.structs.asdict(instance)))
    for record in journal:
        yield msgspec.json.encode(line_of(record))


def read(source: Iterable[bytes], name: str = "the export") -> Iterator[Archived]:
    """The instances of an export. Raises `InvalidValue` with the number of the line that isn't one."""
    found: Archived | None = None
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        try:
            if line.lstrip().startswith(b'{"seq"') and found is not None:
                found.journal.append(msgspec.json.decode(line, type=e.Record))
                continue
            header = msgspec.json.decode(line, type=Header)
        except msgspec.DecodeError as error:
            raise InvalidValue(f"{name}, line {number} isn't a line of an exported journal: {error}") from error
        if header.journal != FORMAT:
            raise InvalidValue(f"{name}, line {number}: format {header.journal}; this version reads {FORMAT}")
        if found is not None:
            yield _checked(found, name)
        found = Archived(header, [])
    if found is not None:
        yield _checked(found, name)


def _checked(archived: Archived, name: str) -> Archived:
    if [record.seq for record in archived.journal] != list(range(len(archived.journal))) or not archived.journal:
        raise InvalidValue(f"{name}: the journal of {archived.header.id!r} has gaps; export it again")
    return archived


# -- back into a store -------------------------------------------------------------------------------------


def copy_of(archived: Archived, namespace: str, at: int) -> tuple[Start, list[e.Record]]:
    """What a store takes in: an ended instance as it was, one under way so that it goes on from there."""
    header, journal = archived.header, archived.journal
    first = journal[0].entry
    assert isinstance(first, e.Started)
    kept = journal if header.status in FINAL else _to_go_on(journal)
    status = header.status if header.status in (*FINAL, "paused", "parked") else "running"
    change = Change(
        key=0,
        status=status,
        at=_micros(header.updated_at) or at,
        waiting_for=header.waiting_for if status != "running" else None,
        error=header.error,
        ended_at=_micros(header.ended_at),
        run=header.run,
        base_seq=_begin(kept),
    )
    start = Start(
        namespace=namespace,
        id=header.id,
        process=header.process,
        version=header.version,
        input_hash=input_hash(first.process, first.input),
        entry=b"",
        at=_micros(header.started_at) or at,
        parent=header.parent,
        parent_operation=first.parent_operation,
        stands=change,
    )
    return start, kept


def loaded_of(archived: Archived) -> Loaded:
    """The last run as if a store had loaded it."""
    header, journal = archived.header, archived.journal
    row = InstanceRow(
        key=0,
        namespace=header.namespace,
        id=header.id,
        process=header.process,
        version=header.version,
        status=header.status,
        run=header.run,
        base_seq=_begin(journal),
        input_hash=0,
        begun=True,
        created_at=journal[0].at,
        updated_at=journal[-1].at,
    )
    return Loaded(row, [(r.seq, r.at, e.encode(r.entry)) for r in journal[row.base_seq :]])


def _begin(journal: Sequence[e.Record]) -> int:
    return max(record.seq for record in journal if isinstance(record.entry, e.Started))


def _micros(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000)


def _to_go_on(journal: Sequence[e.Record]) -> list[e.Record]:
    """A journal from which a node of another store goes on.

    Open questions and waits are left out, since the process says them again and the store then knows them; so is
    what a retry discarded. Events that were received count by their place in the store they came from: here by none.
    """
    discarded = {seq for r in journal if isinstance(r.entry, e.Reopened) for seq in r.entry.discarded}
    live = [r for r in journal if r.seq not in discarded and not isinstance(r.entry, e.Reopened)]
    begin = _begin(live)
    closed = {_closes(r.entry) for r in live if r.seq >= begin}
    kept = [
        r
        for r in live
        if r.seq < begin or not isinstance(r.entry, (e.Asked, e.EventAwaited)) or r.entry.operation in closed
    ]
    return [e.Record(seq, r.at, _unplaced(r.entry)) for seq, r in enumerate(kept)]


def _closes(entry: Any) -> str | None:
    if isinstance(entry, e.Answered):
        return entry.operation
    return entry.wait if isinstance(entry, e.EventReceived) else None


def _unplaced(entry: e.Entry) -> e.Entry:
    return msgspec.structs.replace(entry, position=0) if isinstance(entry, e.EventReceived) else entry
