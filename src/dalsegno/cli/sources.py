"""Which source files changed since the last look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
_State = dict[Path, tuple[int, int]]


class Sources:
    """The Python files below a folder; a look costs a `stat` of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = self._look()

    def changed(self) -> list[Path]:
        """Files that are new, changed or gone since the last call."""
        before, self._state = self._state, self._look()
        every = before.keys() | self._state.keys()
        return sorted(path for path in every if before.get(path) != self._state.get(path))

    def _look(self) -> _State:
        found: _State = {}
        for path in self._files():
            try:
                status = path.stat()
            except OSError:
                # It went between the listing and the look.
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def _files(self) -> Iterator[Path]:
        for here, folders, files in os.walk(self._folder):
            # Not hidden ones, not what tools made, not virtual environments.
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".")
                and name not in _SKIPPED
                and not os.path.exists(os.path.join(here, name, "pyvenv.cfg"))
            ]
            yield from (Path(here, name) for name in files if name.endswith(".py"))
