"""Every verb that works beside a running node, on a node that is a program of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from cli_world import Here, in_this_process, open_shop, program, running

_numbers = count(1)
INSTANCE_FIELDS = {
    "id", "namespace", "process", "version", "status", "run", "started_at", "updated_at", "ended_at", "wake_at",
    "waiting_for", "error", "annotations", "parent",
}  # fmt: skip
TASK_FIELDS = {
    "id", "namespace", "instance", "role", "title", "about", "answer_schema", "state", "asked_at", "due_at", "answer",
    "answered_by", "answered_at",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A folder with the shop, and the node that runs there."""
    found = open_shop(tmp_path_factory.mktemp("shop"))
    with running(found, "node", "shop.py", until="running") as node:
        yield found, node


@pytest.fixture
def folder(served: tuple[Path, subprocess.Popen[str]]) -> Path:
    found, node = served
    assert node.poll() is None, (found / "log").read_text()
    return found


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", "shop.db")
    return found


def waiting(here: Here, amount: int = 5) -> str:
    """The id of a new order that waits for finance."""
    id = f"o{next(_numbers)}"
    here("start", "order", "--input", json.dumps(id), "--input", str(amount), "--id", id)
    here.waits(id, "finance")
    return id


def failed(here: Here) -> str:
    """The id of an order that failed."""
    id = f"o{next(_numbers)}"
    here("start", "order", "--input", json.dumps(id), "--input", "500", "--id", id)
    here("result", id, "--timeout", "20s", code=1)
    return id


# -- starting ----------------------------------------------------------------------------------------------


def test_start_prints_the_id_and_a_second_start_changes_nothing(here: Here) -> None:
    start = ["start", "greet", "--input", '"Ada"', "--id", "greeting"]

    assert [here(*start), here(*start)] == ["greeting\n", "greeting\n"]
    assert here.json(*start) == {"id": "greeting", "process": "greet", "node": True}
    assert here.json("result", "greeting", "--timeout", "20s")["result"] == "hello Ada, 9"


def test_another_start_under_a_taken_id_is_a_conflict_unless_told_otherwise(here: Here) -> None:
    here("start", "greet", "--input", '"Ada"', "--id", "taken")
    other = ["start", "greet", "--input", '"Bo"', "--id", "taken"]

    assert here.error(*other)["type"] == "StartConflict"
    assert here(*other, "--if-exists", "return") == "taken\n"
    assert here.error(*other, "--if-exists", "fail")["type"] == "StartConflict"


def test_with_the_code_at_hand_a_wrong_input_is_refused_before_anything_is_written(here: Here) -> None:
    assert "isn't a str" in here.error("start", "shop.py:greet", "--input", "5", "--id", "never")["message"]
    assert (
        "isn't a str" in here.error("start", "greet", "--app", "shop:app", "--input", "5", "--id", "never")["message"]
    )
    assert here.error("show", "never")["type"] == "NotFound"


def test_a_start_by_name_only_is_checked_by_the_node(here: Here) -> None:
    here("start", "greet", "--input", "5", "--id", "wrong")

    assert here.json("result", "wrong", "--timeout", "20s", code=1)["error"]["type"] == "InvalidValue"


def test_a_name_nobody_has_heard_of_is_remarked_upon(here: Here) -> None:
    here("start", "gret", "--id", "unheard")

    assert "No gret was ever started here" in here.stderr
    here("terminate", "unheard")


# -- seeing ------------------------------------------------------------------------------------------------


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


# -- controlling -------------------------------------------------------------------------------------------


def test_cancel_undoes_and_terminate_does_not(here: Here, folder: Path) -> None:
    gently, hard = waiting(here), waiting(here)

    assert here.lines("cancel", gently) == [{"id": gently, "verb": "cancel", "ok": True}]
    assert here.lines("terminate", hard) == [{"id": hard, "verb": "terminate", "ok": True}]

    assert here.json("result", gently, "--timeout", "20s", code=1)["status"] == "cancelled"
    assert here.json("result", hard, "--timeout", "20s", code=1)["status"] == "terminated"
    effects = (folder / "effects").read_text()
    assert f"release {gently}\n" in effects
    assert f"release {hard}\n" not in effects


def test_a_paused_instance_stands_still_until_it_is_resumed(here: Here) -> None:
    id = waiting(here)

    assert here("pause", id) == f"{id} is paused\n"
    assert here.status(id) == "paused"
    assert f"dalsegno resume {id}" in here("show", id)
    assert here.error("answer", f"{id}/finance", "true")["type"] == "Refused"
    assert here("resume", id) == f"{id} goes on\n"
    here.waits(id, "finance")


def test_a_failed_instance_is_retried_from_its_failure(here: Here, folder: Path) -> None:
    id = failed(here)
    (folder / "credit").touch()
    try:
        here("retry", id, "--reason", "credit was given")
        here.waits(id, "finance")
    finally:
        (folder / "credit").unlink()

    assert "retried" in here("show", id)
    assert (folder / "effects").read_text().count(f"hold {id}\n") == 2


def test_a_fork_stands_before_the_step_with_what_was_annotated(here: Here, folder: Path) -> None:
    id = waiting(here)

    (forked,) = here.lines("fork", id, "--step", "charge", "--new-id", f"{id}-again")

    assert forked == {"id": id, "verb": "fork", "ok": True, "value": f"{id}-again"}
    here.waits(f"{id}-again", "finance")
    assert (folder / "effects").read_text().count(f"hold {id}\n") == 1
    assert here.lines("list", "--prefix", f"{id}-again")[0]["annotations"] == {"stage": "packing", "amount": 5}
    assert here.lines("fork", id, "--step", "nope", code=1)[0]["error"]["type"] == "NotFound"


def test_many_are_controlled_at_once_and_what_one_refuses_leaves_the_others_alone(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [waiting(here), failed(here), waiting(here)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(ids) + "\n"))

    told = here.lines("cancel", "-", "nobody", code=1)

    assert [(line["id"], line["ok"]) for line in told] == [
        (ids[0], True),
        (ids[1], False),
        (ids[2], True),
        ("nobody", False),
    ]
    assert [line["error"]["type"] for line in told if not line["ok"]] == ["Refused", "NotFound"]


def test_an_update_is_replied_to_or_refused(here: Here) -> None:
    id = waiting(here)

    assert here("update", id, "ChangeAddress", '{"street": "Via Roma"}') == '"to Via Roma"\n'
    assert here.json("update", id, "ChangeAddress", '{"street": "Am Markt"}') == {"id": id, "reply": "to Am Markt"}
    refused = here.error("update", id, "ChangeAddress", '{"street": ""}', "--app", "shop.py")
    assert refused == {"type": "Refused", "message": "a street is needed"}


# -- events and people -------------------------------------------------------------------------------------


def test_tasks_are_listed_answered_and_then_gone(here: Here) -> None:
    id = waiting(here)
    task = f"{id}/finance"

    (found,) = [line for line in here.lines("tasks", "--role", "finance") if line["id"] == task]
    assert set(found) == TASK_FIELDS
    assert (found["about"], found["title"], found["state"]) == ({"order": id}, "May we?", "open")
    assert task in here("tasks")
    assert here.error("answer", task, '"perhaps"')["type"] == "InvalidValue"
    assert task in here("tasks"), "an answer that doesn't fit leaves it open"
    assert here.json("answer", task, "true", "--by", "maria") == {"task": task, "ok": True}

    assert task not in here("tasks")
    (closed,) = [line for line in here.lines("tasks", "--all") if line["id"] == task]
    assert (closed["state"], closed["answered_by"], closed["answer"]) == ("answered", "maria", True)
    assert here.error("answer", task, "true")["type"] == "Refused"
    assert here.error("answer", "none/finance", "true")["type"] == "NotFound"


def test_an_event_reaches_who_waits_for_it_by_name_and_key(here: Here) -> None:
    id = waiting(here)
    here("answer", f"{id}/finance", "true")
    here.waits(id, "Delivered")

    published = here.json("publish", "Delivered", json.dumps({"order_id": id, "at": "noon"}), "--key", "order_id")

    assert set(published) == {"id", "event"}
    assert here.json("result", id, "--timeout", "20s")["result"]["at"] == "noon"


def test_the_apps_code_knows_an_events_key_and_its_fields(here: Here) -> None:
    id = waiting(here)
    here("answer", f"{id}/finance", "true")
    here.waits(id, "Delivered")

    wrong = here.error("publish", "Delivered", '{"order": "1"}', "--app", "shop:app")
    assert wrong["type"] == "InvalidValue"
    here("publish", "Delivered", json.dumps({"order_id": id}), "--app", "shop:app")

    assert here.json("result", id, "--timeout", "20s")["status"] == "completed"
    here("publish", "Delvered", "--app", "shop:app", code=2)
    assert "it has ChangeAddress, Delivered" in here.stderr


def test_an_event_without_a_key_is_remarked_upon_and_a_key_must_be_a_field(here: Here) -> None:
    here("publish", "Delivered", '{"order_id": "x"}')
    assert "--key" in here.stderr
    assert here.error("publish", "Delivered", "{}", "--key", "order_id")["type"] == "InvalidValue"
    here("publish", "Delivered", "[]", code=2)


def test_an_event_may_be_for_one_instance_only(here: Here) -> None:
    ids = [waiting(here), waiting(here)]
    for id in ids:
        here("answer", f"{id}/finance", "true")
        here.waits(id, "Delivered")

    here("publish", "Delivered", json.dumps({"order_id": ids[0]}), "--key", "order_id", "--to", ids[1])
    here("publish", "Delivered", json.dumps({"order_id": ids[1], "at": "dusk"}), "--key", "order_id", "--to", ids[1])

    assert here.json("result", ids[1], "--timeout", "20s")["result"]["at"] == "dusk"
    assert here.status(ids[0]) == "waiting"


# -- as a program ------------------------------------------------------------------------------------------


def test_what_is_asked_reaches_the_running_node_in_milliseconds(here: Here) -> None:
    ids = [waiting(here) for _ in range(5)]
    took: dict[str, list[float]] = {}
    for id in ids:
        for verb in ("pause", "resume", "cancel"):
            began = time.perf_counter()
            here(verb, id)
            took.setdefault(verb, []).append(time.perf_counter() - began)

    medians = {verb: sorted(times)[len(times) // 2] * 1000 for verb, times in took.items()}
    sys.stdout.write(f"medians in ms, the command's own work included: {medians}\n")
    # A poll a second would take 500 ms at the median.
    assert max(medians.values()) < 250


def test_a_start_begins_in_milliseconds(here: Here) -> None:
    delays = []
    for _ in range(5):
        id = f"o{next(_numbers)}"
        here("start", "order", "--input", json.dumps(id), "--id", id)
        here.waits(id, "finance")
        history = here.json("show", id)["history"]
        delays.append((history[1]["at"] - history[0]["at"]) / 1000)
    sys.stdout.write(f"ms from start to the first step's result: {delays}\n")
    assert sorted(delays)[2] < 250


def test_output_that_nobody_reads_on_is_no_error(here: Here, folder: Path) -> None:
    for _ in range(3):
        waiting(here)

    listed = program(folder, "list", "--json", "--store", "shop.db")
    assert listed.returncode == 0
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()]
    assert (
        "\x1b"
        not in program(folder, "show", json.loads(listed.stdout.splitlines()[0])["id"], "--store", "shop.db").stdout
    )
