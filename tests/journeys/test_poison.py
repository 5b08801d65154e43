"""An instance that crashes the node is found and parked; those that ran beside it go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, sys
from dalsegno import App, Limits, process, step

@step(retry=None)
async def slow(name: str) -> str:
    await asyncio.sleep(0.6)
    return name

@step
async def deadly() -> None:
    os._exit(1)

@process
async def innocent(name: str) -> str:
    return await slow(name)

@process
async def poison() -> None:
    await deadly()

async def main() -> None:
    app = App("sqlite:///" + sys.argv[1], limits=Limits(trial_seconds=0.2))
    async with app:
        for number in range(12):
            await app.start(innocent, str(number), id=f"innocent-{number}")
        await app.start(poison, id="poison")
        for number in range(12):
            await app.get(f"innocent-{number}").result(timeout_seconds=20)
        print((await app.get("poison").describe()).status)

asyncio.run(main())
"""


def test_an_instance_that_crashes_the_node_is_parked_and_its_neighbours_end(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, tmp_path / "poison.db"]
    runs = []
    for _ in range(10):
        runs.append(subprocess.run(command, capture_output=True, text=True, timeout=60))
        if runs[-1].returncode == 0:
            break
    assert [run.returncode for run in runs] == [1] * (len(runs) - 1) + [0], runs[-1].stderr
    assert len(runs) <= 7
    assert runs[-1].stdout == "parked\n"
