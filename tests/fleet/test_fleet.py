"""Several nodes on one PostgreSQL: each a process of its own, killed, frozen and drained."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fleet_program as program
import pytest

from dalsegno import App, Refused

LEASE_SECONDS = 2.0


class Fleet:
    """Nodes of one store, and what their witness saw."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.witness = folder / "witness"
        self.witness.touch()
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "STORE": self.url, "WITNESS": str(self.witness)}
        command = [str(Path(sys.executable).with_name("dalsegno")), "node", "fleet_program:app"]
        node = subprocess.Popen(command, env=env, stdout=self.log.open("ab"), stderr=subprocess.STDOUT)
        self.nodes.append(node)
        return node

    def effects(self) -> Counter[str]:
        return Counter(line.split()[1] for line in self.witness.read_text().splitlines())

    def workers(self) -> Counter[int]:
        return Counter(int(line.split()[0]) for line in self.witness.read_text().splitlines())

    def close(self) -> None:
        for node in self.nodes:
            if node.poll() is None:
                node.send_signal(signal.SIGCONT)
                node.kill()
            node.wait()


@pytest.fixture
def fleet(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    found = Fleet(postgres_url, tmp_path)
    monkeypatch.setenv("WITNESS", str(found.witness))
    try:
        yield found
    finally:
        found.close()


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def living(app: App, count: int) -> None:
    async def there() -> bool:
        return sum(node.ended_at is None for node in await app.nodes()) == count

    await until(there)


async def schema(fleet: Fleet) -> None:
    async with App(fleet.url):
        pass


async def test_what_clients_start_is_shared_by_the_nodes_and_their_results_come_back(fleet):
    await schema(fleet)
    fleet.start()
    fleet.start()
    async with App(fleet.url).client() as app:
        await living(app, 2)
        runs = [await app.start(program.three_steps, n) for n in range(200)]
        assert await asyncio.gather(*(run.result() for run in runs)) == [3 * n for n in range(200)]
    assert set(fleet.effects().values()) == {1}
    assert len(fleet.effects()) == 600
    assert len(fleet.workers()) == 2


async def test_what_a_killed_node_ran_goes_on_elsewhere_once_its_lease_is_over(fleet):
    await schema(fleet)
    first = fleet.start()
    async with App(fleet.url).client() as app:
        await living(app, 1)
        runs = [await app.start(program.many_steps, 100, id=f"one-{n}") for n in range(20)]
        sleepers = [await app.start(program.sleeps_a_while, 4.0, id=f"sleeper-{n}") for n in range(5)]
        waiting = [await app.start(program.waits_for_go, f"w{n}", id=f"waiting-{n}") for n in range(5)]

        async def under_way() -> bool:
            stand = [await run.status() for run in waiting]
            return len(fleet.effects()) > 200 and set(stand) == {"waiting"}

        await until(under_way)
        fleet.start()
        await living(app, 2)
        before = len(fleet.effects())
        first.kill()
        killed_at = time.monotonic()

        async def goes_on() -> bool:
            return len(fleet.effects()) > before + 40

        await until(goes_on)
        assert time.monotonic() - killed_at < LEASE_SECONDS + 2.5
        for n in range(5):
            await app.publish(program.Go(order=f"w{n}"))
        assert [await run.result() for run in runs] == [100] * 20
        assert [await run.result() for run in sleepers] == ["slept"] * 5
        assert [await run.result() for run in waiting] == [f"w{n}" for n in range(5)]
    effects = fleet.effects()
    assert len(effects) == 20 * 100 + 5 * 2 + 5
    # Only what ran in the moment of the kill was done again, under its own key.
    assert sum(effects.values()) - len(effects) <= 30


async def test_a_node_that_drains_hands_over_at_once_and_nothing_is_done_twice(fleet):
    await schema(fleet)
    first = fleet.start()
    async with App(fleet.url).client() as app:
        await living(app, 1)
        runs = [await app.start(program.many_steps, 60, id=f"one-{n}") for n in range(20)]
        waiting = await app.start(program.waits_for_go, "w", id="waiting")

        async def under_way() -> bool:
            return len(fleet.effects()) > 100

        await until(under_way)
        fleet.start()
        await living(app, 2)
        first.terminate()
        began = time.monotonic()
        assert await asyncio.to_thread(first.wait, 10) == 0
        assert time.monotonic() - began < 2.0
        assert [await run.result() for run in runs] == [60] * 20
        await app.publish(program.Go(order="w"))
        assert await waiting.result() == "w"
    assert set(fleet.effects().values()) == {1}


async def test_a_frozen_node_writes_nothing_once_another_took_over(fleet):
    await schema(fleet)
    frozen = fleet.start()
    async with App(fleet.url).client() as app:
        await living(app, 1)
        runs = [await app.start(program.many_steps, 50, id=f"one-{n}") for n in range(10)]

        async def under_way() -> bool:
            return len(fleet.effects()) > 50

        await until(under_way)
        fleet.start()
        await living(app, 2)
        frozen.send_signal(signal.SIGSTOP)
        assert [await run.result() for run in runs] == [50] * 10
        frozen.send_signal(signal.SIGCONT)
        # It learns that it was ended, and stops.
        assert await asyncio.to_thread(frozen.wait, 20) != 0
    effects = fleet.effects()
    assert len(effects) == 500
    assert sum(effects.values()) - len(effects) <= 10


async def test_an_operation_reaches_the_node_that_has_the_instance(fleet):
    await schema(fleet)
    fleet.start()
    async with App(fleet.url).client() as client:
        await living(client, 1)
        run = await client.start(program.waits_for_go, "w", id="waiting")

        async def waits() -> bool:
            return await run.status() == "waiting"

        await until(waits)
        async with App(fleet.url) as here:
            there = here.get("waiting")
            await there.pause(reason="a look")
            assert await there.status() == "paused"
            await there.resume()
            await here.publish(program.Go(order="w"))
            assert await there.result() == "w"
            with pytest.raises(Refused, match="completed"):
                await there.cancel()


async def test_children_and_parents_find_each_other_across_a_takeover(fleet):
    await schema(fleet)
    first = fleet.start()
    async with App(fleet.url).client() as app:
        await living(app, 1)
        run = await app.start(program.parent, 200)

        async def under_way() -> bool:
            return len(fleet.effects()) > 20

        await until(under_way)
        fleet.start()
        fleet.start()
        await living(app, 3)
        first.kill()
        assert await run.result() == sum(range(200))
