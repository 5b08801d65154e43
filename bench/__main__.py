"""The command line: `python -m bench` runs the contest; the other bars are commands of their own."""

from typing import Annotated

from cyclopts import App, Parameter

from bench import contest

cli = App(name="bench", help=__doc__)


@cli.default
def side_by_side(
    *,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    concurrency: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    seconds: float = 3.0,
    rounds: int = 5,
) -> int:
    """Ours, the floor, DBOS and Restate with the same three-step process, taking turns."""
    cleared = contest.contest(only or contest.BY_DEFAULT, concurrency or [1, 10, 100, 1000], seconds, rounds)
    return 0 if cleared else 1


if __name__ == "__main__":
    cli()
