"""What is seen of instances beside a running node: lists, histories, results, live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Here, Node, beside, failed, program, running, serving, waiting

INSTANCE_FIELDS = {
    "id", "namespace", "process", "version", "status", "run", "started_at", "updated_at", "ended_at", "wake_at",
    "waiting_for", "error", "annotations", "parent",
}  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with serving(tmp_path_factory.mktemp("shop")) as found:
        yield found


@pytest.fixture
def folder(node: Node) -> Path:
    return node.folder


@pytest.fixture
def here(node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return beside(node, monkeypatch, capsys)


def test_list_filters_by_status_process_annotation_age_and_prefix(here: Here) -> None:
    id = waiting(here, amount=42)

    def ids(*options: str) -> list[str]:
        return here("list", "--ids", *options).split()

    assert ids("--where", "amount=42") == [id]
    assert ids("--where", "amount=42", "--where", "stage=packing", "--status", "waiting", "--status", "failed") == [id]
    assert ids("--where", 'amount="42"') == []
    assert ids("--prefix", id, "--process", "order") == [id]
    assert id not in ids("--process", "greet")
    assert id in ids("--newer-than", "1h")
    assert ids("--older-than", "1h") == []
    assert len(ids("--limit", "1")) == 1


def test_list_is_a_table_for_people_and_lines_for_programs(here: Here) -> None:
    id = waiting(here)

    table = here("list", "--prefix", id)
    assert table.splitlines()[0].split() == ["ID", "PROCESS", "STATUS", "STARTED", "TOOK", "WHY", "OR", "WHAT"]
    assert "answer from finance" in table
    assert "waiting" in here.stderr
    (row,) = here.lines("list", "--prefix", id)
    assert set(row) == INSTANCE_FIELDS
    assert (row["status"], row["annotations"]) == ("waiting", {"stage": "packing", "amount": 5})


def test_children_are_listed_by_their_parent(here: Here) -> None:
    here("start", "parent", "--input", '"Ada"', "--id", "p")
    here("result", "p", "--timeout", "20s")

    (child,) = here.lines("list", "--parent", "p")
    assert (child["process"], child["parent"]) == ("greet", "p")


def test_show_says_where_it_stands_and_what_can_be_done(here: Here) -> None:
    id = waiting(here)

    shown = here("show", id)
    assert "waits for answer from finance" in shown
    assert f"dalsegno answer {id}/finance JSON" in shown
    bars = [line for line in shown.splitlines() if "▕" in line]
    assert [line.split()[0] for line in bars] == ["hold", "charge", "ask:finance"]
    assert bars[2].endswith("waiting")
    assert "annotated" in shown


def test_show_tells_a_failure_with_its_attempts_and_its_traceback(here: Here) -> None:
    shown = here("show", failed(here))

    assert "in step charge" in shown
    assert "raise NoFunds" in shown
    assert "failed, 2 attempts" in shown
    assert "again at" in shown
    assert "dalsegno retry" in shown
    assert "undo:hold" in shown


def test_show_in_json_has_the_instance_its_spans_and_its_history(here: Here) -> None:
    shown = here.json("show", failed(here))

    assert set(shown) == {"instance", "spans", "history"}
    assert set(shown["instance"]) == INSTANCE_FIELDS
    assert [(span["name"], span["state"]) for span in shown["spans"]] == [
        ("hold", "completed"),
        ("charge", "failed"),
        ("undo:hold", "completed"),
    ]
    charge = shown["spans"][1]
    assert set(charge) == {"name", "sort", "state", "started_at", "ended_at", "attempts", "error", "count"}
    assert [attempt["number"] for attempt in charge["attempts"]] == [1, 2]
    assert set(charge["attempts"][0]) == {"number", "started_at", "ended_at", "error", "next_at"}
    assert [line["seq"] for line in shown["history"]] == list(range(len(shown["history"])))
    assert set(shown["history"][0]) == {"seq", "at", "time", "entry"}
    assert shown["history"][0]["entry"]["kind"] == "started"


def test_who_asked_is_in_the_journal(here: Here) -> None:
    id = waiting(here)
    here("cancel", id, "--by", "maria", "--reason", "a whim")
    here("result", id, "--timeout", "20s", code=1)

    assert "cancelled by maria: a whim" in here("show", id)


def test_watch_prints_each_entry_until_the_end(here: Here, folder: Path) -> None:
    id = waiting(here)
    with running(folder, "watch", id, "--store", "shop.db", "--json", until='"asked"') as watching:
        here("terminate", id)
        assert watching.stdout is not None
        last = json.loads(watching.stdout.read().splitlines()[-1])
        assert watching.wait(20) == 0

    assert last["entry"]["kind"] == "ended"
    assert "ask:finance" in here("watch", id)


def test_watch_prints_every_instance_that_changes(here: Here, folder: Path) -> None:
    id = waiting(here)
    with running(folder, "watch", "--store", "shop.db", "--json", "--prefix", id, until="waiting") as watching:
        here("terminate", id)
        assert watching.stdout is not None
        assert any('"terminated"' in line for line in iter(watching.stdout.readline, ""))


def test_result_waits_no_longer_than_told(here: Here) -> None:
    assert here.error("result", waiting(here), "--timeout", "20ms")["type"] == "TimeoutError"
    assert here.error("result", "nobody")["type"] == "NotFound"


def test_output_that_nobody_reads_on_is_no_error(here: Here, folder: Path) -> None:
    id = waiting(here)
    with running(folder, "watch", "--store", "shop.db", "--json", "--prefix", id, until="waiting") as watching:
        assert watching.stdout is not None
        watching.stdout.close()
        here("terminate", id)
        assert watching.wait(20) == 0
    assert "BrokenPipe" not in (folder / "log").read_text()


def test_what_is_piped_is_plain(here: Here, folder: Path) -> None:
    shown = program(folder, "show", failed(here), "--store", "shop.db").stdout

    assert "NoFunds" in shown
    assert "\x1b" not in shown
