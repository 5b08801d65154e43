"""PgBouncer in front of a PostgreSQL server."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from dalsegno.testing.ports import free_port
from dalsegno.testing.servers.errors import ServerFailed, ServerMissing
from dalsegno.testing.servers.place import Place, program

_HOST = "127.0.0.1"
_SECONDS = 30
_PORTS_TRIED = 5


class PgBouncer:
    """A pool of connections to all databases of the server that a URL names; needs no password of it.

    Settings go by PgBouncer's names.
    """

    def __init__(
        self,
        target_url: str,
        pool_mode: Literal["session", "transaction", "statement"] = "transaction",
        *,
        parent: Path | None = None,
        **settings: str | int,
    ) -> None:
        """`parent` is where the folder is made: the system's place for temporary files without.

        As root, the server runs as another user, who must be able to enter it.
        """
        target = urlsplit(target_url)
        self.host = _HOST
        self._target = f"host={target.hostname} port={target.port or 5432}"
        self._user = target.username or "postgres"
        self._database = target.path.lstrip("/") or "postgres"
        self._settings: dict[str, str | int] = {
            "pool_mode": pool_mode,
            "max_client_conn": 1000,
            "default_pool_size": 20,
            # Drivers send it; it isn't a matter of the pool.
            "ignore_startup_parameters": "extra_float_digits",
            **settings,
        }
        found = program("pgbouncer")
        if found is None:
            raise ServerMissing(
                "tests need PgBouncer: `make servers` installs it in a checkout, `apt-get install pgbouncer` elsewhere"
            )
        self._program = found
        self._parent = parent
        self._place: Place | None = None
        self._port = 0

    @property
    def pid(self) -> int:
        """The running server's process id."""
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

    def url(self, database: str = "") -> str:
        """The URL of a database through the pool: the target's own without a name."""
        return f"postgresql://{self._user}@{_HOST}:{self.port}/{database or self._database}"

    def log_tail(self) -> str:
        """The end of what it logged."""
        return self._there().log_tail()

    def start(self) -> Self:
        """Start it and wait until it takes connections."""
        if self.running:
            return self
        if self._place is not None:
            self._launch()
            return self
        self._place = Place(self._parent)
        try:
            self._start_first()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Stop it at once: all connections through it break."""
        self._there().stop(signal.SIGTERM, _SECONDS)

    def restart(self) -> None:
        """Stop it and start it under the same address."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it if it runs, and remove its folder."""
        place, self._place = self._place, None
        if place is not None:
            place.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _there(self) -> Place:
        if self._place is None:
            raise ServerFailed("the server wasn't started, or is closed")
        return self._place

    def _start_first(self) -> None:
        for tries_left in reversed(range(_PORTS_TRIED)):
            self._port = free_port()
            try:
                self._launch()
                return
            except ServerFailed as error:
                if tries_left == 0 or "Address already in use" not in str(error):
                    raise

    def _launch(self) -> None:
        place = self._there()
        users = place.write("users.txt", f'"{self._user}" ""\n')
        settings = {
            **self._settings,
            "listen_addr": _HOST,
            "listen_port": self._port,
            "unix_socket_dir": place.folder,
            "auth_type": "trust",
            "auth_file": users,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        text = "\n".join(["[databases]", f"* = {self._target}", "[pgbouncer]", *lines, ""])
        place.start([self._program, place.write("pgbouncer.ini", text)], self._ready, _SECONDS)

    def _ready(self, _pid: int) -> bool:
        # The socket has its own process's folder: another program that took the port meanwhile isn't mistaken for it.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._there().folder / f".s.PGSQL.{self._port}")) == 0
