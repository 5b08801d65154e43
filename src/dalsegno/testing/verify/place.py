"""Where a run takes place: a folder for what the witnesses write, and a store of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from dalsegno.testing.check import Dump
from dalsegno.testing.evidence import dump_of


class Place:
    """A SQLite file in a new folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dalsegno-verify-"))
        self.database = self.folder / "x.db"
        self.url = f"sqlite:///{self.database}"

    def dump(self) -> Dump:
        """What lies in the store, read past the engine."""
        return dump_of(self.database)

    def set_life(self, number: int) -> None:
        """Tell the witnesses which life it is."""
        part = self.folder / "life.part"
        part.write_text(str(number))
        part.rename(self.folder / "life")

    def clear(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
