"""A node as a program, and the one that starts anew when sources change."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Here, eventually, in_this_process, open_shop, program, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_shop(tmp_path)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", "shop.db")
    return found


def test_a_node_that_is_told_to_stop_lets_its_steps_end(folder: Path, here: Here) -> None:
    with running(folder, "node", "shop:app", "--json", until='"running"') as node:
        here("start", "sleeper", "--id", "s")
        eventually((folder / "napping").exists)
        node.send_signal(signal.SIGTERM)
        assert node.stdout is not None
        assert json.loads(node.stdout.readline()) == {"event": "stopping", "store": "sqlite:///shop.db"}
        (folder / "wake").touch()
        assert json.loads(node.stdout.readline())["event"] == "stopped"
        assert node.wait(20) == 0

    assert here.json("result", "s")["result"] == "rested"


def test_a_second_node_on_the_same_store_is_refused(folder: Path) -> None:
    with running(folder, "node", "shop.py", until="running"):
        second = program(folder, "node", "shop.py")

    assert second.returncode == 1
    assert "is owned by node" in second.stderr


def test_without_a_node_reading_works_and_asking_says_what_became_of_it(folder: Path, here: Here) -> None:
    with running(folder, "node", "shop.py", until="running"):
        here("start", "order", "--input", '"1"', "--id", "o1")
        here.waits("o1", "finance")

    assert "no node runs on this store" in here("show", "o1")
    assert here.lines("tasks")[0]["id"] == "o1/finance"
    refused = here.lines("cancel", "o1", code=1)[0]
    assert refused["error"]["type"] == "Refused"
    assert "is written down and will be done once a node runs" in refused["error"]["message"]
    assert here.json("start", "order", "--input", '"2"', "--id", "o2")["node"] is False
    here("start", "order", "--input", '"3"', "--id", "o3")
    assert "it begins once one does" in here.stderr
    here("publish", "Delivered", '{"order_id": "3"}', "--key", "order_id")
    assert "it is delivered once one does" in here.stderr
    with pytest.raises(AssertionError, match="has not ended"):
        here("result", "o2", "--timeout", "10ms")

    with running(folder, "node", "shop.py", until="running"):
        assert here.json("result", "o1", "--timeout", "20s", code=1)["status"] == "cancelled"
        for id in ("o2", "o3"):
            here.waits(id, "finance")
        here("answer", "o3/finance", "true")
        assert here.json("result", "o3", "--timeout", "20s")["status"] == "completed"


def test_a_node_that_was_killed_is_missed_once_its_lease_is_over(folder: Path, here: Here) -> None:
    with running(folder, "node", "shop.py", until="running") as node:
        here("start", "order", "--input", '"1"', "--id", "o1")
        here.waits("o1", "finance")
        node.kill()
        node.wait(20)

    assert "none does now" in here.lines("pause", "o1", code=1)[0]["error"]["message"]


def test_an_instance_whose_code_changed_is_parked_with_expected_and_found_and_goes_on_after_the_fix(
    folder: Path, here: Here
) -> None:
    source = (folder / "shop.py").read_text()
    with running(folder, "node", "shop.py", until="running"):
        here("start", "order", "--input", '"1"', "--id", "o1")
        here.waits("o1", "finance")

    (folder / "shop.py").write_text(source.replace("        await hold(id)\n", '        await hold(id + "!")\n'))
    with running(folder, "node", "shop.py", until="running"):
        here("answer", "o1/finance", "true", code=1)
        assert here.status("o1") == "parked"
        shown = here("show", "o1")
        assert "its journal doesn't fit the code" in shown
        assert "expected 'hold'" in shown
        assert "found " in shown

    (folder / "shop.py").write_text(source)
    with running(folder, "node", "shop.py", until="running"):
        here.waits("o1", "finance")
        here("answer", "o1/finance", "true")


@pytest.fixture
def edit(folder: Path) -> Callable[[str], None]:
    """Write the shop's source so that a look at it sees a change, whatever the clock of the disk."""
    moments = iter(range(1, 100))

    def write(text: str) -> None:
        path = folder / "shop.py"
        path.write_text(text)
        at = path.stat().st_mtime + next(moments)
        os.utime(path, (at, at))

    return write


def test_dev_takes_up_changed_sources_and_survives_broken_ones(
    folder: Path, here: Here, edit: Callable[[str], None]
) -> None:
    source = (folder / "shop.py").read_text()
    with running(folder, "dev", "shop.py", "--store", "shop.db", until="running") as dev:
        here("start", "greet", "--input", '"Ada"', "--id", "before")
        assert here.json("result", "before", "--timeout", "20s")["result"] == "hello Ada, 9"

        edit("def (:\n")
        eventually(lambda: "starts again once a source changes" in (folder / "log").read_text())
        edit(source.replace("hello {name}", "good day {name}"))
        assert dev.stdout is not None
        assert any("running" in line for line in iter(dev.stdout.readline, ""))

        here("start", "greet", "--input", '"Ada"', "--id", "after")
        assert here.json("result", "after", "--timeout", "20s")["result"] == "good day Ada, 9"
        dev.send_signal(signal.SIGTERM)
        assert dev.wait(20) == 0

    assert "shop.py changed" in (folder / "log").read_text()
    assert program(folder, "run", "shop:app", "greet", "--input", '"Bo"').returncode == 0, "its node is gone too"


def test_dev_replays_every_finished_instance(folder: Path, here: Here) -> None:
    (folder / "shop.py").write_text(
        (folder / "shop.py")
        .read_text()
        .replace("@process\nasync def greet", "times = []\n\n\n@process\nasync def greet")
        .replace('    return f"hello', '    times.append(1)\n    return f"hello {len(times)}" + f"hello')
    )
    with running(folder, "dev", "shop.py", "--store", "shop.db", until="running"):
        here("start", "greet", "--input", '"Ada"', "--id", "g")
        here("result", "g", "--timeout", "20s")
        eventually(lambda: "replays differently" in (folder / "log").read_text())
