"""Addresses and settings of the servers, from the environment and from the files that `make up` wrote."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.core.errors import UserError, short
from lissnas.core.redaction import prefect_credentials

METRICS_FOLDER = "METRICS_FOLDER"
"""Environment variable: folder of Prometheus text files; if unset, none are written."""
HOST = "127.0.0.1"
FOLDER = "SERVICES"
"""Environment variable: folder of the servers' databases, logs and ports; default `.services`."""
ADDRESSES = "services.json"
SECRETS = "secrets.json"
CPU_POOL = "cpu"
GPU_POOL = "gpu"
POOL_OF = {
    **dict.fromkeys(("prepare", "predictor", "locality", "shrink", "compare", "report", "nas", "reproduce"), CPU_POOL),
    **dict.fromkeys(("supernet", "search", "retrain", "ranking", "label", "reproduce_stage"), GPU_POOL),
}
"""Work pool of each flow, as deployed by prefect.yaml: flows that train networks run on GPUs."""
POOLS = (CPU_POOL, GPU_POOL)
PORTS = {"prefect": 4200, "mlflow": 5000, "storage": 9000, "database": 5432}
"""Default port of each server; PREFECT_PORT and so on override it."""
BUCKET = "lissnas"
DATABASES = ("sqlite", "postgresql")
UNREACHABLE_SECONDS = 10.0
"""Seconds without a response after which a Prefect server counts as unreachable."""
MAX_SOCKET_BYTES = 100
"""Bytes of a socket path that every operating system accepts."""


@dataclass(frozen=True)
class Addresses:
    """Ports of the servers, their database, object storage and secrets."""

    ports: Mapping[str, int]
    database: str = "sqlite"
    endpoint: str = field(default="", repr=False)
    """URL of external object storage; empty for the local one."""
    bucket: str = BUCKET
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def urls(self) -> dict[str, str]:
        """Return the URL of each server."""
        urls = {name: f"http://{HOST}:{self.ports[name]}" for name in ("prefect", "mlflow")}
        return {**urls, "storage": self.endpoint or f"http://{HOST}:{self.ports['storage']}"}

    def client_environment(self) -> dict[str, str]:
        """Return the environment variables with which flows, DVC and the `lissnas` command find the servers."""
        given = {
            "PREFECT_API_URL": f"{self.urls['prefect']}/api",
            "MLFLOW_TRACKING_URI": self.urls["mlflow"],
            "AWS_ENDPOINT_URL_S3": self.urls["storage"],
        }
        if not self.endpoint:
            given |= {
                "AWS_ACCESS_KEY_ID": "lissnas",
                "AWS_SECRET_ACCESS_KEY": self.secrets["storage"],
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        return given

    def server_environment(self, folder: Path) -> dict[str, str]:
        """Return the environment variables of the servers: databases, folders, ports."""
        given = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        given |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{self.bucket}/mlflow",
        }
        if self.database == "postgresql":
            place = f"postgres:{self.secrets['database']}@{HOST}:{self.ports['database']}"
            given |= {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{place}/prefect",
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{place}/mlflow",
            }
        return given


def services_folder() -> Path:
    """Return the folder of all server state."""
    return Path(os.environ.get(FOLDER) or ".services").absolute()


def socket_path(folder: Path) -> Path:
    """Return the path of the supervisor's socket: in the folder, or in the temporary folder if the path is too long."""
    path = folder / "supervisor.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
        return path
    short = artifacts.sha256(os.fsencode(folder))[:12]
    return Path(tempfile.gettempdir()) / f"lissnas-{os.getuid()}-{short}.sock"


def load(folder: Path) -> Addresses | None:
    """Return the addresses that the last `make up` chose, None before the first."""
    try:
        known: dict[str, Any] = artifacts.read_json(folder / ADDRESSES)
    except FileNotFoundError:
        return None
    kept = artifacts.read_json(folder / SECRETS)
    return Addresses(**known | {"endpoint": kept.pop("endpoint", known.get("endpoint", "")), "secrets": kept})


def choose(folder: Path) -> Addresses:
    """Return addresses for the servers: from the environment, else those used before, else with free ports.

    Raises UserError if a port is invalid or in use, or if the database is unknown.
    """
    before = load(folder)
    database = os.environ.get("DATABASE") or (before.database if before else "sqlite")
    if database not in DATABASES:
        raise UserError(f"DATABASE={database}: expected {' or '.join(DATABASES)}")
    ports = {name: _port(name, first, before) for name, first in PORTS.items()}
    known = dict(before.secrets) if before else {name: secrets.token_urlsafe(24) for name in ("storage", "database")}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", "")
    return Addresses(ports, database, endpoint, os.environ.get("BUCKET") or BUCKET, known)


def save(addresses: Addresses, folder: Path) -> None:
    """Write the addresses, and in a file of mode 600 the secrets and the endpoint, which may contain a password."""
    known = asdict(addresses)
    kept = {**known.pop("secrets"), "endpoint": known.pop("endpoint")}
    fresh = folder / f"{SECRETS}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(artifacts.to_json(kept))
    fresh.replace(folder / SECRETS)
    artifacts.write(folder / ADDRESSES, artifacts.to_json(known))


def _port(name: str, first: int, before: Addresses | None) -> int:
    """Return the port from the environment, else the previous or default port if it is free, else any free port."""
    variable = f"{name.upper()}_PORT"
    if given := os.environ.get(variable):
        if not given.isdigit() or not 0 < int(given) < 1 << 16:
            raise UserError(f"{variable}={given}: expected a port, 1 to 65535")
        if not free(int(given)):
            raise UserError(f"{variable}={given}: the port is in use; set another, or unset it for a free port")
        return int(given)
    tried = [before.ports[name], first] if before else [first]
    return next(filter(free, tried), None) or free_port()


def unreachable(prefect: str) -> str:
    """Return why the Prefect server at an API URL can't record a run, to follow the URL; an empty string if it can."""
    import httpx

    try:
        with httpx.Client(timeout=UNREACHABLE_SECONDS, auth=prefect_credentials()) as client:
            for path in ("health", "admin/version"):
                reply = client.get(f"{prefect.rstrip('/')}/{path}")
                if reply.status_code in (401, 403):
                    return f" refuses the login (HTTP {reply.status_code}; check PREFECT_API_AUTH_STRING)"
                if reply.is_error:
                    return f" answers with HTTP {reply.status_code}"
                found = reply.json()
    except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:
        return f" does not answer ({type(error).__name__})"
    except ValueError:
        return " is not a Prefect server (perhaps a login page: its answer is not JSON)"
    return _mismatch(str(found), version("prefect"))


def _mismatch(server: str, client: str) -> str:
    """Return what is wrong with a server's version, an empty string if it accepts this client: not older than it."""
    try:
        theirs, ours = (tuple(map(int, text.split(".")[:2])) for text in (server, client))
    except ValueError:
        return f" is not a Prefect server (its version is {short(repr(server))})"
    if theirs[0] != ours[0] or theirs < ours:
        return f": its Prefect is {server}, {client} is needed"
    return ""


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as any_free:
        any_free.bind((HOST, 0))
        return int(any_free.getsockname()[1])


def free(port: int) -> bool:
    """Return whether a port of the loopback interface is unused."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
        return True
