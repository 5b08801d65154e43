"""The command line as tests use it: in this process where speed matters, as a program where the program is meant."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dalsegno import App
from dalsegno.cli import main

SHOP = Path(__file__).with_name("cli_shop.py")
PROGRAM = [sys.executable, "-m", "dalsegno.cli"]
_PATIENCE_SECONDS = 20.0


def eventually(probe: Callable[[], Any]) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def open_shop(folder: Path) -> Path:
    """A folder with the shop in it."""
    shutil.copy(SHOP, folder / "shop.py")
    return folder


def empty_store(path: Path) -> None:
    """A store that a node has opened and closed."""

    async def opened() -> None:
        async with App(f"sqlite:///{path}", processes=[]):
            pass

    asyncio.run(opened())


def environment(**more: str) -> dict[str, str]:
    """The environment without what this shell happens to have set for the program."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DALSEGNO_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def program(
    folder: Path, *arguments: str, stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`dalsegno …` as a program, in a folder."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(folder: Path, *arguments: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A program that goes on running; it has said `until` once this begins, and is gone once it ends."""
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(
            [*PROGRAM, *arguments], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        # Nothing that is waited for takes so long: rather a failure than a test that hangs.
        fuse = threading.Timer(_PATIENCE_SECONDS * 2, process.kill)
        fuse.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if until in line:
                    break
            else:
                pytest.fail(f"it ended before it said {until!r}: {(folder / 'log').read_text()}")
            yield process
        finally:
            fuse.cancel()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


class Node(NamedTuple):
    """A node that runs as a program in a folder, on the store shop.db."""

    folder: Path
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path) -> Iterator[Node]:
    """A folder with the shop, and the node that runs there."""
    open_shop(folder)
    with running(folder, "node", "shop.py", until="running") as process:
        yield Node(folder, process)


def beside(node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process, beside a node."""
    assert node.process.poll() is None, (node.folder / "log").read_text()
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(node.folder)
    monkeypatch.setenv("DALSEGNO_STORE", "shop.db")
    return found


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process, as if nobody had loaded a shop before."""
    for name in [name for name in os.environ if name.startswith("DALSEGNO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    return Here(capsys)


class Here:
    """`dalsegno …` within this process, beside the node."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.stderr = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints; it must end with the code."""
        self._capsys.readouterr()
        ended = main(arguments)
        out, self.stderr = self._capsys.readouterr()
        assert ended == code, f"{arguments}: {ended}\n{out}{self.stderr}"
        return out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The object it prints."""
        return json.loads(self(*arguments, "--json", code=code))

    def lines(self, *arguments: str, code: int = 0) -> list[Any]:
        """The objects it prints, one a line."""
        return [json.loads(line) for line in self(*arguments, "--json", code=code).splitlines()]

    def error(self, *arguments: str, code: int = 1) -> dict[str, str]:
        """The error it prints."""
        self(*arguments, "--json", code=code)
        error: dict[str, str] = json.loads(self.stderr)["error"]
        return error

    def status(self, id: str) -> str:
        """An instance's status."""
        return str(self.json("show", id)["instance"]["status"])

    def waits(self, id: str, what: str, *options: str) -> None:
        """Wait until an instance waits for something."""
        eventually(lambda: what in (self.json("show", id, *options)["instance"]["waiting_for"] or ""))


_numbers = count(1)


def new_id() -> str:
    """An id that no order has yet."""
    return f"o{next(_numbers)}"


def waiting(here: Here, amount: int = 5) -> str:
    """The id of a new order that waits for finance."""
    id = new_id()
    here("start", "order", "--input", json.dumps(id), "--input", str(amount), "--id", id)
    here.waits(id, "finance")
    return id


def failed(here: Here) -> str:
    """The id of an order that failed."""
    id = new_id()
    here("start", "order", "--input", json.dumps(id), "--input", "500", "--id", id)
    here("result", id, "--timeout", "20s", code=1)
    return id
