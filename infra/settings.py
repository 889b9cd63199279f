"""Where the servers are, and what they need to know: from the environment, and from what `make up` left."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.core.errors import UserError
from lissnas.core.redaction import prefect_credentials

METRICS_FOLDER = "METRICS_FOLDER"
"""The variable that names the folder of Prometheus text files; without it none are written."""
HOST = "127.0.0.1"
FOLDER = "SERVICES"
"""The variable that names the folder of the servers' databases, logs and ports; `.services` without it."""
ADDRESSES = "services.json"
SECRETS = "secrets.json"
CPU_POOL = "cpu"
GPU_POOL = "gpu"
POOL_OF = {
    **dict.fromkeys(("prepare", "predictor", "locality", "shrink", "compare", "report", "nas", "reproduce"), CPU_POOL),
    **dict.fromkeys(("supernet", "search", "retrain", "ranking", "label", "reproduce_stage"), GPU_POOL),
}
"""The work pool of each flow: those that train networks go to the GPUs. prefect.yaml deploys them there."""
POOLS = (CPU_POOL, GPU_POOL)
PORTS = {"prefect": 4200, "mlflow": 5000, "storage": 9000, "database": 5432}
"""Servers with a port: the one tried first. PREFECT_PORT and so on name another."""
BUCKET = "lissnas"
DATABASES = ("sqlite", "postgresql")
AWAY_AFTER = 10.0
"""Seconds without an answer after which a Prefect server is unreachable."""
LONGEST_SOCKET = 100
"""Bytes of a socket's path that every system takes."""


@dataclass(frozen=True)
class Addresses:
    """Ports of the servers, and which database they use."""

    ports: Mapping[str, int]
    database: str = "sqlite"
    endpoint: str = field(default="", repr=False)
    """Of object storage that runs elsewhere; empty where ours does."""
    bucket: str = BUCKET
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def urls(self) -> dict[str, str]:
        """Return an address for each server a person or a program may open."""
        urls = {name: f"http://{HOST}:{self.ports[name]}" for name in ("prefect", "mlflow")}
        return {**urls, "storage": self.endpoint or f"http://{HOST}:{self.ports['storage']}"}

    def client_environment(self) -> dict[str, str]:
        """Return the variables by which flows, DVC and the `lissnas` command find the servers."""
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
        """Return the variables of the servers themselves: databases, folders, ports."""
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
    """Return the folder of all that the servers keep."""
    return Path(os.environ.get(FOLDER) or ".services").absolute()


def socket_path(folder: Path) -> Path:
    """Return where the supervisor listens: in the folder, or, where that path is too long for one, a temporary one."""
    path = folder / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET:
        return path
    short = artifacts.sha256(os.fsencode(folder))[:12]
    return Path(tempfile.gettempdir()) / f"lissnas-{os.getuid()}-{short}.sock"


def load(folder: Path) -> Addresses | None:
    """Return what the last `make up` chose, None before the first."""
    try:
        known: dict[str, Any] = artifacts.read_json(folder / ADDRESSES)
    except FileNotFoundError:
        return None
    kept = artifacts.read_json(folder / SECRETS)
    return Addresses(**known | {"endpoint": kept.pop("endpoint", known.get("endpoint", "")), "secrets": kept})


def choose(folder: Path) -> Addresses:
    """Return addresses for the servers: as the environment says, else as before, else free ports.

    Raises UserError for a port that is not a number or in use, and for an unknown database.
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
    """Write the addresses, and for their owner's eyes alone the secrets and an endpoint that may hold a password."""
    known = asdict(addresses)
    kept = {**known.pop("secrets"), "endpoint": known.pop("endpoint")}
    fresh = folder / f"{SECRETS}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(artifacts.to_json(kept))
    fresh.replace(folder / SECRETS)
    artifacts.write(folder / ADDRESSES, artifacts.to_json(known))


def _port(name: str, first: int, before: Addresses | None) -> int:
    """Return the port that the environment names, else the one before or the first if it is free, else any free one."""
    variable = f"{name.upper()}_PORT"
    if given := os.environ.get(variable):
        if not given.isdigit() or not 0 < int(given) < 1 << 16:
            raise UserError(f"{variable}={given}: expected a port, 1 to 65535")
        if not free(int(given)):
            raise UserError(f"{variable}={given}: the port is in use; name another, or none for a free one")
        return int(given)
    tried = [before.ports[name], first] if before else [first]
    return next(filter(free, tried), None) or free_port()


def unreachable(prefect: str) -> str:
    """Return why the Prefect server of an API address does not answer, empty if it does."""
    import httpx

    try:
        httpx.get(f"{prefect}/health", timeout=AWAY_AFTER, auth=prefect_credentials()).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return ""


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as any_free:
        any_free.bind((HOST, 0))
        return int(any_free.getsockname()[1])


def free(port: int) -> bool:
    """Return whether a port of the loopback can be listened on."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
        return True
