"""How a journal is told: spans, bars, lines; every sort of entry has its words."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from dalsegno.cli import wording
from dalsegno.cli.gantt import gantt
from dalsegno.cli.timeline import tell, timeline
from dalsegno.history import grouped, present_run, spans, standing_open
from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import capture

RAW = msgspec.Raw(b'{"a":1}')
FAULT = capture(ValueError("no"))
EVERY = [
    e.Started("order", 1, msgspec.Raw(b'["1",{}]'), run=2, parent="p", by="maria"),
    e.StepStarted("charge", 1),
    e.StepCompleted("charge", 1, RAW, attempt=2),
    e.StepFailed("charge", 1, FAULT, unknown=True),
    e.StepCancelled("charge"),
    e.AttemptFailed("charge", 1, FAULT, next_at=1),
    e.TimerFired(1),
    e.EventAwaited("event:X", "X", RAW),
    e.EventReceived("event:X", "id", 1, RAW),
    e.ChildStarted("child:y", "c", "y", 1, RAW),
    e.ChildEnded("child:y", "failed", error=FAULT),
    e.Asked("ask:finance", "finance", RAW, RAW, title="May we?"),
    e.Answered("ask:finance", RAW, by="maria"),
    e.UpdateReceived("u", "X", RAW, by="maria"),
    e.UpdateReplied("u", error=FAULT),
    e.CancelRequested("a whim", "maria"),
    e.Published("publish:X", "id", "X", "X", RAW, to="o2"),
    e.Annotated("annotate", RAW),
    e.Changed("new-tax"),
    e.Ended("failed", error=FAULT),
    e.Continued(RAW),
    e.Parked("journal mismatch", "a", "b"),
    e.Paused("maria", "lunch"),
    e.Resumed("maria"),
    e.Reopened([1, 2], "maria"),
    e.Forked("o1", "charge", "maria"),
]


def records(*entries: e.Entry, each_seconds: float = 1.0) -> list[e.Record]:
    return [e.Record(seq, round(seq * each_seconds * 1e6), entry) for seq, entry in enumerate(entries)]


def test_every_sort_of_entry_is_told() -> None:
    assert {type(entry) for entry in EVERY} == set(e.KINDS)
    for entry in EVERY:
        what, style, detail = tell(entry)
        assert what, entry
        assert "Raw" not in detail, detail
        assert isinstance(style, str)


def test_a_line_has_its_number_and_the_time_since_the_one_before() -> None:
    first, second = (line.plain for line in timeline(records(EVERY[0], EVERY[-1], each_seconds=90)))

    assert first.split()[0] == "0"
    assert "+1 m 30 s" in second


def test_a_retried_step_is_one_span_with_its_attempts() -> None:
    (span,) = spans(
        records(
            e.StepStarted("charge", 1, started_at=0),
            e.AttemptFailed("charge", 1, FAULT, next_at=2_000_000, started_at=0),
            e.StepCompleted("charge", 1, RAW, attempt=2, started_at=2_000_000),
        )
    )

    assert (span.name, span.sort, span.state) == ("charge", "step", "completed")
    assert [(a.number, a.error) for a in span.attempts] == [(1, "ValueError: no"), (2, None)]
    assert span.attempts[0].next_at == datetime.fromtimestamp(2, UTC)


def test_what_is_open_says_what_it_waits_for() -> None:
    found = spans(
        records(
            e.StepStarted("slow", 1),
            e.AttemptFailed("charge", 1, FAULT, next_at=9_000_000),
            e.EventAwaited("event:X", "X", RAW),
            e.Asked("ask:finance", "finance", RAW, RAW),
            e.ChildStarted("child:y", "c", "y", 1, RAW),
        )
    )

    states = {span.name: (span.state, span.ended_at) for span in found}
    assert states == {
        "slow": ("running", None),
        "charge": ("retrying", None),
        "event:X": ("waiting", None),
        "ask:finance": ("waiting", None),
        "child:y": ("running", None),
    }


def test_the_end_drops_what_nobody_waits_for_any_more() -> None:
    wait, child = spans(
        records(
            e.EventAwaited("event:X", "X", RAW),
            e.ChildStarted("child:y", "c", "y", 1, RAW),
            e.ChildEnded("child:y", "failed", error=FAULT),
            e.Ended("completed", RAW),
        )
    )

    assert (wait.state, child.state, child.error) == ("dropped", "failed", "ValueError: no")


def test_a_wait_that_a_time_out_closed_is_dropped_as_the_row_says() -> None:
    journal = records(e.EventAwaited("event:X", "X", RAW), e.TimerFired(1), e.EventAwaited("event:Y", "Y", RAW))

    states = [span.state for span in standing_open(spans(journal), "event Y(id='1')")]
    assert states == ["dropped", "waiting"]
    assert [span.state for span in standing_open(spans(journal), None)] == ["waiting", "waiting"]


def test_a_step_that_is_done_anew_after_a_retry_is_a_span_of_its_own() -> None:
    first, second = spans(
        records(
            e.StepFailed("charge", 1, FAULT), e.Ended("failed"), e.Reopened([0, 1]), e.StepCompleted("charge", 1, RAW)
        )
    )

    assert (first.state, second.state) == ("failed", "completed")


def test_only_the_present_run_counts() -> None:
    journal = records(e.Started("p", 1, RAW), e.Continued(RAW), e.Started("p", 1, RAW, run=2), e.TimerFired(1))

    assert [record.seq for record in present_run(journal)] == [2, 3]


def test_many_spans_of_a_name_become_one_with_the_worst_state() -> None:
    found = spans(
        records(*(e.StepCompleted(f"charge#{n}", 1, RAW) for n in range(2, 9)), e.StepFailed("charge", 1, FAULT))
    )

    (one,) = grouped(found)
    assert (one.name, one.count, one.state) == ("charge", 8, "failed")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_share_one_axis(width: int) -> None:
    found = spans(
        records(
            e.StepCompleted("first", 1, RAW, started_at=0),
            e.StepCompleted("second", 1, RAW, started_at=1_000_000),
            e.StepCompleted("whole", 1, RAW, started_at=0),
            each_seconds=1.0,
        )
    )

    lines = [line.plain for line in gantt(found, datetime.fromtimestamp(2, UTC), width)]
    bars = [line[line.index("▕") + 1 : line.index("▏")] for line in lines]
    assert len({len(bar) for bar in bars}) == 1
    whole = bars[[line.split()[0] for line in lines].index("whole")]
    assert set(whole) == {"█"}
    assert all("█" in bar for bar in bars), "what took no time is seen too"


def test_bars_of_days_and_of_nothing_are_drawn() -> None:
    now = datetime.now(UTC)

    assert gantt([], now, 80) == []
    (line,) = gantt(spans(records(e.StepCompleted("quick", 1, RAW, started_at=0))), now + timedelta(days=9), 80)
    assert line.plain.count("█") == 1


def test_the_wording_does_what_it_says() -> None:
    assert doctest.testmod(wording).failed == 0
