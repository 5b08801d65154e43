"""The witness: a process of its own that sees every effect and writes it down before it answers.

It shares neither code nor storage with the engine: a socket, and a file that is only ever appended to.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 20.0


class Asking:
    """The engine's side: effects take place at the witness."""

    def __init__(self, socket_path: str, folder: str, life: int) -> None:
        self._socket_path = socket_path
        self._folder = folder
        self._life = life

    def _ask(self, **question: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_TIMEOUT_SECONDS)
            line.connect(self._socket_path)
            line.sendall(json.dumps({"folder": self._folder, **question}).encode() + b"\n")
            return json.loads(line.makefile().readline())

    def effect(self, key: str, attempt: int, saw: list[str]) -> str:
        """Something takes effect; returns its token."""
        token: str = self._ask(life=self._life, key=key, attempt=attempt, saw=saw)
        return token

    def began(self, key: str, attempt: int, **more: Any) -> None:
        """An attempt of a step begins; `more` is written down with it."""
        self._ask(life=self._life, key=key, attempt=attempt, **more)

    def ended(self, key: str, attempt: int, **more: Any) -> None:
        """An attempt has ended."""
        self._ask(file="endings", life=self._life, key=key, attempt=attempt, **more)

    def repaired(self, name: str) -> bool:
        """Whether somebody repaired a thing that steps stumble over."""
        return bool(self._ask(asks=name))

    def repair(self, name: str) -> None:
        """Repair such a thing."""
        self._ask(repairs=name)


def start(socket_path: str) -> subprocess.Popen[bytes]:
    """Start the witness, and wait until it listens."""
    command = [sys.executable, __file__, socket_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def main(socket_path: str) -> None:
    """Answer one question after the other until killed."""
    count = 0
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(socket_path)
        door.listen(256)
        os.write(1, b"listening\n")
        while True:
            line, _ = door.accept()
            with line:
                line.settimeout(_TIMEOUT_SECONDS)
                question = json.loads(line.makefile().readline() or "null")
                if question is None:
                    continue
                count += 1
                answer = _answer(question, count)
                try:
                    line.sendall(json.dumps(answer).encode() + b"\n")
                except OSError:
                    # Whoever asked is dead. The effect took place all the same.
                    pass


def _answer(question: dict[str, Any], number: int) -> Any:
    folder = Path(question.pop("folder"))
    if "asks" in question:
        return (folder / f"repaired-{question['asks']}").exists()
    if "repairs" in question:
        (folder / f"repaired-{question['repairs']}").touch()
        return True
    token = f"t{question['life']}.{number}"
    name = question.pop("file", "effects")
    with (folder / f"{name}.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps({**question, "token": token, "when": time.time()}).encode() + b"\n")
    return token


if __name__ == "__main__":
    main(sys.argv[1])
