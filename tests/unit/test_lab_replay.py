"""Stored journals through the present code, and the pytest plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno import InvalidValue, JournalMismatch, UsageError, process, step
from dalsegno.testing import Lab

pytest_plugins = ["pytester"]


@step
async def one(number: int) -> int:
    return number


@step
async def two(number: int) -> int:
    return number


@process(name="order")
async def order(number: int) -> int:
    return await one(number)


@process(name="order")
async def changed_order(number: int) -> int:
    return await two(number)


@process(name="invoice")
async def invoice(number: int) -> int:
    return await one(number)


def test_a_journal_fits_the_code_it_was_written_with(lab: Lab, tmp_path: Path) -> None:
    run = lab.start(order, 5)
    export = tmp_path / "order.jsonl"
    export.write_text(run.export())

    for source in (run.journal, list(run.journal), run.export(), run.export().encode(), export):
        lab.replay(source, order, id=run.id)


def test_code_that_takes_another_way_is_a_mismatch(lab: Lab) -> None:
    run = lab.start(order, 5)

    with pytest.raises(JournalMismatch, match="expected 'one'"):
        lab.replay(run.export(), changed_order)


def test_what_is_no_journal_of_the_process_is_refused(lab: Lab) -> None:
    run = lab.start(order, 5)

    with pytest.raises(UsageError, match="no journal of invoice to replay; there are journals of: order"):
        lab.replay(run.export(), invoice)
    with pytest.raises(UsageError):
        lab.replay([], order)
    with pytest.raises(InvalidValue, match="line 1"):
        lab.replay("something else", order)


def test_the_fixture_takes_its_seed_from_the_command_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_seed(lab):\n    assert lab.seed == 7")

    pytester.runpytest_inprocess("--lab-seed", "7").assert_outcomes(passed=1)


def test_a_run_that_replays_differently_fails_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import random
        from dalsegno import process, step

        @step
        async def one(number: float) -> float:
            return number

        @process(lint=False)
        async def gambles() -> float:
            return await one(random.random())

        def test_gambling(lab):
            lab.run(gambles)
        """
    )
    result = pytester.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*process code isn't deterministic*", "*gambles*"])


def test_importing_dalsegno_does_not_import_its_testing() -> None:
    code = "import dalsegno, sys; sys.exit(any(name.startswith('dalsegno.testing') for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
