"""What is asked of instances beside a running node, which is a program of its own."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Here, Node, beside, failed, new_id, serving, waiting


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
        id = new_id()
        here("start", "order", "--input", json.dumps(id), "--id", id)
        here.waits(id, "finance")
        history = here.json("show", id)["history"]
        delays.append((history[1]["at"] - history[0]["at"]) / 1000)
    sys.stdout.write(f"ms from start to the first step's result: {delays}\n")
    assert sorted(delays)[2] < 250
