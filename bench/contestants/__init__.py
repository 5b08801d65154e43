"""One contestant a file, each a process of its own, so that none inherits another's threads or heap."""

import contextlib
import sys
from collections.abc import Iterator

import msgspec

from bench.load import Outcome


class Round(msgspec.Struct, frozen=True):
    """What a contestant is asked to do: handed over as one JSON argument."""

    folder: str
    concurrency: list[int]
    seconds: float
    variant: str = ""


@contextlib.contextmanager
def postgres_url() -> Iterator[str]:
    """A database on a server of its own, every commit synced."""
    # Its measured program imports it, not every contestant.
    from dalsegno.testing.servers import PostgresServer

    with PostgresServer() as server:
        yield server.create_database()


def asked() -> Round:
    return msgspec.json.decode(sys.argv[1], type=Round)


def report(outcome: Outcome) -> None:
    """The last line on standard output is the outcome; whatever a peer prints before it is noise."""
    print(f"\n{msgspec.json.encode(outcome).decode()}", flush=True)
