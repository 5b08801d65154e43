"""Power cuts: a run whose writes are written down, and the files that cuts along it would have left."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from random import Random

import msgspec
from tests.reliability import workload
from tests.reliability.kills import Round, Strike

from dalsegno.testing.chaos import Cuts, Record, read_log
from dalsegno.testing.check import Call, Dump, History
from dalsegno.testing.check_journal import check_journal
from dalsegno.testing.evidence import calls_of, dump_of

_BASE = "x.db"


class PowerTally(msgspec.Struct):
    """What cuts came to."""

    runs: int = 0
    writes: int = 0
    syncs: int = 0
    images: int = 0
    acknowledged: int = 0
    resumed: int = 0
    violations: list[str] = []

    def add(self, other: PowerTally) -> None:
        """Count another one's figures in."""
        for name in ("runs", "writes", "syncs", "images", "acknowledged", "resumed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.violations = [*self.violations, *other.violations]


class PowerRound:
    """One run with its writes written down, then many cuts along it.

    Parameters: `socket_path` of the witness; `images`, how many cuts; `resumed`, on how many of them the engine
    goes on to the end; `fail_sync`, a sync that fails before the power does.
    """

    def __init__(self, socket_path: str, seed: int, images: int, resumed: int, fail_sync: int = 0) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.images = images
        self.resumed = resumed
        self._socket_path = socket_path
        self._round = Round(socket_path, seed, [])
        self._round.beside = []
        log = str(self._round.folder / "disk-log")
        pages = self.chance.choice([0, 8, 40])
        self._round.strikes = [Strike("", 0, fail_sync=fail_sync, disk_log=log, checkpoint_pages=pages)]
        self.tally = PowerTally(runs=1)

    def run(self) -> PowerTally:
        """Run, cut, look; the tally holds the violations."""
        try:
            self._round.live_all()
            self.tally.violations += self._round.tally.violations
            if not self.tally.violations:
                self._cut_all()
        finally:
            self._round.clear()
        return self.tally

    def _cut_all(self) -> None:
        log = read_log(self._round.folder / "disk-log")
        self.tally.writes = sum(record.kind == "W" for record in log)
        self.tally.syncs = sum(record.kind == "S" for record in log)
        cuts = Cuts([r for r in log if not _is_calls(r)], self.chance)
        places = sorted(self.chance.choices(range(1, len(log) + 1), k=self.images))
        goes_on = set(self.chance.sample(range(len(places)), min(self.resumed, len(places))))
        for number, place in enumerate(places):
            known = sum(not _is_calls(record) for record in log[:place])
            self._look(cuts.at(known), _told(log[:place]), number in goes_on)

    def _look(self, files: dict[str, bytes], told: str, goes_on: bool) -> None:
        self.tally.images += 1
        with tempfile.TemporaryDirectory(prefix="dalsegno-power-") as name:
            folder = Path(name)
            for path, content in files.items():
                (folder / Path(path).name).write_bytes(content)
            found = self._violations(folder, calls_of(told))
        self.tally.violations += [f"seed {self.seed}, image {self.tally.images}: {text}" for text in found]
        if goes_on and not found:
            self._go_on(files, told)

    def _violations(self, folder: Path, calls: list[Call]) -> list[str]:
        try:
            if (folder / _BASE).exists():
                connection = sqlite3.connect(folder / _BASE)
                [answer] = connection.execute("PRAGMA integrity_check").fetchone()
                connection.close()
                if answer != "ok":
                    return [f"I1 the file is not sound: {answer}"]
            dump = dump_of(folder / _BASE)
        except sqlite3.Error as error:
            return [f"I1 the file can't be read: {error!r}"]
        for call in calls:
            call.life = 0
        self.tally.acknowledged += sum(call.outcome == "ok" for call in calls)
        history = History([dump], [], calls, workload.UNDOABLE, workload.FLAT)
        found = [*history.acknowledged(), *history.booked(), *self._beyond(dump)]
        for id, journal in history.journals.items():
            found += check_journal(id, journal)
        return found

    def _beyond(self, dump: Dump) -> list[str]:
        """What was cut off is the end of the story, nothing in its middle."""
        whole = self._round.dumps[-1].journals
        return [
            f"I2 the journal of {id!r} after the cut is no beginning of the whole one"
            for id, rows in dump.journals.items()
            if whole.get(id, [])[: len(rows)] != rows
        ]

    def _go_on(self, files: dict[str, bytes], told: str) -> None:
        """The engine starts on what the cut left, and finishes."""
        after = Round(self._socket_path, self.seed, [], self._round.goals)
        for path, content in files.items():
            (after.folder / Path(path).name).write_bytes(content)
        for mark in self._round.folder.glob("repaired-*"):
            (after.folder / mark.name).touch()
        (after.folder / f"{_BASE}-calls-inside-0").write_text(told)
        try:
            after.dumps.append(dump_of(after.folder / _BASE))
            after.live_all()
        finally:
            after.clear()
        self.tally.resumed += 1
        self.tally.violations += [f"after a cut: {text}" for text in after.tally.violations]


def _is_calls(record: Record) -> bool:
    return f"{_BASE}-calls" in record.path


def _told(log: list[Record]) -> str:
    """What clients had been told by then."""
    return b"".join(record.data for record in log if record.kind == "W" and _is_calls(record)).decode()
