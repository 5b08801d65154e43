"""Types survive every call for type checkers too: what a step, a process and a run return is inferred."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"


def mypy(*files: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", *files],
        cwd=HERE,
        env={**os.environ, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.stderr, found.stderr
    return found.stdout


def pyright(*files: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *files],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "informations" not in found.stdout:
        pytest.skip(f"pyright runs on Node, which isn't to be had here: {found.stderr.strip()[:200]}")
    return found.stdout


def wrong_lines() -> list[int]:
    lines = (HERE / "mistakes.py").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]


def reported(output: str) -> list[int]:
    return sorted({int(number) for number in re.findall(r"mistakes\.py:(\d+)(?::\d+ -)?:? error", output)})


def test_mypy_infers_what_steps_processes_and_runs_return():
    assert mypy("vocabulary.py") == ""


def test_mypy_finds_every_mistake():
    assert reported(mypy("mistakes.py")) == wrong_lines()


def test_pyright_infers_the_same_and_finds_the_same_mistakes():
    output = pyright("vocabulary.py", "mistakes.py")
    assert "vocabulary.py:" not in output
    assert reported(output) == wrong_lines()
