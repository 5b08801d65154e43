"""Opening a connection, finding statements, and telling PostgreSQL's errors apart."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors

from dalsegno.errors import StoreCorrupt, StoreError, StoreFull, StoreIO
from dalsegno.stores.postgres.address import Address, quoted

Connection = psycopg.Connection[Any]

_CONNECT_SECONDS = 5
#: nothing was written, and the same again may well be
TRANSIENT = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.IdleInTransactionSessionTimeout,
)
#: this server, or this connection to it, can't do it now: another one may
_AWAY = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.TooManyConnections,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.ProtocolViolation,
    errors.ConnectionException,
)
_REFUSED = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)


def connect(
    address: Address,
    name: str,
    kind: type[Connection] = psycopg.Connection,
    cursors: type[psycopg.Cursor[Any]] = psycopg.RawCursor,
) -> Connection:
    """A connection in autocommit mode."""
    connection = kind.connect(
        address.url,
        autocommit=True,
        prepare_threshold=None if address.pooled else 5,
        cursor_factory=cursors,
        **_defaults(address.url, name),
    )
    if not address.pooled:
        # A commit that is reported is on disk, whatever the database's default.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    return connection


def _defaults(url: str, name: str) -> dict[str, Any]:
    given = psycopg.conninfo.conninfo_to_dict(url)
    wanted = {
        "application_name": f"dalsegno {name}",
        "connect_timeout": _CONNECT_SECONDS,
        "target_session_attrs": "read-write",
        # A server that is gone without a word is noticed within a lease.
        "keepalives_idle": 2,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 6000,
    }
    return {option: value for option, value in wanted.items() if option not in given}


def is_away(error: BaseException, connection: Connection | None) -> bool:
    """Whether the server couldn't be reached, or left: a new connection may find it."""
    if connection is None:
        return (
            isinstance(error, psycopg.OperationalError) and not isinstance(error, _REFUSED) and not _is_refusal(error)
        )
    return isinstance(error, _AWAY) or is_lost(connection)


def is_lost(connection: Connection) -> bool:
    """Whether a connection is gone, whatever the error says that told it."""
    return connection.closed or connection.pgconn.status != psycopg.pq.ConnStatus.OK


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, _REFUSED):
        return True
    text = str(error)
    # What comes before a session has no code: libpq tells it as text only.
    return any(part in text for part in ("authentication failed", "does not exist", "no pg_hba.conf entry"))


def translate(error: psycopg.Error, address: Address) -> StoreError:
    """The store error for one of PostgreSQL's."""
    text = f"{address}: {str(error).strip()}"
    if isinstance(error, errors.DiskFull):
        return StoreFull(f"{text}. Nothing was lost; free some space and start the node again.")
    if isinstance(error, errors.DataCorrupted | errors.IndexCorrupted):
        return StoreCorrupt(f"{text}. Restore a backup, or run 'dalsegno db check' to see what is left.")
    if isinstance(error, errors.IoError | errors.SystemError):
        return StoreIO(f"{text}. The node stops: look after the database's disk, then start the node again.")
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(f"{text}. Give this user the rights of the store's role: 'dalsegno db roles' prints them.")
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName | errors.UndefinedColumn):
        return StoreError(f"{text}. The schema isn't there or is older: run 'dalsegno db migrate' first.")
    if isinstance(error, psycopg.OperationalError):
        return StoreIO(f"{text}. Is the database reachable? Start the node again once it is.")
    return StoreError(text)


@cache
def query(name: str, schema: str) -> str:
    """The statement of a query file, for a schema."""
    folder, _, file = name.rpartition("/")
    place = resources.files(f"{__package__}.queries")
    text = (place / folder if folder else place).joinpath(f"{file}.sql").read_text().strip()
    return within(text, schema)


def within(text: str, schema: str) -> str:
    """SQL whose `dalsegno.` is this schema."""
    return text if schema == "dalsegno" else text.replace("dalsegno.", quoted(schema) + ".")
