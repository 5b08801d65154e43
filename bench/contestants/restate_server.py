"""Restate: its server, the service under hypercorn with the settings its serving guide gives for production.

One hypercorn worker on uvloop measured as fast as two on two cores, where the server needs the other core.
The clients speak HTTP to the ingress through bare sockets, the cheapest client there is, since they share the
two cores with what they measure. Variant `one-partition` lowers the server's 24
partitions to one, which a single small machine gains by and the guide does not mention.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench.contestants import Round, asked, report
from bench.load import Outcome, Sample, drive
from bench.setup import RESTATE_SERVER

HYPERCORN = """\
bind = "127.0.0.1:{port}"
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
worker_class = "uvloop"
workers = 1
loglevel = "ERROR"
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all held until all are known, so that none is handed out twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # hypercorn's worker is a child of its own
        process.wait()


def server_settings(round_: Round, ingress: int, admin: int, fabric: int) -> dict[str, str]:
    settings = {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_BASE_DIR": f"{round_.folder}/data",
        "RESTATE_LOG_FILTER": "error",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{fabric}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
    }
    if round_.variant == "one-partition":
        settings["RESTATE_DEFAULT_NUM_PARTITIONS"] = "1"
    return settings


def request(url: str, body: bytes | None = None) -> bytes:
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        content: bytes = answer.read()
        return content


def until_answered(url: str, body: bytes | None = None, patience_seconds: float = 60) -> None:
    gives_up = time.monotonic() + patience_seconds
    while True:
        try:
            request(url, body)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > gives_up:
                raise
            time.sleep(0.1)


class Clients:
    """Kept-alive connections to the ingress, one a client in flight."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        head = "POST /bench/three_steps HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        self._message = f"{head}content-length: 2\r\n\r\n20".encode()

    async def call(self) -> None:
        if not self._idle:
            self._idle.append(await asyncio.open_connection("127.0.0.1", self._port))
        connection = reader, writer = self._idle.pop()
        writer.write(self._message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b" 200 " not in head or body != b"41":
            raise RuntimeError(f"Restate answered {head!r} {body!r}")
        self._idle.append(connection)


async def measure(round_: Round, port: int) -> list[Sample]:
    clients = Clients(port)
    await clients.call()
    return [await drive(clients.call, n, round_.seconds) for n in round_.concurrency]


def main() -> None:
    round_ = asked()
    ingress, admin, fabric, service = free_ports(4)
    folder = Path(round_.folder)
    config = folder / "hypercorn.toml"
    config.write_text(HYPERCORN.format(port=service))
    asgi = "bench.contestants.restate_service:app"
    served = [sys.executable, "-m", "hypercorn", "--config", str(config), asgi]
    settings = server_settings(round_, ingress, admin, fabric)
    with (
        running([str(RESTATE_SERVER), "--no-logo"], folder / "restate.log", settings),
        running(served, folder / "hypercorn.log", {}),
    ):
        until_answered(f"http://127.0.0.1:{admin}/health")
        until_answered(f"http://127.0.0.1:{ingress}/restate/health")
        uri = f'{{"uri": "http://127.0.0.1:{service}"}}'.encode()
        until_answered(f"http://127.0.0.1:{admin}/deployments", uri)
        report(Outcome(uvloop.run(measure(round_, ingress))))


if __name__ == "__main__":
    main()
