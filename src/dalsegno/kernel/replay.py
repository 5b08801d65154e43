"""Which stored entries count when a journal is replayed, and whether the code says them again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from dalsegno.kernel import entries as e

#: the name under which an emission is said again on replay; what isn't here is a delivery
EMISSION_NAMES: dict[type, Callable[[Any], str]] = {
    **{
        kind: lambda entry: str(entry.operation)
        for kind in (e.EventAwaited, e.Published, e.ChildStarted, e.Asked, e.Annotated)
    },
    e.Changed: lambda entry: f"changed:{entry.change}",
    e.UpdateReplied: lambda entry: f"reply:{entry.update}",
    e.Ended: lambda entry: "ended",
    e.Continued: lambda entry: "ended",
}
_SHOWN = re.compile(r"<.*>", re.DOTALL)
_PLAIN_REMARKS = frozenset(e.REMARKS) - {e.Reopened}


def counting(records: Iterable[e.Record], generations: dict[str, int]) -> list[e.Record]:
    """The entries that count: no remarks, and nothing that a retry discarded.

    `generations` learns which steps were undone and are done anew.
    """
    stored = [record for record in records if type(record.entry) not in _PLAIN_REMARKS]
    if stored and isinstance(last := stored[-1].entry, e.Ended) and last.outcome == "terminated":
        # Ended by force: nothing that the code says.
        stored.pop()
    reopened = [record.entry for record in stored if type(record.entry) is e.Reopened]
    if not reopened:
        return stored
    discarded = {seq for entry in reopened for seq in entry.discarded}
    for record in stored:
        entry = record.entry
        if record.seq in discarded and isinstance(entry, e.StepCompleted) and entry.step.startswith("undo:"):
            # What was undone is done anew under a new idempotency key: the old effect is gone.
            step = entry.step.removeprefix("undo:")
            for name in (step, entry.step):
                generations[name] = generations.get(name, 0) + 1
    return [r for r in stored if r.seq not in discarded and type(r.entry) is not e.Reopened]


def _plain(message: str) -> str:
    """A message without the objects shown in it, whose addresses differ from one life to the next."""
    return _SHOWN.sub("<>", message)


def same(stored: e.Emission, said: e.Emission) -> bool:
    """Whether the code says what the journal holds."""
    if stored == said:
        return True
    if isinstance(stored, (e.Ended, e.UpdateReplied)) and type(stored) is type(said):
        # A traceback names lines of code, which may have moved.
        one, two = stored.error, said.error
        if one is not None and two is not None:
            return (one.type, _plain(one.message)) == (two.type, _plain(two.message))
        if isinstance(stored, e.Ended) and isinstance(said, e.Ended):
            return (stored.outcome, stored.result) == (said.outcome, said.result)
    return False


def describe(entry: e.Emission) -> str:
    """An emission in a message."""
    return f"{e.kind(entry)} {e.encode(entry)[:300].decode(errors='replace')}"


def mentions(function: Callable[..., Any], key: str) -> bool:
    """Whether a process's code, or code it names, still names the step or word behind a journal key."""
    name = key.split("#")[0].split(":")[-1]
    seen: set[int] = set()
    todo: list[Any] = [function]
    while todo:
        item = todo.pop()
        code = getattr(item, "__code__", item)
        if not hasattr(code, "co_names") or id(code) in seen:
            continue
        seen.add(id(code))
        if name in code.co_names or name in code.co_freevars:
            return True
        todo.extend(constant for constant in code.co_consts if hasattr(constant, "co_names"))
        scope = getattr(item, "__globals__", {})
        for named in code.co_names:
            found = scope.get(named)
            spec = getattr(found, "spec", None)
            if getattr(spec, "name", None) == name:
                return True
            if getattr(found, "__code__", None) is not None:
                todo.append(found)
        for cell in getattr(item, "__closure__", None) or ():
            content = cell.cell_contents
            if getattr(getattr(content, "spec", None), "name", None) == name:
                return True
            todo.append(content)
    return False
