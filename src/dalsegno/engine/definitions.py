"""Which processes this node has code for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

from dalsegno.errors import DefinitionError
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.ports import InstanceRow

_log = logging.getLogger("dalsegno.engine")


class Definitions:
    """Processes by name and version."""

    def __init__(self, specs: Iterable[ProcessSpec]) -> None:
        self._specs: dict[tuple[str, int], ProcessSpec] = {}
        self._missed: set[tuple[str, int]] = set()
        for spec in specs:
            self.add(spec)

    def add(self, spec: ProcessSpec) -> None:
        """Know a process; the last one declared under a name and version counts."""
        self._specs[spec.name, spec.version] = spec

    def find(self, name: str, version: int) -> ProcessSpec | None:
        """The process of a name and version."""
        return self._specs.get((name, version))

    @property
    def codes(self) -> Collection[tuple[str, int]]:
        """Name and version of each."""
        return self._specs.keys()

    def latest(self, name: str) -> ProcessSpec:
        """The newest version of a process. Raises `DefinitionError`."""
        versions = [spec for (known, _), spec in self._specs.items() if known == name]
        if not versions:
            known_names = ", ".join(sorted({n for n, _ in self._specs})) or "none"
            raise DefinitionError(f"no process is called {name!r} here; known: {known_names}")
        return max(versions, key=lambda spec: spec.version)

    def miss(self, row: InstanceRow) -> None:
        """Say once that instances of a process wait for a node that has its code."""
        if (row.process, row.version) not in self._missed:
            self._missed.add((row.process, row.version))
            _log.warning(
                "instance %r needs process %r version %d, which has no code here: it waits for a node that has",
                row.id,
                row.process,
                row.version,
            )

    def __iter__(self) -> Iterator[ProcessSpec]:
        return iter(self._specs.values())
