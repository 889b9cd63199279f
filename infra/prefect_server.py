"""Run `prefect server start` with SQLite transactions that acquire the write lock when they start.

python -m infra.prefect_server --host HOST --port PORT

Many of Prefect's transactions start with a read. If another transaction writes in the meantime, SQLite rejects the
later write immediately, regardless of the timeout ("database is locked"), and worker heartbeats and queue states are
lost (PrefectHQ/prefect 23051; 22967 fixed one instance). With the lock acquired first, transactions wait for each
other. PostgreSQL is unaffected.

Concurrency leases are stored on disk: Prefect's default, in memory, loses them if the server dies, and the slots of
tasks that died in the meantime would never be released.
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
    """Start a transaction that acquires the write lock immediately."""
    async with _begin(self, session, with_for_update=True) as transaction:
        yield transaction


if __name__ == "__main__":
    AioSqliteConfiguration.begin_transaction = begin_at_once  # type: ignore[method-assign]
    sys.argv[:] = ["prefect", "server", "start", *sys.argv[1:]]
    app()
