"""A PostgreSQL server of one's own: a cluster in a temporary folder, on a free port and on a unix socket."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from dalsegno.testing.ports import free_port
from dalsegno.testing.servers.errors import ServerFailed, ServerMissing
from dalsegno.testing.servers.place import Place, program

OLDEST_VERSION = 14

_HOST = "127.0.0.1"
_USER = "postgres"
_NEEDED = ("initdb", "pg_basebackup", "postgres", "psql")
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SECONDS = 60
_PORTS_TRIED = 5

Setting = str | int | bool
Stop = Literal["fast", "immediate"]


class PostgresServer:
    """A server whose data is gone with it. Anyone on this machine may connect.

    Settings go by PostgreSQL's names. What was committed is synced to disk as in production, unless `fsync=False`.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        fsync: bool = True,
        shared_buffers: str = "128MB",
        parent: Path | None = None,
        **settings: Setting,
    ) -> None:
        """`parent` is where the folder is made: the system's place for temporary files without.

        As root, the server runs as another user, who must be able to enter it.
        """
        self.settings: dict[str, Setting] = {
            "max_connections": max_connections,
            "fsync": fsync,
            "shared_buffers": shared_buffers,
            **settings,
        }
        self.host = _HOST
        self.user = _USER
        self._bin = _programs()
        self._parent = parent
        self._place: Place | None = None
        self._port = 0
        self._primary: PostgresServer | None = None
        self._synchronous = False
        self._names = (f"database_{number}" for number in itertools.count(1))
        self._templates: dict[str, str] = {}

    @classmethod
    def standby_of(cls, primary: PostgresServer, *, synchronous: bool = True, parent: Path | None = None) -> Self:
        """A copy that follows a running primary; not started yet.

        Once it has started, with `synchronous` each commit of the primary waits for it: also where it is stopped, until
        it is closed.
        """
        standby = cls(parent=parent)
        standby.settings = dict(primary.settings)
        standby._primary = primary
        standby._synchronous = synchronous
        return standby

    @property
    def pid(self) -> int:
        """The process id of the running server's first process."""
        return self._there().pid

    @property
    def running(self) -> bool:
        """Whether it was started and hasn't stopped."""
        return self._place is not None and self._place.running

    @property
    def port(self) -> int:
        """Its port: the same after a restart."""
        self._there()
        return self._port

    @property
    def socket_folder(self) -> Path:
        """The folder of its unix socket: a `host` for libpq."""
        return self._there().folder

    @property
    def version(self) -> int:
        """Its major version."""
        return _version(self._bin) or 0

    def url(self, database: str = "postgres") -> str:
        """The URL of a database, there or not."""
        return f"postgresql://{_USER}@{_HOST}:{self.port}/{database}"

    def log_tail(self) -> str:
        """The end of what it logged."""
        return self._there().log_tail()

    def start(self) -> Self:
        """Start it and wait until it takes connections; the first start makes the cluster."""
        if self.running:
            return self
        if self._place is not None:
            self._launch()
            return self
        self._place = Place(self._parent)
        try:
            self._start_first()
            if self._primary is not None and self._synchronous:
                self._follow(self._primary)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self, mode: Stop = "fast") -> None:
        """Stop it, data kept: `fast` ends its connections, `immediate` is a crash to recover from."""
        self._there().stop(_SIGNALS[mode], _SECONDS)

    def restart(self, mode: Stop = "fast") -> None:
        """Stop it and start it under the same address."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it if it runs, and remove its data."""
        place, self._place = self._place, None
        if place is None:
            return
        primary, self._primary = self._primary, None
        if primary is not None and primary.running and self._synchronous:
            # Its commits would wait for ever.
            primary.query("alter system reset synchronous_standby_names")
            primary.query("select pg_reload_conf()")
        place.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def query(self, sql: str, database: str = "postgres") -> str:
        """What psql prints for some SQL: columns with `|` between them, a line for each row."""
        place = self._there()
        address: list[str | Path] = ["-h", place.folder, "-p", str(self._port), "-U", _USER, "-d", database]
        return place.run([self._bin / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *address, "-c", sql]).rstrip("\n")

    def create_database(self, name: str = "", *, template: str = "") -> str:
        """Make a database, with a name of its own if none is given; returns its URL."""
        name = name or next(self._names)
        self.query(f"create database {_quoted(name)} template {_quoted(template or 'template1')}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, used or not."""
        self.query(f"drop database if exists {_quoted(name)} with (force)")

    def template(self, name: str, prepare: Callable[[str], object]) -> str:
        """A database to copy others from: at the first call of a name it is made, and `prepare` called with its URL.

        `prepare` must leave no connection open.
        """
        if name not in self._templates:
            url = self.create_database(name)
            prepare(url)
            self._templates[name] = url
        return name

    def kill_backends(self, database: str = "") -> int:
        """End all connections of clients, or those to one database; returns how many there were."""
        only = f"and datname = '{database}'" if database else ""
        return int(
            self.query(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                f" where backend_type = 'client backend' and pid <> pg_backend_pid() {only}"
            )
        )

    def promote(self) -> None:
        """Make a standby a primary; the old primary isn't told."""
        self.query(f"select pg_promote(true, {_SECONDS})")
        self._primary = None

    def _there(self) -> Place:
        if self._place is None:
            raise ServerFailed("the server wasn't started, or is closed")
        return self._place

    @property
    def _data(self) -> Path:
        return self._there().folder / "data"

    def _start_first(self) -> None:
        self._make_data()
        for tries_left in reversed(range(_PORTS_TRIED)):
            self._port = free_port()
            try:
                self._launch()
                return
            except ServerFailed as error:
                if tries_left == 0 or "Address already in use" not in str(error):
                    raise

    def _make_data(self) -> None:
        place = self._there()
        if self._primary is None:
            options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={_USER}"]
            place.run([self._bin / "initdb", *options, "-D", self._data])
            return
        source: list[str | Path] = ["-h", self._primary.socket_folder, "-p", str(self._primary.port), "-U", _USER]
        options = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
        place.run([self._bin / "pg_basebackup", *source, *options, "-D", self._data])
        # Copied from a primary that has a synchronous standby already: this one, promoted, would wait for it.
        copied = self._data / "postgresql.auto.conf"
        lines = copied.read_text().splitlines(keepends=True)
        copied.write_text("".join(line for line in lines if not line.startswith("synchronous_standby_names")))
        self.settings["primary_conninfo"] = (
            f"host={_HOST} port={self._primary.port} user={_USER} application_name={_standby_name(place)}"
        )

    def _launch(self) -> None:
        place = self._there()
        settings: dict[str, Setting] = {
            **self.settings,
            "listen_addresses": _HOST,
            "port": self._port,
            "unix_socket_directories": str(place.folder),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={_written(value)}")]
        place.start([self._bin / "postgres", "-D", self._data, *options], self._ready, _SECONDS)

    def _ready(self, pid: int) -> bool:
        # What pg_ctl looks at too: the server writes its state into this file's eighth line.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _follow(self, primary: PostgresServer) -> None:
        name = _standby_name(self._there())
        primary.query(f"alter system set synchronous_standby_names = '{name}'")
        primary.query("select pg_reload_conf()")
        until = time.monotonic() + _SECONDS
        state = f"select sync_state from pg_stat_replication where application_name = '{name}'"
        while primary.query(state) != "sync":
            if time.monotonic() > until:
                raise ServerFailed(f"the standby doesn't follow after {_SECONDS} s:\n{self.log_tail()}")
            time.sleep(0.02)


def _standby_name(place: Place) -> str:
    return "standby_" + re.sub(r"\W", "_", place.folder.name.rpartition("-")[2])


def _written(value: Setting) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@cache
def _programs() -> Path:
    candidates = [path for pattern in _FOLDERS for path in Path("/").glob(pattern[1:])]
    pg_config = program("pg_config")
    if pg_config is not None:
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(told.stdout.strip()))
    postgres = program("postgres")
    if postgres is not None:
        candidates.append(postgres.parent)
    versions = {folder: _version(folder) for folder in candidates if all((folder / name).exists() for name in _NEEDED)}
    newest = max(versions, key=lambda folder: versions[folder], default=None)
    if newest is None or versions[newest] < OLDEST_VERSION:
        found = f"only version {versions[newest]}" if newest is not None else "none"
        raise ServerMissing(
            f"tests need the programs of PostgreSQL {OLDEST_VERSION} or newer, and there is {found}: "
            "`make servers` installs them in a checkout, `apt-get install postgresql` elsewhere"
        )
    return newest


@cache
def _version(folder: Path) -> int:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+", told)
    return int(found[0]) if found else 0
