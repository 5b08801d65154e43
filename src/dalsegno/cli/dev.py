"""`dalsegno dev`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.sources import Sources
from dalsegno.cli.target import folder_of

_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 10.0


def dev(
    target: Annotated[
        str, Parameter(help="The app: module:app or file.py:app; of a module without one, its processes.")
    ],
    /,
    *,
    place: Place = HERE,
) -> int:
    """Run a node that starts anew whenever a source file changes, with shadow replay on."""
    folder = folder_of(target)
    signal.signal(signal.SIGTERM, _interrupt)
    sources = Sources(folder)
    command = _command(target, place)
    screen.note(f"watching {folder}")
    node = subprocess.Popen(command)
    try:
        while True:
            node = _turn(node, command, sources)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(node)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _command(target: str, place: Place) -> list[str]:
    command = [sys.executable, "-m", "dalsegno.cli", "node", target, "--shadow-replay"]
    for name, value in (("--store", place.url), ("--namespace", place.namespace)):
        command += [] if value is None else [name, value]
    return command + (["--json"] if place.json else [])


def _turn(node: subprocess.Popen[bytes], command: list[str], sources: Sources) -> subprocess.Popen[bytes]:
    """Wait a moment; the node after that: the same, or a new one where sources changed."""
    was_running = node.returncode is None
    time.sleep(_LOOK_SECONDS)
    changed = sources.changed()
    if changed:
        screen.note(f"{_named(changed)} changed: starting anew")
        _stop(node)
        return subprocess.Popen(command)
    if was_running and node.poll() is not None:
        screen.note(f"the node ended with {node.returncode}; it starts again once a source changes", "yellow")
    return node


def _named(changed: list[Path]) -> str:
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(path.name for path in changed[:3]) + more


def _stop(node: subprocess.Popen[bytes]) -> None:
    """Let running steps end; then the store is free."""
    if node.poll() is None:
        node.terminate()
        try:
            node.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
