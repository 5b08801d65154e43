"""A journal to read and to make assertions on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from dalsegno import archive
from dalsegno.authoring.step import Step
from dalsegno.kernel import entries as e


class Journal(Sequence[e.Record]):
    """The records of an instance, all runs, in order. `str()` of it is a timeline."""

    def __init__(self, records: Iterable[e.Record], id: str, namespace: str = "default") -> None:
        self._records = list(records)
        self.id = id
        self.namespace = namespace

    @overload
    def __getitem__(self, index: int) -> e.Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[e.Record]: ...
    def __getitem__(self, index: int | slice) -> e.Record | Sequence[e.Record]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[e.Record]:
        return iter(self._records)

    def __str__(self) -> str:
        return "\n".join(_line(record) for record in self._records) or "an empty journal"

    __repr__ = __str__

    @property
    def entries(self) -> list[e.Entry]:
        """The entries without their places."""
        return [record.entry for record in self._records]

    @property
    def kinds(self) -> list[str]:
        """What sort of entry stands where: "started", "step_completed", …"""
        return [e.kind(record.entry) for record in self._records]

    @property
    def steps(self) -> list[str]:
        """The names of the steps that completed and count, in that order; a step called twice stands there twice."""
        return [name for name in self._completed() if not name.startswith("undo:")]

    @property
    def undone(self) -> list[str]:
        """The names of the steps that were undone, in that order."""
        return [name.removeprefix("undo:") for name in self._completed() if name.startswith("undo:")]

    def _completed(self) -> list[str]:
        forgotten = {seq for entry in self.entries if isinstance(entry, e.Reopened) for seq in entry.discarded}
        return [
            record.entry.step.split("#")[0]
            for record in self._records
            if isinstance(record.entry, e.StepCompleted) and record.seq not in forgotten
        ]

    def runs(self) -> list[list[e.Record]]:
        """The records of each run: a process that continued as new has several."""
        found: list[list[e.Record]] = []
        for record in self._records:
            if isinstance(record.entry, e.Started):
                found.append([])
            found[-1].append(record)
        return found

    @property
    def process(self) -> str:
        """The name of the process it is a journal of."""
        first = self._records[0].entry if self._records else None
        return first.process if isinstance(first, e.Started) else ""


def read(source: Any, id: str | None = None, namespace: str = "default") -> list[Journal]:
    """Journals from a `Journal`, from records, or from an export: a path, or its text.

    `id` and `namespace` are the instance's, where bare records don't say it. Raises `InvalidValue`.
    """
    if isinstance(source, Journal):
        return [source]
    if isinstance(source, Path):
        return _exported(source.read_bytes(), str(source))
    if isinstance(source, str | bytes):
        return _exported(source.encode() if isinstance(source, str) else source, "the export")
    return [Journal(source, id or "stored", namespace)]


def _exported(text: bytes, name: str) -> list[Journal]:
    found = archive.read(text.splitlines(), name)
    return [Journal(item.journal, item.header.id, item.header.namespace) for item in found]


def step_name(step: Any) -> str:
    """The name of a step in journals."""
    return step.name if isinstance(step, Step) else str(step)


def _line(record: e.Record) -> str:
    at = datetime.fromtimestamp(record.at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    fields = json.loads(e.encode(record.entry))
    fields.pop("kind")
    error = fields.get("error")
    if isinstance(error, dict):
        fields["error"] = f"{error['type'].split(':')[-1]}: {error.get('message', '')}"
    said = " ".join(f"{name}={_short(value)}" for name, value in fields.items() if name != "arguments")
    return f"{record.seq:>4}  {at}  {e.kind(record.entry):<16} {said}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 100 else text[:97] + "..."
