"""Journals outside the store: exported, replayed through changed code, taken in elsewhere; and the store's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_world import Here, empty_store, in_this_process, open_shop, program, running

from dalsegno import App, Refused, annotate, archive, ask, process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the shop; two nodes run, each on a store of its own."""
    found = open_shop(tmp_path_factory.mktemp("shop"))
    with (
        running(found, "node", "shop.py", until="running"),
        running(found, "node", "shop.py", "--store", "other.db", until="running"),
    ):
        yield found


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", "shop.db")
    return found


def ordered(here: Here, id: str, amount: int = 5) -> None:
    """An order that waits for finance."""
    here("start", "order", "--input", json.dumps(id), "--input", str(amount), "--id", id)
    here.waits(id, "finance")


def finished(here: Here, id: str) -> None:
    """An order that completed."""
    ordered(here, id)
    here("answer", f"{id}/finance", "true")
    here("publish", "Delivered", json.dumps({"order_id": id}), "--key", "order_id")
    here("result", id, "--timeout", "20s")


# -- out and in --------------------------------------------------------------------------------------------


def test_an_export_is_readable_lines_of_json(here: Here) -> None:
    finished(here, "e1")

    header, *entries = [json.loads(line) for line in here("export", "e1").splitlines()]

    assert (header["journal"], header["id"], header["process"], header["status"]) == (1, "e1", "order", "completed")
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    assert entries[0]["time"].startswith("20")
    assert entries[0]["entry"] == {
        "kind": "started",
        "process": "order",
        "version": 1,
        "input": ["e1", 5, {}],
        "by": entries[0]["entry"]["by"],
    }
    assert entries[-1]["entry"]["kind"] == "ended"


def test_an_ended_instance_is_taken_in_as_it_was(here: Here) -> None:
    finished(here, "e2")
    here("export", "e2", "--to", "e2.jsonl")

    assert here.lines("import", "e2.jsonl", "--store", "other.db") == [{"id": "e2", "ok": True}]

    assert here("export", "e2", "--store", "other.db") == here("export", "e2")
    assert here.json("result", "e2", "--store", "other.db") == here.json("result", "e2")


def test_an_instance_under_way_goes_on_in_the_other_store_without_repeating_a_step(here: Here, folder: Path) -> None:
    ordered(here, "e3")
    here("export", "e3", "--to", "e3.jsonl")

    assert here("import", "e3.jsonl", "--store", "other.db") == "e3 is taken in\n"

    elsewhere = ["--store", "other.db"]
    assert here.lines("list", "--prefix", "e3", *elsewhere)[0]["annotations"] == {"stage": "packing", "amount": 5}
    here.waits("e3", "finance", *elsewhere)
    here("answer", "e3/finance", "true", *elsewhere)
    here("publish", "Delivered", '{"order_id": "e3", "at": "dusk"}', "--key", "order_id", *elsewhere)
    assert here.json("result", "e3", "--timeout", "20s", *elsewhere)["result"]["at"] == "dusk"
    assert (folder / "effects").read_text().count("hold e3\n") == 1
    assert here.status("e3") == "waiting", "the original knows nothing of it"


def test_a_paused_instance_is_taken_in_paused(here: Here) -> None:
    ordered(here, "e4")
    here("pause", "e4")
    here("export", "e4", "--to", "e4.jsonl")
    here("import", "e4.jsonl", "--store", "other.db")

    assert here.lines("list", "--prefix", "e4", "--store", "other.db")[0]["status"] == "paused"
    here("resume", "e4", "--store", "other.db")
    here("cancel", "e4", "--store", "other.db")
    assert here.json("result", "e4", "--timeout", "20s", "--store", "other.db", code=1)["status"] == "cancelled"


async def test_python_does_the_same_on_any_store(until: Callable[..., Awaitable[Any]]) -> None:
    @process
    async def asks(name: str) -> str:
        annotate(name=name)
        return f"{name}: {await ask('finance', str)}"

    async with App("memory://", processes=[asks]) as here:
        run = await here.start(asks, "Ada", id="a")
        await until(here.tasks)
        (archived,) = archive.read(archive.lines(await run.describe(), await run.history()))
        with pytest.raises(Refused, match="exists already"):
            await here.restore(archived)
    async with App("memory://", processes=[asks]) as there:
        run = await there.restore(archived)
        await until(there.tasks)
        await there.answer("a/finance", "yes")
        assert await run.result() == "Ada: yes"
        assert await run.annotations() == {"name": "Ada"}
        (ended,) = archive.read(archive.lines(await run.describe(), await run.history()))
    async with App("memory://", processes=[asks]) as elsewhere:
        assert await (await elsewhere.restore(ended)).result() == "Ada: yes"
        await elsewhere.replay("a")


def test_a_taken_id_is_refused_and_the_others_are_taken_in(here: Here) -> None:
    finished(here, "e5")
    here("export", "e5", "--to", "e5.jsonl")
    here("import", "e5.jsonl", "--store", "other.db")
    finished(here, "e6")
    here("export", "--prefix", "e5", "--to", "both.jsonl")
    with Path("both.jsonl").open("a") as both:
        both.write(here("export", "e6"))

    told = here.lines("import", "both.jsonl", "--store", "other.db", code=1)

    assert [(line["id"], line["ok"]) for line in told] == [("e5", False), ("e6", True)]
    assert told[0]["error"]["type"] == "Refused"


def test_a_parent_is_exported_with_its_children(here: Here) -> None:
    here("start", "parent", "--input", '"Ada"', "--id", "p")
    here("result", "p", "--timeout", "20s")

    headers = [line for line in map(json.loads, here("export", "p").splitlines()) if "journal" in line]

    assert [header["process"] for header in headers] == ["parent", "greet"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense\n", "line 1 isn't a line of an exported journal"),
        ('{"seq": 1}\n', "line 1 isn't a line of an exported journal"),
    ],
)
def test_a_file_that_is_no_export_is_refused_by_line(here: Here, text: str, complaint: str) -> None:
    Path("bad.jsonl").write_text(text)

    assert complaint in here.error("import", "bad.jsonl")["message"]


def test_a_file_that_isnt_there_is_named(here: Here) -> None:
    assert "none.jsonl" in here.error("import", "none.jsonl")["message"]
    assert "nowhere" in here.error("export", "--status", "failed", "--to", "nowhere/x.jsonl")["message"]


def test_a_journal_with_a_gap_is_refused(here: Here) -> None:
    finished(here, "e7")
    lines = here("export", "e7").splitlines()
    Path("gap.jsonl").write_text("\n".join(lines[:3] + lines[4:]))

    assert "has gaps" in here.error("import", "gap.jsonl", "--store", "other.db")["message"]


# -- replay ------------------------------------------------------------------------------------------------


def test_code_that_still_fits_its_journals_passes(here: Here, folder: Path) -> None:
    finished(here, "r1")
    here("export", "r1", "--to", "r1.jsonl")

    assert program(folder, "replay", "shop.py", "r1").returncode == 0
    told = program(folder, "replay", "shop.py", "--journals", "r1.jsonl", "--json")
    assert (told.returncode, json.loads(told.stdout)) == (0, {"id": "r1", "process": "order", "ok": True})


def test_code_that_no_longer_fits_fails_with_expected_and_found(here: Here, folder: Path) -> None:
    finished(here, "r2")
    here("export", "r2", "--to", "r2.jsonl")
    changed = (folder / "shop.py").read_text().replace("        await hold(id)\n", "")
    (folder / "changed.py").write_text(changed)

    told = program(folder, "replay", "changed.py", "--journals", "r2.jsonl", "--json")
    line = json.loads(told.stdout)
    assert told.returncode == 1
    assert set(line) == {"id", "process", "ok", "error", "expected", "found"}
    assert (line["ok"], line["error"]["type"]) == (False, "JournalMismatch")
    assert "hold" in line["expected"]

    told = program(folder, "replay", "changed.py", "r2")
    assert told.returncode == 1
    assert "  expected " in told.stdout
    assert "  found " in told.stdout
    assert "that don't: 1" in told.stderr


def test_a_journal_whose_process_is_gone_fails_too(here: Here, folder: Path) -> None:
    finished(here, "r3")
    (folder / "renamed.py").write_text((folder / "shop.py").read_text().replace("async def order", "async def orders"))

    told = program(folder, "replay", "renamed.py", "r3")

    assert told.returncode == 1
    assert "no process 'order' is declared here" in told.stdout


# -- the file ----------------------------------------------------------------------------------------------


def test_a_store_in_use_is_found_sound(here: Here) -> None:
    ordered(here, "d1")

    assert here.json("db", "check") == {"file": "shop.db", "ok": True, "findings": []}
    assert here("db", "check", "other.db") == ""
    assert "other.db is sound" in here.stderr


def test_a_backup_beside_a_running_node_is_a_whole_store(here: Here, folder: Path) -> None:
    finished(here, "d2")
    ordered(here, "d3")

    made = here.json("db", "backup", "copy.db")

    assert made == {"file": "shop.db", "backup": "copy.db", "bytes": (folder / "copy.db").stat().st_size}
    assert here.json("db", "check", "copy.db")["ok"]
    assert here.json("result", "d2", "--store", "copy.db")["status"] == "completed"
    with running(folder, "node", "shop.py", "--store", "copy.db", until="running"):
        here("answer", "d3/finance", "true", "--store", "copy.db")
    assert here.error("db", "backup", "copy.db")["type"] == "StoreError"


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM journal WHERE kind = 'annotated'", "its journal has gaps"),
        ("UPDATE journal SET entry = 'x' WHERE kind = 'ended'", "can't be read as ended"),
        ("UPDATE instances SET status = 'completed' WHERE status = 'waiting'", "but its journal says started"),
        ("DELETE FROM instances WHERE status = 'waiting'", "which doesn't exist"),
        ("UPDATE instances SET base_seq = 1", "its run doesn't begin at entry 1"),
        ("UPDATE migrations SET checksum = 'x'", "was applied with another text"),
        ("DELETE FROM migrations", "run 'dalsegno db migrate'"),
    ],
)
def test_damage_is_found(here: Here, folder: Path, damage: str, finding: str) -> None:
    finished(here, f"damaged-{finding}")
    ordered(here, f"waiting-{finding}")
    (folder / "damaged.db").unlink(missing_ok=True)
    here("db", "backup", "damaged.db")
    with closing(sqlite3.connect(folder / "damaged.db")) as connection, connection:
        connection.execute(damage)

    checked = here.json("db", "check", "damaged.db", code=1)

    assert checked["ok"] is False
    assert any(finding in line for line in checked["findings"])


def test_a_file_that_is_no_database_is_told_apart(here: Here, folder: Path) -> None:
    (folder / "text.db").write_text("not a database at all" * 100)

    assert here.error("db", "check", "text.db")["type"] == "StoreCorrupt"
    assert here.error("db", "check", "none.db")["type"] == "StoreError"


def test_migrate_says_what_it_applied(here: Here, folder: Path) -> None:
    empty_store(folder / "empty.db")

    assert here.json("db", "migrate", "empty.db") == {"file": "empty.db", "applied": []}
    (folder / "new.db").touch()
    assert here.json("db", "migrate", "new.db")["applied"][0] == "0001_foundation"
    assert here.json("db", "check", "new.db")["ok"]
