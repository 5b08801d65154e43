"""The operator's view of several nodes on one PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import eventually, in_this_process, open_shop, running, waiting


def test_top_shows_every_node_of_a_fleet_and_what_they_do_together(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_this_process(monkeypatch, capsys)
    folder = open_shop(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", postgres_url)
    node = ("node", "shop.py", "--store", postgres_url)
    with running(folder, *node, until="running") as first, running(folder, *node, until="running") as second:
        for _ in range(4):
            waiting(here)
        view = eventually(lambda: (v := here.json("top", "--once"))["total"]["steps_done"] == 8 and v)

        shown = {found["pid"]: found for found in view["nodes"]}
        assert set(shown) == {first.pid, second.pid}
        assert {found["state"] for found in view["nodes"]} == {"living"}
        assert view["total"]["residents"] == view["instances"]["default"]["waiting"] == 4
        assert view["total"]["started"] == sum(found["figures"]["started"] for found in view["nodes"]) == 4
        assert "all that live" in here("top", postgres_url, "--once")
        (order,) = [row for row in here.lines("deployments") if row["process"] == "order"]
        assert len(order["nodes"]) == 2
        assert (order["waiting"], order["verdict"]) == (4, "newest: 4 under way")

        second.kill()
        second.wait(20)
        view = eventually(lambda: (v := here.json("top", "--once"))["nodes"] and _states(v) == {"living", "gone"} and v)
        assert view["instances"]["default"]["waiting"] == 4
        metrics = here("metrics", "--once")
        assert metrics.count("dalsegno_steps_completed_total{") == 1


def _states(view: dict[str, list[dict[str, str]]]) -> set[str]:
    """A node that was killed has lost its lease, and has ended once the other one took over."""
    return {"living" if found["state"] == "living" else "gone" for found in view["nodes"]}
