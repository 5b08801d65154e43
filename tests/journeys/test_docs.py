"""The README and the guides run: their Python blocks, in order, are one program each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAID = {
    "README.md": ["hold-book"],
    "docs/processes.md": [
        "charge of 100, asked for with default/order-7/charge",
        "no stock ['7']",
        "will go to Main Street 1",
        "Ben brought it to Main Street 1 on a ",
        "[2, 4] zero",
        "5",
        "['ship-7']",
    ],
}


def program_of(page: str) -> str:
    return "\n\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))


@pytest.mark.parametrize("page", SAID)
def test_the_pages_program_runs_and_says_what_it_should(page: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(program_of(page))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for line in SAID[page]:
        assert line in done.stdout


def test_the_readmes_program_is_the_same_run_the_second_time(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(program_of("README.md"))
    said = [
        subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
        for _ in range(2)
    ]
    assert said == ["hold-book\n", "hold-book\n"]
