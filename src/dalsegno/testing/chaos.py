"""A disk that can lose what was not synced, fail a sync, or be full: for programs started with it preloaded.

    library = chaos.build(folder)                       # needs a C compiler, called `cc`
    subprocess.run(command, env={**os.environ, "LD_PRELOAD": library})

and in that program `chaos.arm(prefix, …)`; afterwards `chaos.Cuts(log)` rebuilds what power cuts would have left.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from random import Random
from typing import NamedTuple

SECTOR_BYTES = 512
_HEADER = struct.Struct("<cHqq")


def build(folder: Path) -> str:
    """Compile the library into a folder; returns its path. Raises `FileNotFoundError` without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler is called `cc` here: install one to test power cuts")
    source = folder / "chaos.c"
    source.write_text(resources.files("dalsegno.testing").joinpath("chaos.c").read_text())
    library = folder / "chaos.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return str(library)


def arm(prefix: str, *, log: str = "", fail_sync: int = 0, full_after: int = -1) -> None:
    """Begin, for the files whose paths begin so. Raises `RuntimeError` where the library isn't preloaded.

    Parameters: `log`, where writes are written down; `fail_sync`, which sync fails, counted from 1; `full_after`,
    how many bytes may be written.
    """
    library = ctypes.CDLL(None)
    try:
        begin = library.chaos_arm
    except AttributeError:
        raise RuntimeError("start this program with LD_PRELOAD set to what chaos.build() returned") from None
    begin.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long, ctypes.c_longlong)
    begin(os.fsencode(prefix), os.fsencode(log), fail_sync, full_after)


class Record(NamedTuple):
    """Something that was done to a file: W(rite), T(runcate), S(ync), E (a sync that failed), U(nlink)."""

    kind: str
    path: str
    offset: int
    data: bytes


def read_log(path: Path) -> list[Record]:
    """What was written down, in order."""
    return list(_records(path.read_bytes()))


def _records(log: bytes) -> Iterator[Record]:
    place = 0
    while place + _HEADER.size <= len(log):
        kind, name_length, offset, length = _HEADER.unpack_from(log, place)
        place += _HEADER.size
        name = os.fsdecode(log[place : place + name_length])
        place += name_length
        data = log[place : place + length] if kind == b"W" else b""
        place += len(data)
        yield Record(kind.decode(), name, offset, data)


class Cuts:
    """Power cuts along a log: files as they may look afterwards.

    What was synced is there. Of what was written since, each write is there, or not, or in part by sectors. A file
    that was removed may be back until anything is synced: a file system commits its names in order.
    """

    def __init__(self, log: list[Record], chance: Random) -> None:
        self._log = log
        self._chance = chance
        self._place = 0
        self._synced: dict[str, bytearray] = {}
        self._pending: dict[str, list[Record]] = {}
        self._removed: set[str] = set()

    def at(self, place: int) -> dict[str, bytes]:
        """The files after a cut behind the given number of records; places must not decrease."""
        for record in self._log[self._place : place]:
            self._do(record)
        self._place = max(self._place, place)
        back = {path for path in sorted(self._removed) if self._chance.random() < 0.5}
        paths = sorted({*self._synced, *self._pending} - (self._removed - back))
        return {path: bytes(data) for path in paths if (data := self._left(path))}

    def _do(self, record: Record) -> None:
        path = record.path
        pending = self._pending.setdefault(path, [])
        if record.kind == "S":
            content = self._synced.setdefault(path, bytearray())
            for one in pending:
                _apply(content, one)
            pending.clear()
            for removed in self._removed - {path}:
                self._synced.pop(removed, None)
                self._pending.pop(removed, None)
            self._removed.clear()
        elif record.kind == "E":
            # The system thinks these pages written now: what the disk didn't take is lost for good.
            pending[:] = [one for one in pending if self._chance.random() < 0.5]
        elif record.kind == "U":
            self._removed.add(path)
        else:
            if path in self._removed:
                # A new file of the same name.
                self._removed.discard(path)
                self._synced.pop(path, None)
                pending.clear()
            pending.append(record)

    def _left(self, path: str) -> bytearray:
        content = bytearray(self._synced.get(path, b""))
        mood = self._chance.choice(("nothing", "prefix", "anything"))
        pending = self._pending.get(path, [])
        if mood == "prefix":
            pending = pending[: self._chance.randint(0, len(pending))]
        for record in pending if mood != "nothing" else ():
            if mood == "prefix" or self._chance.random() < 0.5:
                _apply(content, record)
            elif record.kind == "W" and self._chance.random() < 0.5:
                self._tear(content, record)
        return content

    def _tear(self, content: bytearray, record: Record) -> None:
        for start in range(0, len(record.data), SECTOR_BYTES):
            if self._chance.random() < 0.5:
                part = record.data[start : start + SECTOR_BYTES]
                _apply(content, Record("W", record.path, record.offset + start, part))


def _apply(content: bytearray, record: Record) -> None:
    if record.kind == "T":
        del content[record.offset :]
        return
    missing = record.offset - len(content)
    if missing > 0:
        content.extend(bytes(missing))
    content[record.offset : record.offset + len(record.data)] = record.data
