"""One file, one command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import PROGRAM, Here, empty_store, environment, eventually, in_this_process, open_shop, program, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_shop(tmp_path)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.chdir(folder)
    return in_this_process(monkeypatch, capsys)


def test_one_file_and_one_command_run_a_process_and_print_its_result(folder: Path) -> None:
    ran = program(folder, "run", "shop.py:greet", "--input", '"Ada"')

    assert (ran.returncode, ran.stdout) == (0, '"hello Ada, 9"\n'), ran.stderr
    assert "completed" in program(folder, "list").stdout


def test_the_outcome_is_an_object_in_json(folder: Path) -> None:
    ran = program(folder, "run", "shop.py:greet", "--input", '"Ada"', "--id", "g", "--json")

    assert json.loads(ran.stdout) == {
        "id": "g",
        "namespace": "default",
        "process": "greet",
        "status": "completed",
        "result": "hello Ada, 9",
        "error": None,
    }


def test_arguments_come_by_place_by_name_and_from_files(folder: Path) -> None:
    (folder / "name.json").write_text('"Bo"')

    ran = program(folder, "run", "shop:app", "greet", "--input", "@name.json", "--input", "number=4")

    assert ran.stdout == '"hello Bo, 16"\n', ran.stderr
    assert (folder / "shop.db").exists()
    assert not (folder / "dalsegno.db").exists()


def test_running_the_same_id_again_repeats_no_effect(folder: Path) -> None:
    failed = [program(folder, "run", "shop.py:order", "--input", '"7"', "--input", "500", "--id", "o7") for _ in "ab"]

    assert [ran.returncode for ran in failed] == [1, 1]
    assert (folder / "effects").read_text() == "hold 7\nrelease 7\n"


def test_a_failure_is_told_with_the_users_own_lines(folder: Path) -> None:
    ran = program(folder, "run", "shop.py:order", "--input", '"7"', "--input", "500")

    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "NoFunds: 500 is too much for 7" in ran.stderr
    assert "raise NoFunds" in ran.stderr
    assert "kernel" not in ran.stderr
    assert "dalsegno show" in ran.stderr


def test_a_failure_in_json_has_its_type_and_message(folder: Path) -> None:
    ran = program(folder, "run", "shop.py:order", "--input", '"7"', "--input", "500", "--id", "o7", "--json")

    outcome = json.loads(ran.stdout)
    assert (ran.returncode, outcome["status"], outcome["result"]) == (1, "failed", None)
    assert outcome["error"] == {"type": "NoFunds", "message": "500 is too much for 7"}


def test_in_memory_nothing_is_left_behind(folder: Path) -> None:
    ran = program(folder, "run", "shop.py:greet", "--input", '"Ada"', "--store", "memory")

    assert ran.returncode == 0, ran.stderr
    assert not list(folder.glob("*.db"))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["run", "shop.py:greet", "--input", "Ada"], "a text needs its quotes"),
        (["run", "shop.py:greet", "--input", "@none.json"], "No such file"),
        (["run", "shop.py:greet"], "missing a required argument: 'name'"),
        (["run", "shop.py:greet", "--input", '"Ada"', "--input", "colour=1"], "unexpected keyword argument 'colour'"),
        (["run", "shop.py"], "it has order, sleeper, greet, parent"),
        (["run", "shop.py:ordr"], "it has order, sleeper, greet, parent, app"),
        (["run", "shop.py:hold"], "neither a @process nor an App"),
        (["run", "shp.py:order"], "there is no file shp.py"),
        (["run", "shp:order"], "give module:name or file.py:name"),
        (["run", "broken.py:order"], "SyntaxError"),
        (["run", "careless.py:order"], "ZeroDivisionError: division by zero"),
        (["run", "shop:app", "ordr"], "no process 'ordr' is declared here"),
        (["run", "shop.py:greet", "--input", '"Ada"', "--store", "mysql://x"], "isn't a store"),
        (["run"], "requires an argument"),
        (["list", "--status", "lost", "--store", "there.db"], "there are running, waiting"),
        (["list", "--where", "stage", "--store", "there.db"], "--where name=value"),
        (["list", "--older-than", "soon", "--store", "there.db"], "'90s', '1h30m', '3d'"),
        (["list"], "DALSEGNO_STORE"),
        (["cancel"], "requires an argument"),
        (["cancel", "o1", "--jsn", "--store", "there.db"], "there is no option --jsn"),
        (["import", "--jsn", "--store", "there.db"], "there is no option --jsn"),
        (["export"], "nothing is chosen"),
        (["lst"], 'Unknown command "lst"'),
        (["db", "check", "memory"], "no SQLite file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_call_that_cant_be_right_ends_with_2_and_says_what_to_do(
    folder: Path, here: Here, arguments: list[str], remedy: str
) -> None:
    (folder / "broken.py").write_text("def (:\n")
    (folder / "careless.py").write_text("1 / 0\n")
    empty_store(folder / "there.db")

    here(*arguments, code=2)

    assert remedy in " ".join(here.stderr.replace("│", " ").split())
    assert "Traceback" not in here.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_waits_for_and_goes_on_after_an_interruption(folder: Path, how: signal.Signals) -> None:
    command = ["run", "shop.py:order", "--input", '"7"', "--id", "o7"]
    with subprocess.Popen(
        [*PROGRAM, *command], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "waits" in (line := process.stderr.readline()) or "waiting" in line
        assert "answer from finance" in line
        process.send_signal(how)
        assert "--id o7" in process.stderr.read()
        assert process.wait(20) == 130

    with running(folder, "node", "shop.py", "--store", "dalsegno.db", until="running"):
        eventually(lambda: program(folder, "answer", "o7/finance", "true").returncode == 0)
        program(folder, "publish", "Delivered", '{"order_id": "7", "at": "noon"}', "--key", "order_id")
        result = program(folder, "result", "o7", "--timeout", "20s", "--json")
        owned = program(folder, *command)

    assert json.loads(result.stdout)["result"]["at"] == "noon"
    assert (folder / "effects").read_text() == "hold 7\n"
    assert owned.returncode == 1
    assert "is owned by node" in owned.stderr


def test_the_program_helps_with_each_verb(folder: Path, here: Here) -> None:
    whole = program(folder, "--help").stdout

    for verb in ("run", "dev", "node", "list", "show", "watch", "fork", "publish", "answer", "replay", "import", "db"):
        assert f"│ {verb} " in whole
    for verb in re.findall(r"^│ (\w+) ", whole, re.MULTILINE):
        assert f"Usage: dalsegno {verb}" in here(verb, "--help")
    assert program(folder, "--version").stdout == "0.1.0\n"


def test_the_library_loads_nothing_of_the_command_line() -> None:
    code = "import dalsegno, dalsegno.cli, sys; print([m for m in ('cyclopts', 'rich') if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
