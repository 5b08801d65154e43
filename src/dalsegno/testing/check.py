"""The history checker: what three witnesses saw of a run with crashes, and whether it fits together.

The witnesses share neither code nor storage: the *clients*, who know what was acknowledged to them; the *world*,
which knows which effects took place; the *journals* as they lay on disk at each crash and at the end. Invariants
are numbered; each violation begins with its number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property

import msgspec

from dalsegno.kernel import entries as e
from dalsegno.testing.check_journal import Outcome, check_journal, discarded_in, instance_of, outcomes_of

Rows = list[tuple[int, int, bytes]]


class Effect(msgspec.Struct, frozen=True):
    """An effect as the world saw it. `token` tells it apart from all others; `saw`, the tokens it was built on."""

    life: int
    key: str
    attempt: int
    token: str
    saw: tuple[str, ...] = ()


class Call(msgspec.Struct):
    """What a client asked. `outcome` is "ok", "refused", or "unknown" where no answer came before the crash."""

    life: int
    verb: str
    target: str
    detail: str = ""
    outcome: str = "unknown"
    reply: str = ""


class Dump(msgspec.Struct):
    """What lay on disk when a life of the engine ended. `ledger` counts the business rows of each step key."""

    statuses: dict[str, str]
    journals: dict[str, Rows]
    ledger: dict[str, int] = {}
    events: frozenset[str] = frozenset()


class History:
    """Everything the witnesses saw, in order; `dumps[n]` is the disk at the end of life n."""

    def __init__(
        self, dumps: list[Dump], effects: list[Effect], calls: list[Call], undoable: Mapping[str, bool], flat: set[str]
    ) -> None:
        self.dumps = dumps
        self.effects = effects
        self.calls = calls
        #: steps with an undo, and whether that copes with an unknown outcome
        self.undoable = undoable
        #: processes all of whose undoable steps are in one saga around everything
        self.flat = flat

    @cached_property
    def journals(self) -> dict[str, list[e.Record]]:
        """The final journals."""
        last = self.dumps[-1].journals
        return {id: [e.Record(seq, at, e.decode(data)) for seq, at, data in rows] for id, rows in last.items()}

    @cached_property
    def outcomes(self) -> dict[str, list[Outcome]]:
        """The journaled outcomes by idempotency key."""
        found: dict[str, list[Outcome]] = defaultdict(list)
        for id, journal in self.journals.items():
            for outcome in outcomes_of(id, journal):
                found[outcome.key].append(outcome)
        return found

    @cached_property
    def forgotten(self) -> set[str]:
        """Keys whose outcome an operator had forgotten, so that the same attempt may come again."""
        found = set()
        for id, journal in self.journals.items():
            discarded = discarded_in(journal)
            if discarded:
                found |= {o.key for o in outcomes_of(id, journal) if o.seq in discarded}
        return found

    def length(self, life: int, instance: str) -> int:
        """How many entries of an instance were on disk at the end of a life."""
        return len(self.dumps[life].journals.get(instance, ()))

    def violations(self) -> list[str]:
        """Every broken invariant."""
        found = [*self.acknowledged(), *self._prefixes(), *self._effects(), *self.booked(), *self._seen()]
        for id, journal in self.journals.items():
            found += check_journal(id, journal)
            found += self._undone(id, journal)
        found += self._received()
        return found

    # -- I1, I4: what was acknowledged is there ----------------------------------------------------

    def acknowledged(self) -> Iterator[str]:
        """I1: what a client was told is durable."""
        asked: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.outcome == "ok":
                asked[call.verb, call.target].append(call)
        for (verb, target), calls in asked.items():
            for call in calls:
                if (lost := self._lost(call)) is not None:
                    yield f"I1 {verb} of {target!r} was acknowledged in life {call.life}, but {lost}"
            if verb in _REMARK_OF:
                kind = _REMARK_OF[verb]
                journaled = sum(isinstance(r.entry, kind) for r in self.journals.get(target, ())) - (verb == "restart")
                if journaled < len(calls) and not (verb == "terminate" and journaled):
                    yield f"I1 {len(calls)} {verb} of {target!r} were acknowledged, {journaled} are journaled"
            if verb == "start" and len({call.detail for call in calls}) > 1:
                yield f"I4 starts of {target!r} with different inputs were all acknowledged"

    def _lost(self, call: Call) -> str | None:
        dump = self.dumps[call.life]
        rows = dump.journals.get(call.target, [])
        if call.verb in ("start", "fork"):
            return None if rows else "its journal is empty"
        if call.verb == "publish":
            return None if call.reply in dump.events else f"event {call.reply!r} is gone"
        if call.verb == "result":
            wanted = call.reply.encode()
            return None if any(wanted in data for _, _, data in rows) else f"{call.reply} is not in its journal"
        if call.verb == "update":
            replies = [e.decode(data) for _, _, data in rows]
            wanted = call.reply.encode()
            there = any(isinstance(entry, e.UpdateReplied) and bytes(entry.reply) == wanted for entry in replies)
            return None if there else f"the reply {call.reply} is not in its journal"
        if call.verb in _REMARK_OF:
            kind = _REMARK_OF[call.verb]
            return None if any(isinstance(e.decode(d), kind) for _, _, d in rows) else "nothing of it is journaled"
        return None

    # -- I2: journals only grow --------------------------------------------------------------------

    def _prefixes(self) -> Iterator[str]:
        for life in range(1, len(self.dumps)):
            later = self.dumps[life].journals
            for id, rows in self.dumps[life - 1].journals.items():
                if later.get(id, [])[: len(rows)] != rows:
                    yield f"I2 the journal of {id!r} after life {life} does not extend the one before"

    # -- I6: effects happen, and repeat only for a reason ------------------------------------------

    def _effects(self) -> Iterator[str]:
        by_attempt: dict[tuple[str, int], list[Effect]] = defaultdict(list)
        by_token: dict[str, Effect] = {}
        for effect in self.effects:
            by_attempt[effect.key, effect.attempt].append(effect)
            by_token[effect.token] = effect
        for (key, attempt), effects in by_attempt.items():
            yield from self._repeats(key, attempt, effects)
        for key, outcomes in self.outcomes.items():
            for outcome in outcomes:
                entry = outcome.entry
                if not isinstance(entry, e.StepCompleted) or entry.by is not None or key in self.dumps[-1].ledger:
                    continue
                if (key, entry.attempt) not in by_attempt:
                    yield f"I6 {key} attempt {entry.attempt} is journaled as done, but the world knows nothing of it"

    def _repeats(self, key: str, attempt: int, effects: list[Effect]) -> Iterator[str]:
        instance = instance_of(key)
        if instance not in self.journals:
            yield f"I6 effect {key} of an instance that was never journaled"
            return
        if key in self.forgotten:
            return
        for effect in effects:
            # Whatever was durable when this life began was known to it.
            known = self.length(effect.life - 1, instance) if effect.life else 0
            done = [o for o in self.outcomes.get(key, ()) if o.seq < known and _settles(o.entry, attempt)]
            if done:
                kind = e.kind(done[0].entry)
                yield f"I6 effect {key} attempt {attempt} in life {effect.life} although {kind} was journaled before"
            if attempt > 1 and not any(
                isinstance(o.entry, e.AttemptFailed) and o.entry.attempt == attempt - 1
                for o in self.outcomes.get(key, ())
                if o.seq < self.length(effect.life, instance)
            ):
                yield f"I6 effect {key} attempt {attempt} in life {effect.life} before the end of attempt {attempt - 1}"
        lives = [effect.life for effect in effects]
        reopened = sum(isinstance(r.entry, e.Reopened) for r in self.journals[instance])
        if len(set(lives)) + reopened < len(lives):
            yield f"I6 effect {key} attempt {attempt} took place in lives {lives}, which no crash explains"

    # -- I5: transactions --------------------------------------------------------------------------

    def booked(self) -> Iterator[str]:
        """I5: a transaction's business row and its journal entry are both there, once, or neither."""
        for life, dump in enumerate(self.dumps):
            for key, count in dump.ledger.items():
                if count != 1:
                    yield f"I5 transaction {key} has {count} business rows after life {life}"
                instance = instance_of(key)
                known = self.length(life, instance)
                if not any(o.seq < known and isinstance(o.entry, e.StepCompleted) for o in self.outcomes.get(key, ())):
                    yield f"I5 transaction {key} has its business row after life {life} but no journal entry"
        for key, outcomes in self.outcomes.items():
            done = any(isinstance(o.entry, e.StepCompleted) for o in outcomes)
            if done and "/book" in key and key not in self.dumps[-1].ledger:
                yield f"I5 transaction {key} is journaled as done but its business row is missing"

    # -- commit before effect ----------------------------------------------------------------------

    def _seen(self) -> Iterator[str]:
        """What an effect was built on was durable before it took place."""
        at: dict[str, tuple[str, int]] = {}
        for id, journal in self.journals.items():
            for record in journal:
                entry = record.entry
                if isinstance(entry, (e.StepCompleted, e.EventReceived)):
                    text = bytes(entry.result if isinstance(entry, e.StepCompleted) else entry.event).decode()
                    for token in _TOKEN.findall(text):
                        at.setdefault(f"{id} {token}", (id, record.seq))
        for effect in self.effects:
            instance = instance_of(effect.key)
            for token in effect.saw:
                place = at.get(f"{instance} {token}")
                if place is None or place[1] >= self.length(effect.life, instance):
                    yield f"I6 effect {effect.key} in life {effect.life} was built on {token}, which was not durable"

    # -- I8: sagas ---------------------------------------------------------------------------------

    def _undone(self, id: str, journal: list[e.Record]) -> Iterator[str]:
        started = next((r.entry for r in journal if isinstance(r.entry, e.Started)), None)
        if started is None or started.process not in self.flat or not isinstance(journal[-1].entry, e.Ended):
            return
        wanted: list[str] = []
        undone: list[str] = []
        discarded = discarded_in(journal)
        for outcome in outcomes_of(id, journal):
            if outcome.seq in discarded:
                continue
            entry, step = outcome.entry, outcome.entry.step
            if step.startswith("undo:"):
                if isinstance(entry, e.StepCompleted):
                    undone.append(step.removeprefix("undo:"))
            elif step.split("#")[0] in self.undoable:
                unknown = not isinstance(entry, (e.StepCompleted, e.AttemptFailed)) and entry.unknown
                if isinstance(entry, e.StepCompleted) or (unknown and self.undoable[step.split("#")[0]]):
                    wanted.insert(0, step)
        if journal[-1].entry.outcome in ("completed", "terminated"):
            wanted = [] if journal[-1].entry.outcome == "completed" else undone
        if undone != wanted:
            yield f"I8 {id!r} {journal[-1].entry.outcome}: undone {undone}, should be {wanted}"

    # -- I10: events -------------------------------------------------------------------------------

    def _received(self) -> Iterator[str]:
        known = self.dumps[-1].events
        for id, journal in self.journals.items():
            for record in journal:
                if isinstance(record.entry, e.EventReceived) and known and record.entry.event_id not in known:
                    yield f"I10 {id!r} received event {record.entry.event_id!r}, which nobody published"


_TOKEN = re.compile(r"t\d+\.\d+")
_REMARK_OF: dict[str, tuple[type, ...]] = {
    "cancel": (e.CancelRequested,),
    "terminate": (e.Ended,),
    "pause": (e.Paused,),
    "resume": (e.Resumed,),
    "retry": (e.Reopened,),
    "answer": (e.Answered,),
    "restart": (e.Started,),
}


def _settles(entry: e.Entry, attempt: int) -> bool:
    return not isinstance(entry, e.AttemptFailed) or entry.attempt >= attempt
