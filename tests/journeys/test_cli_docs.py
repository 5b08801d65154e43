"""The guides to the command line do what they say: their files are written, their commands run, the output compared."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import environment, free_port

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = {"command-line.md": 30, "operations.md": 9}
_READS = ("dalsegno list", "dalsegno show", "dalsegno tasks", "dalsegno top", "curl")
_PATIENCE_SECONDS = 10.0
_checker = doctest.OutputChecker()


def blocks(guide: str) -> Iterator[tuple[str, str]]:
    page = (DOCS / guide).read_text()
    for port in ("19464", "19465"):
        # Whoever else runs these tests on this machine takes others.
        page = page.replace(port, str(free_port()))
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        yield found[1], found[2]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command with the output that is to follow."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


class Shell:
    """Runs one command after the other, with the exit code of the one before and what was exported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._code = 0
        self._programs: list[subprocess.Popen[str]] = []
        tools = folder / "bin"
        tools.mkdir()
        for name, means in (("dalsegno", "-m dalsegno.cli"), ("python3", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {means} "$@"\n')
            (tools / name).chmod(0o755)
        self._environment = environment(PATH=f"{tools}:{os.environ['PATH']}", COLUMNS="100")

    def run(self, command: str, wanted: str) -> None:
        """Run a command; what it prints must be what is wanted, soon if it only looks."""
        if command.endswith("&"):
            return self._begin(command.removesuffix("&"), wanted)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._environment[name] = value
            return None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _same(wanted, got := self._output(command)):
            again = command.startswith(_READS) and "|" not in command and time.monotonic() < deadline
            assert again, f"$ {command}\n{got}\ninstead of\n{wanted}"
        return None

    def _output(self, command: str) -> str:
        ran = subprocess.run(
            ["bash", "-c", f"(exit {self._code}); {command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self._code = ran.returncode
        return ran.stdout

    def _begin(self, command: str, wanted: str) -> None:
        program = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._programs.append(program)
        assert program.stdout is not None
        assert _same(wanted, program.stdout.readline())

    def close(self) -> None:
        """End what still runs; it must end well."""
        for program in self._programs:
            program.terminate()
            assert program.wait(20) == 0
            assert program.stdout is not None
            program.stdout.close()


def _same(wanted: str, got: str) -> bool:
    return _checker.check_output(wanted, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_does_what_it_says(guide: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    ran = 0
    try:
        for language, text in blocks(guide):
            if language == "python":
                name = text.splitlines()[0].removeprefix("# ")
                (tmp_path / name).write_text(text)
                continue
            if language != "console":
                continue
            for command, output in commands(text):
                shell.run(command, output)
                ran += 1
    finally:
        shell.close()
    assert ran > GUIDES[guide]
