"""A local PostgreSQL cluster for both servers: created once by the system's initdb, started by the supervisor."""

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
"""Folder of the cluster, inside the services folder."""
DEBIAN = Path("/usr/lib/postgresql")
OWNER = "postgres"
"""User that runs the server if the caller is root: PostgreSQL refuses to run as root."""
DATABASES = ("prefect", "mlflow")
NOT_THERE = "DATABASE=postgresql: no PostgreSQL server found; `make system` installs it, or put initdb on the PATH"


def programs() -> Path | None:
    """Return the folder of the newest installed server's programs, None if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = [p.parent.parent for p in DEBIAN.glob("*/bin/initdb")]
    return max(versions, key=lambda p: float(p.name)) / "bin" if versions else None


def user() -> str:
    """Return the name of the user that runs the server."""
    return OWNER if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def environment() -> dict[str, str]:
    """Return the variables of the server that supervisord.conf uses."""
    return {"DATABASE_BIN": str(programs() or ""), "DATABASE_USER": user()}


def prepare(folder: Path, addresses: Addresses) -> None:
    """Create the cluster unless it exists; raise UserError if PostgreSQL is missing or can't access the folder."""
    data, binaries = folder / DATA, programs()
    if binaries is None:
        raise UserError(NOT_THERE)
    if data.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        password, made_in = Path(temporary) / "password", Path(temporary) / DATA
        password.write_text(addresses.secrets["database"])
        made_in.mkdir(0o700)
        if os.getuid() == 0:
            _check_access(folder)
            for path in (Path(temporary), password, made_in):
                shutil.chown(path, OWNER)
        command = [
            *(f"{binaries}/initdb", "--pgdata", str(made_in), "--username", "postgres", "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, user=user() if os.getuid() == 0 else None)
        if done.returncode:
            raise LissnasError(f"initdb failed: {done.stderr.strip()}")
        os.rename(made_in, data)


def ready(addresses: Addresses) -> bool:
    """Return whether the server answers; create the two databases unless they exist."""
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


def _check_access(folder: Path) -> None:
    """Raise UserError if the server's user can't access the folder."""
    for part in (folder, *folder.parents):
        if not part.stat().st_mode & 0o001:
            raise UserError(
                f"PostgreSQL runs as user {OWNER}, which can't access {part}: "
                "set SERVICES to another folder, or allow access to this one (chmod o+x)"
            )
