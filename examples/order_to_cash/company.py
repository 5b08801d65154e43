"""The company's own processes: the engine and the finance department, on one store."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from examples.order_to_cash.clients import Endpoints
from examples.order_to_cash.supervisor import Child, listening_socket, url_of
from examples.order_to_cash.webhook import PATH


class Company:
    """An engine that can be killed and started again, and somebody who answers its questions."""

    def __init__(self, directory: Path, orders: Path, limit: int, seed: int) -> None:
        self._directory, self._orders, self._limit, self._seed = directory, orders, limit, seed
        self._listening = listening_socket()
        self._children: dict[str, Child] = {}
        self.store = f"sqlite:///{directory / 'dalsegno.db'}"
        self.callbacks_to = url_of(self._listening) + PATH

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.stop()
        self._listening.close()

    @property
    def engine(self) -> Child:
        """The engine's process."""
        return self._children["engine"]

    def start_engine(self, endpoints: Endpoints) -> None:
        """Start the engine, for the first time or again."""
        descriptor = self._listening.fileno()
        arguments = {
            "--store": self.store,
            "--orders": str(self._orders.resolve()),
            "--limit": str(self._limit),
            "--endpoints": msgspec.json.encode(endpoints).decode(),
            "--socket": str(descriptor),
        }
        self._children["engine"] = self._start("engine", arguments, (descriptor,))

    def start_approver(self) -> None:
        """Let finance begin its day."""
        self._children["approver"] = self._start("approver", {"--store": self.store, "--seed": str(self._seed)})

    def check(self) -> None:
        """Raise if a process ended that should not have."""
        for name, child in self._children.items():
            if name != "engine" or child.exit_code:
                child.check()

    def _start(self, name: str, arguments: dict[str, str], sockets: tuple[int, ...] = ()) -> Child:
        words = [word for pair in arguments.items() for word in pair]
        return Child(name, name, words, self._directory, sockets)
