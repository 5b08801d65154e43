"""Starts and stops the operating-system processes of the demo."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import msgspec
from examples.order_to_cash.clients import Endpoints
from examples.order_to_cash.world.faults import Faults

ROOT = Path(__file__).parents[2]
SERVICES = ("crm", "erp", "payments", "shipping")
READY_WITHIN = 20.0
STOPPED_WITHIN = 10.0
BACKLOG = 1024


class ProcessDied(Exception):
    """A process that should run has ended."""


def listening_socket() -> socket.socket:
    """A socket on a free port: it listens before its process runs, and goes on while that is restarted."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen(BACKLOG)
    return found


def url_of(listening: socket.socket) -> str:
    """The address a listening socket is reached at."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


class Child:
    """A Python module that runs as a process of its own; it ends when this process does."""

    def __init__(self, name: str, module: str, arguments: list[str], logs: Path, sockets: tuple[int, ...] = ()) -> None:
        self.name = name
        self._log = logs / f"{name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"examples.order_to_cash.{module}", *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,  # its lifeline
                stdout=log,
                stderr=log,
                pass_fds=sockets,
            )

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise if it has ended."""
        if self.exit_code is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise ProcessDied(f"{self.name} ended with exit code {self.exit_code}; its last words:\n{tail}")

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()


class World:
    """The four services as four processes, each with a database in one directory."""

    def __init__(self, directory: Path, faults: Mapping[str, Faults], callbacks_to: str = "") -> None:
        self.directory = directory
        self._faults, self._callbacks_to = faults, callbacks_to
        self._sockets = {name: listening_socket() for name in SERVICES}
        self._children: list[Child] = []
        self._http = httpx2.Client(timeout=10, trust_env=False)

    @property
    def endpoints(self) -> Endpoints:
        """Where the services are."""
        return Endpoints(**{name: self._url(name) for name in SERVICES})

    def __enter__(self) -> Self:
        try:
            self._children = [self._start(name) for name in SERVICES]
            for child in self._children:
                self._await_ready(child)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def database(self, name: str) -> Path:
        """The file of a service's database."""
        return self.directory / f"{name}.db"

    def check(self) -> None:
        """Raise if a service has ended."""
        for child in self._children:
            child.check()

    def outage(self, name: str, seconds: float) -> None:
        """Let a service fail from now on for so long."""
        self._http.post(f"{self._url(name)}/outage", params={"seconds": seconds}).raise_for_status()

    def stats(self) -> dict[str, dict[str, int]]:
        """What each service counted so far."""
        answers = {name: self._http.get(f"{self._url(name)}/stats") for name in SERVICES}
        return {name: msgspec.json.decode(answer.content) for name, answer in answers.items()}

    def stop(self) -> None:
        """End the services."""
        for child in self._children:
            child.stop()
        for listening in self._sockets.values():
            listening.close()
        self._children = []
        self._http.close()

    def _url(self, name: str) -> str:
        return url_of(self._sockets[name])

    def _start(self, name: str) -> Child:
        descriptor = self._sockets[name].fileno()
        faults = msgspec.json.encode(self._faults.get(name, Faults())).decode()
        arguments = ["--socket", str(descriptor), "--database", str(self.database(name)), "--faults", faults]
        if self._callbacks_to:
            arguments += ["--callbacks-to", self._callbacks_to]
        return Child(name, f"world.{name}", arguments, self.directory, (descriptor,))

    def _await_ready(self, child: Child) -> None:
        """Wait for an answer: the socket listens already, so that a request waits for its service."""
        deadline = time.monotonic() + READY_WITHIN
        url = self._url(child.name) + "/health"
        while True:
            child.check()
            try:
                self._http.get(url, timeout=0.5).raise_for_status()
            except httpx2.HTTPError:
                if time.monotonic() > deadline:
                    raise ProcessDied(f"{child.name} is not ready after {READY_WITHIN:.0f} s") from None
            else:
                return
