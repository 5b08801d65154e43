"""The whole demo: four services with faults, an engine that is killed, and books that agree at the end."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("dalsegno.app")

from examples.order_to_cash import demo
from examples.order_to_cash.orders import read_orders
from examples.order_to_cash.reconciliation import reconcile
from examples.order_to_cash.supervisor import ROOT

ORDERS = 80


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.order_to_cash.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A small demo, with its directory kept."""
    directory = tmp_path_factory.mktemp("demo") / "kept"
    return run_demo("--limit", str(ORDERS), "--outage-seconds", "2", "--keep", str(directory)), directory


def test_the_books_agree_although_the_engine_was_killed(
    ran: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    finished, directory = ran

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "The reconciliation holds." in finished.stdout
    assert "the engine was killed (SIGKILL)" in finished.stdout
    assert "the shipping provider is out" in finished.stdout
    again = reconcile(read_orders(demo.SHIPPED).first(ORDERS), directory)
    assert again.holds
    assert again.figures["orders"] == ORDERS
    # Whether a cancellation finds its order under way or fulfilled is a matter of timing; it is paid back either way.
    assert again.figures["called off and compensated"] + again.figures["credit notes"] > 0


def test_the_services_did_misbehave(ran: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, directory = ran

    with closing(sqlite3.connect(directory / "shipping.db")) as connection:
        calls, orders = connection.execute("SELECT count(*), count(DISTINCT order_id) FROM callbacks").fetchone()
    assert calls > orders


def test_a_double_charge_in_the_kept_books_is_found(
    ran: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    _, directory = ran
    for file in directory.glob("*.db*"):
        shutil.copy(file, tmp_path)
    with closing(sqlite3.connect(tmp_path / "payments.db")) as connection:
        ((order_id,),) = connection.execute("SELECT order_id FROM charges LIMIT 1").fetchall()
        connection.execute("INSERT INTO charges (order_id, card, amount) VALUES (?, 'card', 1)", (order_id,))
        connection.commit()

    found = reconcile(read_orders(demo.SHIPPED).first(ORDERS), tmp_path)

    assert found.mismatches["not charged twice"] == [order_id]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no such file"), ("a,b\n1,2\n", "the first line must be the header")]
)
def test_a_file_that_is_no_order_book_ends_the_demo_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "orders.csv"
    if content is not None:
        path.write_text(content)

    assert demo.main(["--orders", str(path)]) == demo.BAD_INPUT
    assert message in capsys.readouterr().out


def test_a_directory_that_holds_something_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()

    assert demo.main(["--keep", str(tmp_path)]) == demo.BAD_INPUT
    assert "is not empty" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
