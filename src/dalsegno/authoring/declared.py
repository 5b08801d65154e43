"""Which processes were declared in this Python process, so that an `App` finds them by name."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dalsegno.errors import OutsideProcess
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.loop import DeterministicLoop

if TYPE_CHECKING:
    from dalsegno.authoring.process import Process

_declared: dict[tuple[str, int], Process[Any, Any]] = {}


def declare(process: Process[Any, Any]) -> None:
    """Remember a declaration; declaring a name and version again replaces it."""
    _declared[process.spec.name, process.spec.version] = process


def declared() -> Iterator[Process[Any, Any]]:
    """Every process declared so far."""
    return iter(list(_declared.values()))


def execution(word: str) -> Execution:
    """The run that process code is in. Raises `OutsideProcess`."""
    found = running()
    if found is None:
        raise OutsideProcess(f"{word} is a word of process code: call it in a @process function that an App runs")
    return found


def running() -> Execution | None:
    """The run that the caller is in, `None` outside process code."""
    loop = _get_running_loop()
    if type(loop) is DeterministicLoop:
        owner: Execution = loop.owner
        return owner
    return None
