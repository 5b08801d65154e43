"""Events, and questions to people, beside a running node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Here, Node, beside, serving, waiting

TASK_FIELDS = {
    "id", "namespace", "instance", "role", "title", "about", "answer_schema", "state", "asked_at", "due_at", "answer",
    "answered_by", "answered_at",
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
    assert "declares no event 'Delvered'; it has " in here.stderr
    assert "ChangeAddress, Delivered" in here.stderr


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
