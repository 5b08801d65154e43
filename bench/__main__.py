"""The command line: `python -m bench` runs the contest; the other bars are commands of their own.

The exit code is 0 only if every bar of the command is cleared.
"""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from bench.contest import BY_DEFAULT, contest

cli = App(name="bench", help=__doc__)


@cli.default
def side_by_side(
    *,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    concurrency: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    seconds: float = 3.0,
    rounds: int = 5,
) -> bool:
    """Ours, the floor, DBOS and Restate with the same three-step process, taking turns."""
    return contest(only or BY_DEFAULT, concurrency or [1, 10, 100, 1000], seconds, rounds)


@cli.command(name="sleepers")
def sleepers_(*, count: int = 1_000_000) -> bool:
    """A million instances asleep for days: memory, idle CPU, node start, wake-ups and their lateness."""
    from bench.sleepers import sleepers

    return sleepers(count)


@cli.command(name="kill")
def kill_(*, count: int = 10_000) -> bool:
    """kill -9 with ten thousand processes in flight: how soon they go on, and what was lost or repeated."""
    from bench.kill import kill

    return kill(count)


@cli.command(name="gather")
def gather_(*, width: int = 10_000, rounds: int = 5) -> bool:
    """A gather of ten thousand steps in one instance, and the speed of its replay."""
    from bench.gather import gather

    return gather(width, rounds)


@cli.command(name="imports")
def imports_(*, rounds: int = 15) -> bool:
    """What `import dalsegno` costs, and how much it brings along."""
    from bench.imports import imports

    return imports(rounds)


@cli.command(name="drivers")
def drivers_(*, rounds: int = 200) -> bool:
    """asyncpg against psycopg: what a commit costs the client, and whether it goes through PgBouncer."""
    from bench.drivers import drivers

    return drivers(rounds)


@cli.command(name="queues")
def queues_(*, postgres: bool = False, instances: int = 500, rounds: int = 3) -> bool:
    """Steps on a queue: hand-off to a worker in another process, and throughput."""
    from bench.queues import queues

    return queues(postgres, instances, rounds)


if __name__ == "__main__":
    sys.exit(0 if cli(result_action="return_value") else 1)
