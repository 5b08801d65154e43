"""The memory store passes the suite."""

from __future__ import annotations

from typing import cast

import pytest

from dalsegno.kernel.ports import Store
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing.store_suite import Place, StoreSuite


class MemoryPlace:
    """A disk in memory."""

    def __init__(self) -> None:
        self._disk = Disk()

    def store(self) -> Store:
        return cast("Store", MemoryStore(self._disk))

    async def kill(self, store: Store) -> None:
        cast("MemoryStore", store).crash()


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def place(self) -> Place:
        return MemoryPlace()
