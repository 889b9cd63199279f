"""`prefect server start`, with transactions on SQLite that take its write lock when they begin.

python -m infra.prefect_server --host HOST --port PORT

Prefect begins many transactions by reading. SQLite refuses the write that follows, at once and whatever the time
limit, where another one has written meanwhile ("database is locked"): heartbeats of workers and the state of queues are
lost then (PrefectHQ/prefect 23051; 22967 mended one place). With the lock taken first they wait for each other.
On PostgreSQL nothing is different.

What tasks hold of a limit is kept on disk: in memory, as is Prefect's default, a server that dies would forget it, and
nobody would free what a task held that died meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
os.environ.setdefault(LEASES, "prefect.server.concurrency.lease_storage.filesystem")  # read when Prefect is imported

from prefect.cli import app  # noqa: E402
from prefect.server.database.configurations import AioSqliteConfiguration  # noqa: E402

_begin = AioSqliteConfiguration.begin_transaction


@asynccontextmanager
async def begin_at_once(self: Any, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
    """Begin a transaction that holds the write lock from the start."""
    async with _begin(self, session, with_for_update=True) as transaction:
        yield transaction


if __name__ == "__main__":
    AioSqliteConfiguration.begin_transaction = begin_at_once  # type: ignore[method-assign]
    sys.argv[:] = ["prefect", "server", "start", *sys.argv[1:]]
    app()
