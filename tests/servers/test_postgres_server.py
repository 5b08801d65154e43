"""Servers of one's own: what was committed outlives a crash, standbys take over, and replies get lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dalsegno.testing.proxy import Proxy
from dalsegno.testing.servers import PgBouncer, PostgresServer, ServerFailed, ServerMissing, postgres


def psql(url: str, sql: str) -> subprocess.CompletedProcess[str]:
    command = [str(postgres._programs() / "psql"), "-XqAt", url, "-c", sql]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def server() -> PostgresServer:
    with PostgresServer() as server:
        yield server


def test_a_crash_keeps_what_was_committed(server: PostgresServer) -> None:
    url = server.create_database("crash")
    assert psql(url, "create table t(i int); insert into t values (1)").returncode == 0
    before = server.pid
    server.restart("immediate")
    assert server.pid != before
    assert psql(url, "select i from t").stdout == "1\n"
    assert server.query("show fsync") == "on"
    server.stop()
    assert not server.running
    assert psql(url, "select 1").returncode == 2
    server.start()
    assert server.query("select i from t", "crash") == "1"


def test_backends_are_killed(server: PostgresServer) -> None:
    url = server.create_database()
    command = [str(postgres._programs() / "psql"), "-X", url]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    client.stdin.write(b"\\echo here\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"here\n"
    assert server.kill_backends(url.rpartition("/")[2]) == 1
    client.communicate(b"select 1;\n", timeout=30)
    assert client.returncode != 0


def test_a_template_is_prepared_once(server: PostgresServer) -> None:
    calls = []

    def prepare(url: str) -> None:
        calls.append(url)
        psql(url, "create table prepared()")

    for _ in range(2):
        url = server.create_database(template=server.template("with_a_table", prepare))
        assert psql(url, "select * from prepared").returncode == 0
    assert len(calls) == 1


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_pgbouncer(server: PostgresServer, pool_mode: str) -> None:
    with PgBouncer(server.create_database(), pool_mode) as pool:
        assert psql(pool.url(), "select 1").stdout == "1\n"
        assert psql(pool.url("postgres"), "select current_database()").stdout == "postgres\n"
        pool.restart()
        assert psql(pool.url(), "select 1").stdout == "1\n"


@pytest.mark.parametrize("sql", ["insert into t values (1)", "begin; insert into t values (1); commit"])
def test_the_reply_of_a_commit_is_lost(server: PostgresServer, sql: str) -> None:
    url = server.create_database()
    psql(url, "create table t(i int)")
    with Proxy(server.host, server.port) as proxy:
        proxy.lose_commit_reply()
        assert psql(proxy.url(url), "select 1").stdout == "1\n"
        lost = psql(proxy.url(url), sql)
        assert lost.returncode != 0
        assert "INSERT" not in lost.stdout
        assert proxy.faults == {"lose_commit_reply": 1}
        assert psql(proxy.url(url), "select count(*) from t").stdout == "1\n"


def test_a_standby_has_what_was_committed_and_takes_over() -> None:
    with PostgresServer(fsync=False) as primary, PostgresServer.standby_of(primary) as standby:
        primary.query("create table t(i int); insert into t values (1)")
        primary.stop("immediate")
        standby.promote()
        assert standby.query("insert into t values (2); select count(*) from t") == "2"
        standby.restart()
        assert standby.query("select count(*) from t") == "2"


def test_a_primary_goes_on_when_its_standby_is_closed() -> None:
    with PostgresServer(fsync=False) as primary:
        with PostgresServer.standby_of(primary):
            assert primary.query("select sync_state from pg_stat_replication") == "sync"
        primary.query("create table t()")


def test_nothing_is_left_of_a_killed_owner() -> None:
    program = (
        "from dalsegno.testing.servers import *\n"
        "server = PostgresServer(fsync=False).start()\n"
        "print(server.socket_folder, flush=True); input()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    folder = Path(owner.stdout.readline().decode().strip())
    pid = int((folder / "server.pid").read_text())
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    until = time.monotonic() + 20
    while folder.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    command = Path(f"/proc/{pid}/cmdline")
    # Empty where nobody has waited for the dead process.
    assert not command.exists() or str(folder) not in command.read_text()


def test_what_goes_wrong_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerFailed, match="no_such_setting"):
        PostgresServer(no_such_setting=1).start()
    with pytest.raises(ServerFailed, match="wasn't started"):
        PostgresServer().stop()
    monkeypatch.setattr("dalsegno.testing.servers.pgbouncer.program", lambda name: None)
    with pytest.raises(ServerMissing, match="make servers"):
        PgBouncer("postgresql://localhost/db")
    monkeypatch.setattr(postgres, "OLDEST_VERSION", 99)
    with pytest.raises(ServerMissing, match=r"only version \d+: `make servers`"):
        postgres._programs.__wrapped__()


class TestSharedServer:
    seen = SimpleNamespace(url="")

    def test_a_database_for_each_test(self, postgres_url: str, postgres_class_url: str) -> None:
        assert psql(postgres_url, "create table t()").returncode == 0
        assert psql(postgres_class_url, "create table t()").returncode == 0
        self.seen.url = postgres_url

    def test_and_one_for_a_class(self, postgres_url: str, postgres_class_url: str) -> None:
        assert postgres_url != self.seen.url
        assert psql(self.seen.url, "select 1").returncode != 0
        assert psql(postgres_url, "select * from t").returncode != 0
        assert psql(postgres_class_url, "select * from t").returncode == 0
