"""Real servers for tests, without containers: each has a folder and a port of its own, and ends with its owner.

with PostgresServer() as server:
    url = server.create_database()
"""

from dalsegno.testing.servers.errors import ServerFailed, ServerMissing
from dalsegno.testing.servers.pgbouncer import PgBouncer
from dalsegno.testing.servers.postgres import PostgresServer

__all__ = ["PgBouncer", "PostgresServer", "ServerFailed", "ServerMissing"]
