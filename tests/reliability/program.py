"""Random processes: a tree as data, a generator of trees, and the one process that carries a tree out."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from tests.reliability import workload
from tests.reliability.workload import Signal

from dalsegno import Retry, process, publish, saga, start, step, step_key, wait_for

Tree = list[Any]
_LONG_SECONDS = 5000.0
#: no sum of naps and backoffs comes close to these, so that a limit never meets what it limits at its end
_LIMITS = (0.33, 1.77, 3.37)
_RETRY = Retry(attempts=3, first="200ms", factor=2, jitter=0)


class Trouble(Exception):
    """A failure the tree asks for."""


def _happen(name: str, failures: int) -> str:
    """An effect, that fails at its first attempts; more than the retries allow is a failure for good."""
    attempt = workload._attempt()
    workload.holder.world.effect(step_key(), attempt, [])
    if attempt <= failures:
        raise Trouble(f"{name} at attempt {attempt}")
    return name


@step(retry=_RETRY)
async def do(name: str, failures: int) -> str:
    return _happen(name, failures)


@step(retry=_RETRY, executor="inline")
def do_inline(name: str, failures: int) -> str:
    return _happen(name, failures)


@step(retry=_RETRY)
async def reversible(name: str, failures: int) -> str:
    return _happen(name, failures)


@reversible.undo(retry=Retry(attempts=9, first="100ms", factor=1, jitter=0))
async def reverse(name: str, failures: int, result: str) -> None:
    # Undoing is hard too, now and then.
    _happen(f"undo {name}", len(name) % 3)


@process
async def program(tree: Any, prefix: str) -> Any:
    return await _carry_out(tree, prefix)


async def _carry_out(tree: Tree, prefix: str) -> Any:
    kind, *rest = tree
    return await _KINDS[kind](prefix, *rest)


async def _do(prefix: str, flavour: str, name: str, failures: int) -> str:
    return await _FLAVOURS[flavour](name, failures)


async def _sequence(prefix: str, *trees: Tree) -> list[Any]:
    return [await _carry_out(tree, prefix) for tree in trees]


async def _gather(prefix: str, *trees: Tree) -> list[Any]:
    return list(await asyncio.gather(*(_carry_out(tree, prefix) for tree in trees)))


async def _gather_all(prefix: str, *trees: Tree) -> list[Any]:
    found = await asyncio.gather(*(_carry_out(tree, prefix) for tree in trees), return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else one for one in found]


async def _group(prefix: str, *trees: Tree) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_carry_out(tree, prefix)) for tree in trees]
    return [task.result() for task in tasks]


async def _saga(prefix: str, tree: Tree) -> Any:
    async with saga():
        return await _carry_out(tree, prefix)


async def _try(prefix: str, tree: Tree, otherwise: Tree) -> Any:
    try:
        return await _carry_out(tree, prefix)
    except (Trouble, TimeoutError, ExceptionGroup) as error:
        return [type(error).__name__, await _carry_out(otherwise, prefix)]


async def _nap(prefix: str, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def _exchange(prefix: str, name: str, seconds: float) -> str:
    """An event to itself, which is early when it waits."""
    await publish(Signal(f"{prefix} {name}", name))
    await asyncio.sleep(seconds)
    async with asyncio.timeout(_LONG_SECONDS):
        return (await wait_for(Signal, name=f"{prefix} {name}")).token


async def _in_vain(prefix: str, name: str, seconds: float) -> str:
    async with asyncio.timeout(seconds):
        return (await wait_for(Signal, name=f"{prefix} {name}")).token


async def _limit(prefix: str, seconds: float, tree: Tree) -> Any:
    async with asyncio.timeout(seconds):
        await _carry_out(tree, prefix)
        await asyncio.sleep(_LONG_SECONDS)


async def _child(prefix: str, name: str, tree: Tree) -> Any:
    return await program(tree, f"{prefix} {name}")


async def _loose(prefix: str, name: str, tree: Tree) -> Any:
    child = await start(program, tree, f"{prefix} {name}")
    await asyncio.sleep(0.5)
    return await child.result()


async def _fail(prefix: str, name: str) -> None:
    raise Trouble(name)


_FLAVOURS: dict[str, Any] = {"do": do, "do_inline": do_inline, "reversible": reversible}
_KINDS: dict[str, Any] = {
    "do": _do, "sequence": _sequence, "gather": _gather, "gather all": _gather_all, "group": _group, "saga": _saga,
    "try": _try, "nap": _nap, "exchange": _exchange, "in vain": _in_vain, "limit": _limit, "child": _child,
    "loose": _loose, "fail": _fail,
}  # fmt: skip


# -- the generator -------------------------------------------------------------------------------------


class Generator:
    """Trees from a source of chance, which may be hypothesis's."""

    def __init__(self, chance: Random, depth: int = 4) -> None:
        self._chance = chance
        self._depth = depth
        self._named = 0

    def tree(self) -> Tree:
        """A whole program."""
        return ["sequence", *(self._tree(self._depth) for _ in range(self._chance.randint(1, 3)))]

    def _name(self) -> str:
        self._named += 1
        return f"n{self._named}"

    def _tree(self, depth: int) -> Tree:
        if depth <= 0 or self._chance.randint(0, 9) < 3:
            return self._leaf()
        kind = self._chance.choice(("sequence", "many", "saga", "try", "limit", "child", "loose"))
        if kind == "sequence":
            return ["sequence", *self._trees(depth)]
        if kind == "many":
            return [self._chance.choice(("gather", "gather all", "gather all", "group")), *self._trees(depth)]
        if kind == "saga":
            return ["saga", ["sequence", *self._trees(depth)]]
        if kind == "try":
            return ["try", self._tree(depth - 1), self._tree(depth - 2)]
        if kind == "limit":
            return ["try", ["limit", self._chance.choice(_LIMITS), self._tree(depth - 1)], self._leaf()]
        return [kind, self._name(), self._tree(depth - 1)]

    def _trees(self, depth: int) -> list[Tree]:
        return [self._tree(depth - 1) for _ in range(self._chance.randint(1, 4))]

    def _seconds(self) -> float:
        return self._chance.choice((0.25, 1.5, 3.0))

    def _leaf(self) -> Tree:
        kind = self._chance.choice(("do",) * 7 + ("nap", "nap", "exchange", "exchange", "in vain", "fail"))
        if kind == "do":
            flavour = self._chance.choice(tuple(_FLAVOURS))
            return ["do", flavour, self._name(), self._chance.choice((0,) * 6 + (1, 2, 5))]
        if kind == "nap":
            return ["nap", self._seconds()]
        if kind == "in vain" and self._chance.randint(0, 2):
            return ["try", [kind, self._name(), self._seconds()], ["nap", self._seconds()]]
        return ["fail", self._name()] if kind == "fail" else [kind, self._name(), self._seconds()]


def can_fail(tree: Tree) -> bool:
    """Whether an error may leave a tree."""
    kind, *rest = tree
    if kind == "do":
        return bool(rest[2] >= _RETRY.attempts)  # type: ignore[operator]
    if kind in ("fail", "in vain", "limit"):
        return True
    if kind in ("nap", "exchange", "gather all"):
        return False
    return can_fail(rest[1]) if kind == "try" else any(can_fail(one) for one in rest if isinstance(one, list))


def is_racy(tree: Tree) -> bool:
    """Whether an error may stop what goes on at the same time: how far that got is then a matter of chance."""
    kind, *rest = tree
    trees = [one for one in rest if isinstance(one, list)]
    if kind in ("gather", "group") and any(can_fail(one) for one in trees):
        return True
    return any(is_racy(one) for one in trees)
