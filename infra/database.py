"""A PostgreSQL of our own for both servers, from the system's package: made once, started by the supervisor."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from infra.settings import HOST, Addresses
from lissnas.core.errors import LissnasError, UserError

DATA = "postgresql"
"""Folder of the cluster, in that of the services."""
DEBIAN = Path("/usr/lib/postgresql")
OWNER = "postgres"
"""Who runs the server where we are root, which PostgreSQL refuses to be."""
DATABASES = ("prefect", "mlflow")
NOT_THERE = "DATABASE=postgresql: no PostgreSQL server found; `make system` installs it, or put initdb on the PATH"


def programs() -> Path | None:
    """Return the folder of the newest server's programs, None where none is installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = [p.parent.parent for p in DEBIAN.glob("*/bin/initdb")]
    return max(versions, key=lambda p: float(p.name)) / "bin" if versions else None


def user() -> str:
    """Return the name of who runs the server."""
    return OWNER if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def environment() -> dict[str, str]:
    """Return what supervisord.conf says of the server by variables."""
    return {"DATABASE_BIN": str(programs() or ""), "DATABASE_USER": user()}


def prepare(folder: Path, addresses: Addresses) -> None:
    """Make the cluster unless it is there; raises UserError if that can't be done."""
    data, where = folder / DATA, programs()
    if where is None:
        raise UserError(NOT_THERE)
    if data.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        password, made_in = Path(temporary) / "password", Path(temporary) / DATA
        password.write_text(addresses.secrets["database"])
        made_in.mkdir(0o700)
        if os.getuid() == 0:
            _open_way(folder)
            for path in (Path(temporary), password, made_in):
                shutil.chown(path, OWNER)
        command = [
            *(f"{where}/initdb", "--pgdata", str(made_in), "--username", "postgres", "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, user=user() if os.getuid() == 0 else None)
        if done.returncode:
            raise LissnasError(f"initdb failed: {done.stderr.strip()}")
        os.rename(made_in, data)


def ready(addresses: Addresses) -> bool:
    """Return whether the server answers, and make the two databases unless they are there."""
    import psycopg

    with suppress(psycopg.OperationalError):
        with psycopg.connect(
            host=HOST,
            port=addresses.ports["database"],
            user="postgres",
            password=addresses.secrets["database"],
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in there:
                    connection.execute(f'CREATE DATABASE "{name}"')
        return True
    return False


def _open_way(folder: Path) -> None:
    """Raise UserError where the server's user can't come to the folder."""
    for part in (folder, *folder.parents):
        if not part.stat().st_mode & 0o001:
            raise UserError(
                f"PostgreSQL runs as {OWNER}, who can't pass through {part}: "
                "name another folder with SERVICES, or make this one passable (chmod o+x)"
            )
