"""What operators look at while nodes in other processes work: top, nodes, deployments, metrics."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_world import (
    PROGRAM,
    Here,
    Node,
    beside,
    environment,
    eventually,
    free_port,
    in_this_process,
    open_shop,
    program,
    running,
    serving,
    waiting,
)
from prometheus_client.parser import text_string_to_metric_families

VERSIONS = """
from dalsegno import App, Limits, ask, process

@process(name="job", version={version})
async def job() -> bool:
    return await ask("boss", bool)

app = App("sqlite:///jobs.db", limits=Limits(lease_seconds=1.5))
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def here(node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return beside(node, monkeypatch, capsys)


def work_of(here: Here) -> Any:
    return here.json("top", "shop.db", "--once")["total"]


# -- top and nodes ---------------------------------------------------------------------------------


def test_top_shows_a_node_in_another_process_at_work(here: Here, node: Node) -> None:
    waiting(here)
    here("start", "sleeper", "--id", "s")
    view = eventually(lambda: (v := here.json("top", "shop.db", "--once"))["total"]["steps_open"] and v)

    (shown,) = view["nodes"]
    assert (shown["state"], shown["pid"]) == ("living", node.process.pid)
    assert 0 < shown["lease_seconds"] <= 1.5
    assert shown["versions"] == 4
    assert view["instances"]["default"] == {"running": 1, "waiting": 1, "paused": 0, "parked": 0}
    figures = view["total"]
    assert (figures["started"], figures["steps_done"], figures["residents"]) == (2, 2, 2)
    assert figures["commit_seconds"]["p50"] > 0
    assert figures["rates"]["commits"] > 0
    assert view["stuck"] == {"parked": {}, "overdue": 0, "overdue_since": None, "without_code": 0}

    text = here("top", "shop.db", "--once")
    for word in ("NODE", "living", "4 versions", "STEPS/S", "COMMIT P50", "INSTANCES", "default", "nothing is stuck"):
        assert word in text
    (node.folder / "wake").touch()
    eventually(lambda: work_of(here)["ended"]["completed"] == 1)


def test_top_goes_on_line_by_line_where_nobody_looks_at_a_terminal(here: Here, node: Node) -> None:
    with running(node.folder, "top", "shop.db", "--json", until='"nodes"') as top:
        assert top.stdout is not None
        assert '"nodes"' in top.stdout.readline()


def test_nodes_lists_them_with_their_figures(here: Here, node: Node) -> None:
    waiting(here)
    eventually(lambda: here.lines("nodes")[0]["figures"]["steps_done"] == 2)
    assert str(node.process.pid) in here("nodes", "shop.db")


def test_the_figures_of_a_node_that_was_killed_stay_and_it_is_said_to_have_lost_its_lease(
    here: Here, node: Node
) -> None:
    waiting(here)
    eventually(lambda: work_of(here)["steps_done"] == 2)
    node.process.kill()
    node.process.wait(20)
    view = eventually(lambda: (v := here.json("top", "--once"))["nodes"][0]["state"] == "lost its lease" and v)

    assert view["nodes"][0]["figures"]["steps_done"] == 2
    assert view["nodes"][0]["lease_seconds"] < 0
    assert view["total"]["steps_done"] == 0, "nobody living does anything"
    assert view["stuck"]["without_code"] == 1
    text = here("top", "--once")
    assert "lost its lease" in text
    assert "no node runs on this store" in text
    assert 'node_up{node="' in (metrics := here("metrics", "shop.db", "--once"))
    assert "steps_completed_total{" not in metrics


def test_top_names_what_is_parked_and_what_is_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_folder(open_shop(tmp_path), "shop.db", monkeypatch, capsys)
    source = (tmp_path / "shop.py").read_text()
    late = source + "\n\n@process\nasync def late() -> None:\n    import asyncio\n\n    await asyncio.sleep(0.5)\n"
    (tmp_path / "shop.py").write_text(late)
    with running(tmp_path, "node", "shop.py", until="running") as first:
        changed = waiting(here)
        here("start", "late", "--id", "late")
        here.waits("late", "timer")
        first.kill()
        first.wait(20)
    view = eventually(lambda: (v := here.json("top", "--once"))["stuck"]["overdue"] and v)
    assert view["stuck"]["overdue_since"] < view["at"]
    assert "overdue: 1 that should have been woken, the first" in here("top", "--once")

    (tmp_path / "shop.py").write_text(late.replace("        await hold(id)\n", '        await hold(id + "!")\n'))
    with running(tmp_path, "node", "shop.py", until="running"):
        here("answer", f"{changed}/finance", "true", code=1)
        eventually(lambda: here.json("top", "--once")["stuck"]["parked"])
        assert "parked: 1 wait for the code that its journal was written with" in here("top", "--once")


# -- deployments -----------------------------------------------------------------------------------


def in_folder(folder: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", store)
    return found


@contextmanager
def versions(folder: Path, *numbers: int) -> Iterator[None]:
    """A node that has code for these versions of the job."""
    whole = "".join(VERSIONS.format(version=number) for number in numbers)
    (folder / "jobs.py").write_text(whole)
    with running(folder, "node", "jobs.py:app", until="running"):
        yield


def verdicts(here: Here) -> dict[int, str]:
    return {row["version"]: row["verdict"] for row in here.lines("deployments", "jobs.db")}


def test_deployments_say_which_version_can_go_and_which_one_lacks_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_folder(tmp_path, "jobs.db", monkeypatch, capsys)
    with versions(tmp_path, 1):
        here("start", "job", "--id", "old")
        here.waits("old", "boss")
        assert verdicts(here) == {1: "newest: 1 under way"}

    with versions(tmp_path, 2):
        eventually(lambda: here.lines("deployments", "jobs.db")[-1]["nodes"])
        assert verdicts(here) == {1: "no node has its code: 1 instance waits", 2: "newest: nothing under way"}
        assert "without code: 1 (dalsegno deployments says which)" in here("top", "--once")

    with versions(tmp_path, 1, 2):
        old, new = here.lines("deployments")
        assert old["verdict"].startswith("still 1: oldest since 20")
        assert (old["waiting"], old["newest"], new["newest"]) == (1, False, True)
        assert old["nodes"] == new["nodes"] != []
        here("answer", "old/boss", "true")
        here("result", "old", "--timeout", "20s")
        assert verdicts(here) == {1: "can go: nothing left", 2: "newest: nothing under way"}
        table = here("deployments", "jobs.py:app")
        assert "VERDICT" in table
        assert "can go: nothing left" in table


# -- metrics ---------------------------------------------------------------------------------------


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus's own parser makes of it."""
    return {
        (sample.name, tuple(value for name, value in sample.labels.items() if name != "node")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def checked(text: str) -> None:
    """Have promtool look at it, where it is installed: `make servers` does that."""
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_metrics_are_scraped_from_a_node_and_from_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_folder(open_shop(tmp_path), "shop.db", monkeypatch, capsys)
    port = free_port()
    with running(
        tmp_path, "node", "shop.py", "--metrics-port", str(port), until=f"metrics on http://127.0.0.1:{port}/"
    ):
        waiting(here)
        url = f"http://127.0.0.1:{port}/metrics"
        eventually(lambda: samples(scraped(url))["dalsegno_steps_completed_total", ()] == 2)
        of_node = scraped(url)
        beside_it = free_port()
        with running(tmp_path, "metrics", "shop.py:app", "--port", str(beside_it), until="metrics of"):
            of_store = scraped(f"http://127.0.0.1:{beside_it}/metrics")

    for text in (of_node, of_store):
        checked(text)
        found = samples(text)
        assert found["dalsegno_instances", ("default", "waiting")] == 1
        assert found["dalsegno_instances_started_total", ()] == 1
        assert found["dalsegno_node_up", ()] == 1
        commits = found["dalsegno_commit_seconds_count", ()]
        assert commits > 0
        assert found["dalsegno_commit_seconds_bucket", ("+Inf",)] == commits
        assert found["dalsegno_commit_entries_sum", ()] == found["dalsegno_entries_total", ()]
    assert set(samples(of_node)) == set(samples(of_store))


def test_metrics_of_a_store_without_nodes_are_well_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_folder(open_shop(tmp_path), "shop.db", monkeypatch, capsys)
    with running(tmp_path, "node", "shop.py", until="running"):
        pass
    text = here("metrics", "--once")

    checked(text)
    assert samples(text)["dalsegno_overdue_instances", ()] == 0


def test_a_port_that_is_taken_is_said_with_what_to_do(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here("metrics", "shop.db", "--port", str(taken.getsockname()[1]), code=2)
    assert "choose another port or host" in here.stderr


def test_without_the_package_metrics_say_how_to_install_it(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    here("metrics", "shop.db", code=2)
    assert "pip install 'dalsegno[metrics]'" in here.stderr


def test_a_store_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for verb in (("top", "--once"), ("nodes",), ("deployments",), ("metrics", "--once")):
        done = program(tmp_path, verb[0], "nowhere.db", *verb[1:])
        assert (done.returncode, "doesn't exist" in done.stderr) == (1, True), done


def test_the_alerts_of_the_guide_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rules = tmp_path / "rules.yaml"
    rules.write_text(guide.partition("```yaml\n")[2].partition("```")[0])
    told = set(re.findall(r"dalsegno_[a-z_]+", guide.partition("```yaml")[0]))

    used = {name.removesuffix("_bucket") for name in re.findall(r"dalsegno_[a-z_]+", rules.read_text())}
    assert used <= told, "the table explains each"
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "5 rules found" in done.stdout


def test_top_draws_on_a_terminal_until_ctrl_c(here: Here, node: Node) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 150, 0, 0))
    top = subprocess.Popen(
        [*PROGRAM, "top", "shop.db"],
        cwd=node.folder,
        env=environment(TERM="xterm", COLUMNS="150", LINES="25"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    # Each picture ends with what is stuck; the second one is the first that was drawn anew.
    while drawn.count(b"nothing is stuck") < 2:
        drawn += os.read(ours, 65536)
    top.send_signal(signal.SIGINT)
    threading.Thread(target=drain, args=(ours,), daemon=True).start()

    assert top.wait(20) == 130
    assert b"living" in drawn


def drain(terminal: int) -> None:
    """Read on, so that nobody who writes has to wait."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
