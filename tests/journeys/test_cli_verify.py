"""`dalsegno verify`: kills, pauses and failing disks against somebody's own process, and what is said of it."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli_world import program

from dalsegno.errors import UsageError
from dalsegno.testing.verify.plan import KINDS, read_strikes, strikes_for

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
SHOP = Path(__file__).with_name("verified_shop.py")
PASSED = {"commit.before": 4, "effect.before": 3, "effect.after": 3, "lease.acquired": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(SHOP, tmp_path / "shop.py")
    (tmp_path / "world").mkdir()
    return tmp_path


def test_a_clean_process_survives_kills_pauses_and_bad_disks(folder: Path) -> None:
    ran = program(folder, "verify", "shop.py:order", "--input", '"{id}"', "--input", "5", "--runs", "40", "--json")
    found = json.loads(ran.stdout)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (found["ok"], found["runs"], found["compared"], found["violation"]) == (True, 40, True, None)
    assert found["faults"]["kill"] > 20
    assert found["faults"]["freeze"] > 0
    assert sum(times > 0 for times in found["points"].values()) > 15
    assert found["attempts"] > 80
    assert 3 / 40 <= found["bound"] < 0.2


def test_a_saga_under_faults_leaves_what_it_leaves_undisturbed(folder: Path) -> None:
    inputs = '["{id}", 500]\n["{id}", 5]\n'
    (folder / "inputs.jsonl").write_text(inputs)

    ran = program(
        folder, "verify", "shop.py:order", "--input-file", "inputs.jsonl", "--leftovers", "shop.py:held",
        "--runs", "25", "--report", "verify.html",
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No violation" in ran.stdout
    assert "25 runs of 50 instances" in ran.stdout
    assert "commit.executed" in (folder / "verify.html").read_text()
    assert "charge, which may have taken effect (it has no undo)" in ran.stdout


def test_a_step_that_ignores_its_key_is_told_but_no_violation(folder: Path) -> None:
    ran = program(folder, "verify", "shop.py:newsletter", "--input", '"a"', "--runs", "25")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mail ran twice with the same key after a kill: make it idempotent by step_key()" in ran.stdout


def test_a_step_that_asks_for_its_key_is_trusted(folder: Path) -> None:
    ran = program(folder, "verify", "shop.py:order", "--input", '"{id}"', "--input", "5", "--runs", "25")

    assert "reserve ran twice with the same key after a kill: it asks for its step_key()" in ran.stdout


def test_code_with_a_state_of_its_own_is_found_by_replay(folder: Path) -> None:
    ran = program(folder, "verify", "shop.py:fickle", "--input", '"a"', "--runs", "5")

    assert ran.returncode == 1
    assert "takes another way: expected 'mail' called as journaled" in ran.stdout


def test_an_undo_that_forgets_something_is_found_and_its_run_is_repeated(folder: Path) -> None:
    arguments = ["shop.py:forgetful", "--input", '"{id}"', "--input", "500", "--leftovers", "shop.py:held"]

    ran = program(folder, "verify", *arguments, "--runs", "60")

    assert ran.returncode == 1, ran.stdout
    assert "behind; undisturbed: 0" in ran.stdout
    assert "life 1 of the engine ran" in ran.stdout
    again = shlex.split(ran.stdout.partition("this run again: dalsegno ")[2])
    shutil.rmtree(folder / "world")
    (folder / "world").mkdir()
    assert "behind; undisturbed: 0" in program(folder, *again).stdout


def test_a_node_that_wakes_up_with_nothing_left_to_write_may_end_well(folder: Path) -> None:
    frozen = "freeze:end.committed#1"

    ran = program(
        folder, "verify", "shop.py:order", "--input", '"{id}"', "--input", "5", "--runs", "6", "--faults", frozen
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 engines frozen" in ran.stdout


def test_a_doubled_step_needs_no_server(folder: Path) -> None:
    ran = program(
        folder, "verify", "shop.py:banking", "--input", "5", "--double", 'call_the_bank="yes"', "--runs", "10"
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_script_publishes_what_the_process_waits_for(folder: Path) -> None:
    arguments = ["verify", "shop.py:packing", "--input", '"{id}"', "--runs", "20"]

    alone = program(folder, *arguments, "--patience", "1")
    helped = program(folder, *arguments, "--script", "shop.py:pack")

    assert alone.returncode == 2
    assert "waiting" in alone.stderr
    assert "--script" in alone.stderr
    assert helped.returncode == 0, helped.stdout + helped.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--input", "7", "--input", "8"], "a text needs its quotes"),
        (["--input", '"a"'], "missing a required argument"),
        (["--input", '"a"', "--input", "1", "--faults", "kill:nowhere#1"], "there is no point 'nowhere'"),
        (["--input", '"a"', "--input", "1", "--script", "shop.py:WORLD"], "is no function"),
    ],
)
def test_a_call_that_cant_be_right_names_its_remedy(folder: Path, arguments: list[str], remedy: str) -> None:
    ran = program(folder, "verify", "shop.py:order", *arguments)

    assert ran.returncode == 2
    assert remedy in ran.stderr


def test_the_guides_command_prints_what_it_says(tmp_path: Path) -> None:
    guide = GUIDE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(blocks[0])
    (tmp_path / "deliver.py").write_text(next(block for block in blocks if block.startswith("# deliver.py")))
    shown = guide[guide.index("$ dalsegno verify") + 2 :].partition("```")[0]
    command, _, expected = shown.replace("\\\n>", "").partition("\n")

    ran = program(tmp_path, *shlex.split(command)[1:])

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert doctest.OutputChecker().check_output(expected, ran.stdout, doctest.ELLIPSIS), ran.stdout


def test_a_seed_stands_for_the_same_faults_each_time() -> None:
    assert strikes_for(7, PASSED, True, 0.1) == strikes_for(7, PASSED, True, 0.1)


def test_each_point_has_its_turn_and_each_kind_comes() -> None:
    strikes = [strike for seed in range(200) for strike in strikes_for(seed, PASSED, True, 0.1)]

    assert {strike.kind for strike in strikes} == set(KINDS)
    assert {strike.place for strike in strikes if strike.place} >= set(PASSED)


def test_faults_are_read_as_they_are_written() -> None:
    for seed in range(50):
        strikes = strikes_for(seed, PASSED, True, 0.1)
        assert read_strikes(",".join(map(str, strikes))) == strikes


@pytest.mark.parametrize("text", ["kill", "kill:7", "freeze:x", "fail-sync:y", "burn:1", "fail-sync:commit.before#1"])
def test_faults_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--faults"):
        read_strikes(text)
