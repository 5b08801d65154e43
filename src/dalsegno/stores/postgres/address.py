"""Where a store is: a database, and a schema in it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from dalsegno.errors import UsageError

_OURS = ("schema", "pooled", "listen")
_MOST_NAME_BYTES = 63


class Address(NamedTuple):
    """A store's URL, taken apart. Everything that isn't ours is the driver's."""

    url: str
    schema: str = "dalsegno"
    #: behind a pool that gives each transaction another connection: nothing may be kept in a session
    pooled: bool = False
    #: a URL past the pool for LISTEN; where there is none, a slow poll has to do
    listen: str | None = None

    def __str__(self) -> str:
        """The URL without a password."""
        parts = urlsplit(self.url)
        user, found, place = parts.netloc.rpartition("@")
        return urlunsplit((parts.scheme, user.partition(":")[0] + found + place, parts.path, "", ""))


def parse(url: str) -> Address:
    """The parts of `postgresql://user@host/database?schema=dalsegno&pooled=true&listen=postgresql://…`."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in _OURS}
    rest = urlencode([(name, value) for name, value in options if name not in _OURS])
    schema = ours.get("schema", "dalsegno")
    if not schema or "\x00" in schema or len(schema.encode()) > _MOST_NAME_BYTES or schema.startswith("pg_"):
        raise UsageError(f"{schema!r} can't be a schema: give a name of 1 to {_MOST_NAME_BYTES} bytes, not from pg_…")
    if ours.get("pooled", "false") not in ("true", "false"):
        raise UsageError(f"pooled={ours['pooled']!r}: write pooled=true for PgBouncer in transaction mode, or leave it")
    driver = urlunsplit(("postgresql", parts.netloc, parts.path, rest, ""))
    return Address(driver, schema, ours.get("pooled") == "true", ours.get("listen"))


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'
