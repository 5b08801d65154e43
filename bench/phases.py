"""A bar that needs a fresh node runs each phase as a process of its own, which answers with one JSON line."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]


def run_phase(module: str, *arguments: object) -> dict[str, float]:
    answer = subprocess.run(command(module, *arguments), capture_output=True, cwd=ROOT)
    if answer.returncode:
        raise SystemExit(f"{module} {arguments} failed:\n{answer.stderr.decode()[-4000:]}")
    figures: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def answer(**figures: float) -> None:
    print(json.dumps(figures), flush=True)
