"""What the tests of the engine stand on: async tests with a bound, and an App on a file of its own.

Every finished instance is replayed twice: by the node (shadow replay), and here from each prefix of its journal, as
after a crash at each entry. A test whose process isn't deterministic fails whatever it asserts.
"""

import asyncio
import contextlib
import inspect
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dalsegno import App, DefinitionError
from dalsegno.authoring.declared import _declared, declare
from dalsegno.authoring.process import Process
from dalsegno.engine.residents import records
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.ports import FINAL, Filter, Loaded
from dalsegno.stores.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from dalsegno.testing.servers import PostgresServer

_TEST_SECONDS = 60
_PREFIXES = 40
_RAM = Path("/dev/shm")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test on a loop of its own; one that hangs fails."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def bounded() -> None:
        async with asyncio.timeout(_TEST_SECONDS):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture
def until() -> Callable[..., Awaitable[Any]]:
    """`await until(probe)`: ask again until the answer is true; the test fails after some seconds."""

    async def wait(probe: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
        async with asyncio.timeout(timeout_seconds):
            while True:
                answer = probe()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(0.002)

    return wait


class OpenApp:
    """`async with open_app() as app:` opens an App on this test's file, again after a close: a restart."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "test.db"
        self._checked: set[tuple[int, int]] = set()

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @contextlib.asynccontextmanager
    async def __call__(self, *, deterministic: bool = True, **options: Any) -> AsyncIterator[App]:
        """`deterministic=False` for tests that replace a process's code under its journals."""
        # Nobody cuts the power here: commits that need no sync make the tests several times faster.
        store = options.pop("store", None) or SqliteStore(str(self.path), "process")
        app = App(store, shadow_replay=deterministic, **options)
        async with app:
            yield app
        assert list(app.shadow_failures) == []
        if deterministic:
            await self._replay_every_prefix(app)

    async def _replay_every_prefix(self, app: App) -> None:
        store = SqliteStore(str(self.path))
        await store.open(owner=False, name="replay", lease_seconds=0)
        try:
            rows = await store.listing(Filter(statuses=tuple(FINAL)), None, 100)
            for item in await store.load([row.key for row in rows]):
                if (item.row.key, item.row.run) not in self._checked:
                    self._checked.add((item.row.key, item.row.run))
                    _replay_prefixes(app, item)
        finally:
            await store.close()


def _replay_prefixes(app: App, item: Loaded) -> None:
    try:
        spec = app.process(item.row.process, item.row.version)
    except DefinitionError:
        return
    journal = records(item.journal)
    for length in range(1, min(len(journal), _PREFIXES) + 1):
        execution = Execution(spec, item.row.namespace, item.row.id, app.limits)
        try:
            execution.replay(journal[:length])
        finally:
            execution.drop()


@pytest.fixture(autouse=True)
def declarations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Its own module's processes are what a test means; what it declares is gone after it."""
    before = dict(_declared)
    for value in vars(request.module).values():
        if isinstance(value, Process):
            declare(value)
    yield
    _declared.clear()
    _declared.update(before)


@pytest.fixture
def open_app() -> Iterator[OpenApp]:
    # A real file, in memory where the system has a place for that: hundreds of small databases are made here.
    with tempfile.TemporaryDirectory(dir=_RAM if _RAM.is_dir() else None) as folder:
        yield OpenApp(Path(folder))


@pytest.fixture(scope="session")
def postgres() -> "Iterator[PostgresServer]":
    """One PostgreSQL server for all tests of this run, started by the first that asks."""
    # Here, so that tests without a server don't pay for it.
    from dalsegno.testing.servers import PostgresServer

    # Nobody cuts the power here either. A killed server loses nothing all the same.
    with PostgresServer(fsync=False, max_connections=300) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: "PostgresServer") -> Iterator[str]:
    """A fresh database for one test."""
    yield from _fresh_database(postgres)


@pytest.fixture(scope="class")
def postgres_class_url(postgres: "PostgresServer") -> Iterator[str]:
    """A fresh database for the tests of one class."""
    yield from _fresh_database(postgres)


def _fresh_database(server: "PostgresServer") -> Iterator[str]:
    url = server.create_database()
    yield url
    if server.running:
        server.drop_database(url.rpartition("/")[2])
