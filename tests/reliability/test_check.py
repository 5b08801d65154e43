"""The history checker complains: each invariant broken by hand, once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import Fault
from dalsegno.testing.check import Call, Dump, Effect, History
from dalsegno.testing.check_journal import instance_of

Raw = msgspec.Raw
STARTED = e.Started("order", 1, Raw(b"[{}]"))
ENDED = e.Ended("completed", result=Raw(b"null"))
TROUBLE = Fault("builtins:ValueError", "no")


def done(step: str, token: str = "t0.0", attempt: int = 1) -> e.StepCompleted:
    return e.StepCompleted(step, 0, Raw(f'"{token}"'.encode()), attempt)


def rows(*entries: Any) -> list[tuple[int, int, bytes]]:
    return [(seq, 1000 + seq, e.encode(entry)) for seq, entry in enumerate(entries)]


def dump(*entries: Any, ledger: dict[str, int] | None = None, events: tuple[str, ...] = ()) -> Dump:
    return Dump({"x": "running"}, {"x": rows(*entries)}, ledger or {}, frozenset(events))


def found(dumps: list[Dump], effects: list[Effect] | None = None, calls: list[Call] | None = None) -> list[str]:
    history = History(dumps, effects or [], calls or [], {"charge": False, "ship": True}, {"order"})
    return history.violations()


def effect(key: str, life: int = 0, attempt: int = 1, token: str = "t0.0", saw: tuple[str, ...] = ()) -> Effect:
    return Effect(life, f"default/{key}", attempt, token, saw)


def only(violations: list[str], start: str, part: str = "") -> None:
    assert [text for text in violations if not text.startswith(start)] == []
    assert any(part in text for text in violations), violations


def test_a_sound_history_is_left_alone() -> None:
    before = dump(STARTED, done("act"))
    after = dump(STARTED, done("act"), ENDED)
    calls = [Call(0, "start", "x", "[]", "ok"), Call(1, "result", "x", "", "ok", "null")]

    assert found([before, after], [effect("x/act")], calls) == []


def test_an_effect_in_flight_at_a_crash_may_repeat() -> None:
    both = [effect("x/act", 0, token="t0.0"), effect("x/act", 1, token="t1.0")]

    assert found([dump(STARTED), dump(STARTED, done("act"), ENDED)], both) == []


def test_i1_an_acknowledged_start_that_is_gone() -> None:
    only(found([Dump({}, {})], calls=[Call(0, "start", "x", "[]", "ok")]), "I1", "journal is empty")


def test_i1_an_acknowledged_event_that_is_gone() -> None:
    only(found([dump(STARTED)], calls=[Call(0, "publish", "x", "", "ok", "event-1")]), "I1", "event-1")


def test_i1_an_acknowledged_cancellation_that_is_gone() -> None:
    only(found([dump(STARTED)], calls=[Call(0, "cancel", "x", "", "ok")]), "I1", "cancel")


def test_i2_a_journal_that_was_rewritten() -> None:
    violations = found([dump(STARTED, done("act", "t0.0")), dump(STARTED, done("act", "t0.1"))], [effect("x/act")])

    only(violations, "I2", "does not extend")


def test_i2_a_journal_with_a_gap() -> None:
    gap = Dump({"x": "running"}, {"x": [rows(STARTED)[0], (2, 1002, e.encode(done("act")))]})

    only(found([gap], [effect("x/act")]), "I2", "entry 2 stands at place 1")


def test_i4_two_starts_with_different_inputs_that_both_won() -> None:
    calls = [Call(0, "start", "x", "[0]", "ok"), Call(0, "start", "x", "[1]", "ok")]

    only(found([dump(STARTED)], calls=calls), "I4", "different inputs")


def test_i5_a_business_row_without_its_entry() -> None:
    only(found([dump(STARTED, ledger={"default/x/book": 1})]), "I5", "no journal entry")


def test_i5_a_business_row_twice() -> None:
    key = "default/x/book"

    only(found([dump(STARTED, done("book"), ledger={key: 2})], [effect("x/book")]), "I5", "2 business rows")


def test_i5_a_missing_business_row() -> None:
    only(found([dump(STARTED, done("book"))], [effect("x/book")]), "I5", "is missing")


def test_i6_a_journaled_step_that_never_took_effect() -> None:
    only(found([dump(STARTED, done("act"))]), "I6", "the world knows nothing")


def test_i6_an_effect_that_repeats_without_a_crash() -> None:
    both = [effect("x/act", token="t0.0"), effect("x/act", token="t0.1")]

    only(found([dump(STARTED, done("act"))], both), "I6", "no crash explains")


def test_i6_an_effect_that_repeats_although_it_was_journaled_before_the_crash() -> None:
    both = [effect("x/act", 0, token="t0.0"), effect("x/act", 1, token="t1.0")]

    only(found([dump(STARTED, done("act")), dump(STARTED, done("act"))], both), "I6", "was journaled before")


def test_i6_an_effect_built_on_what_was_not_durable() -> None:
    effects = [effect("x/act"), effect("x/act#2", saw=("t0.0",), token="t0.1")]
    later = dump(STARTED, done("act"), done("act#2", "t0.1"))

    only(found([dump(STARTED), later], effects), "I6", "was not durable")


def test_i6_an_effect_of_nobody() -> None:
    only(found([dump(STARTED)], [effect("y/act")]), "I6", "never journaled")


def test_i6_a_second_attempt_without_the_end_of_the_first() -> None:
    both = [effect("x/act"), effect("x/act", attempt=2, token="t0.1")]

    only(found([dump(STARTED, done("act", attempt=2))], both), "I6", "before the end of attempt 1")


def test_i6_an_outcome_after_the_outcome() -> None:
    only(found([dump(STARTED, done("act"), done("act"))], [effect("x/act")]), "I6", "after step_completed")


def test_i6_attempts_that_start_anew() -> None:
    failed = e.AttemptFailed("act", 1, TROUBLE, 0)

    only(found([dump(STARTED, failed, failed)]), "I6", "attempt 1 of 'act' after 1")


@pytest.mark.parametrize(
    "undone",
    [["undo:charge", "undo:charge#2"], ["undo:charge#2"], []],
    ids=["in forward order", "not all", "none"],
)
def test_i8_a_failed_saga_that_was_not_undone_in_reverse(undone: list[str]) -> None:
    entries = [STARTED, done("charge"), done("charge#2"), *map(done, undone), e.Ended("failed", error=TROUBLE)]
    effects = [effect(f"x/{step}") for step in ["charge", "charge#2", *undone]]

    only(found([dump(*entries)], effects), "I8", "should be ['charge#2', 'charge']")


def test_i8_a_saga_that_succeeded_and_was_undone() -> None:
    entries = [STARTED, done("charge"), done("undo:charge"), ENDED]

    only(found([dump(*entries)], [effect("x/charge"), effect("x/undo:charge")]), "I8", "should be []")


def test_i8_a_step_of_unknown_outcome_is_undone_if_its_undo_can_cope() -> None:
    unknown = e.StepFailed("ship", 0, TROUBLE, unknown=True)
    entries = [STARTED, unknown, done("undo:ship"), e.Ended("failed", error=TROUBLE)]

    assert found([dump(*entries)], [effect("x/undo:ship")]) == []
    only(found([dump(STARTED, unknown, e.Ended("failed", error=TROUBLE))]), "I8", "should be ['ship']")


def test_i9_something_after_the_end() -> None:
    only(found([dump(STARTED, ENDED, done("act"))], [effect("x/act")]), "I9", "after ended")


def test_i10_an_event_that_nobody_published() -> None:
    received = e.EventReceived("event:Paid", "event-2", 1, Raw(b"{}"))
    awaited = e.EventAwaited("event:Paid", "Paid", Raw(b"{}"))

    only(found([dump(STARTED, awaited, received, events=("event-1",))]), "I10", "nobody published")


def test_i10_an_event_that_was_received_twice() -> None:
    received = e.EventReceived("event:Paid", "event-1", 1, Raw(b"{}"))
    awaited = e.EventAwaited("event:Paid", "Paid", Raw(b"{}"))

    only(found([dump(STARTED, awaited, received, received, events=("event-1",))]), "I10", "met twice")


def test_i10_an_answer_to_no_question() -> None:
    only(found([dump(STARTED, e.Answered("ask:clerk", Raw(b'"yes"')))]), "I10", "which is not open")


@pytest.mark.parametrize(
    ("key", "instance"),
    [
        ("default/order-1/charge", "order-1"),
        ("default/order-1@3/charge#2~2", "order-1"),
        ("default/order-1@2/child/undo:charge", "order-1@2/child"),
    ],
)
def test_an_idempotency_key_names_its_instance(key: str, instance: str) -> None:
    assert instance_of(key) == instance
