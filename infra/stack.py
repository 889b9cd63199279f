"""Start and stop all servers and workers: Prefect, MLflow, object storage, a database, workers of both pools.

python -m infra.stack up | down | status     (or `make up`, `make down`, `make status`)

A supervisor (supervisord) starts them, keeps their logs in one folder and restarts processes that die. Every process
has MARK in its environment, so that `down` finds the remaining processes even after the supervisor was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import httpx
import psutil
import typer
from supervisor.xmlrpc import SupervisorTransport

from infra import database
from infra import storage as bucket
from infra.settings import HOST, METRICS_FOLDER, POOLS, Addresses, choose, load, save, services_folder, socket_path
from lissnas import artifacts
from lissnas.core import process
from lissnas.core.errors import LissnasError
from lissnas.core.redaction import redacted

MARK = "LISSNAS_STARTED_BY"
"""Environment variable of all started processes: the services folder."""
CONF = Path(__file__).with_name("supervisord.conf")
STARTUP_SECONDS = 180.0
"""Seconds within which a server must become healthy."""
LAST_LINES = 15
"""Number of log lines in the error about an unhealthy process."""
OTHER_VERSION = ("Can't locate revision", "out-of-date database schema", "database files are incompatible")
"""Messages of Prefect, MLflow and PostgreSQL about a database of another version."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


# -- commands --------------------------------------------------------------------------------------
@app.command()
def up() -> None:
    """Start what is not running, wait until everything is healthy, print the addresses."""
    folder = services_folder()
    with artifacts.locked(folder / "stack"):
        supervisor, addresses = _supervisor(folder), load(folder)
        if supervisor is None or addresses is None:
            _end(list(_started_by(folder)))  # processes of a killed supervisor, which occupy the ports
            addresses = choose(folder)
            if addresses.database == "postgresql":
                database.prepare(folder, addresses)
            (folder / "logs").mkdir(parents=True, exist_ok=True)
            save(addresses, folder)
            supervisor = _launch(folder, addresses)
        for group in _services(addresses, folder):
            _start(supervisor, group, folder)
    _show(addresses, folder)
    process.out.print("next: [bold]make deploy[/], then [bold]make schedule-demo[/]; [bold]make down[/] stops all")


@app.command()
def down() -> None:
    """Stop everything that `up` started; exit code 0 if nothing is running."""
    folder = services_folder()
    if not folder.exists():
        process.out.print("nothing is up")
        return
    with artifacts.locked(folder / "stack"):
        supervisor, left = _supervisor(folder), list(_started_by(folder))
        if supervisor is not None:
            if (addresses := load(folder)) and _state(supervisor, "storage") == "RUNNING":
                try:
                    bucket.keep(addresses, folder)
                except LissnasError as error:
                    process.err.print(f"[yellow]warning:[/] {error}", soft_wrap=True)
            with suppress(OSError, Fault, HTTPException):
                supervisor.shutdown()
            psutil.wait_procs(left, timeout=40)
        left = list(_started_by(folder))
        _end(left)
        socket_path(folder).unlink(missing_ok=True)
    process.out.print(f"all is down; databases, bucket and logs stay in {folder}")


@app.command()
def status() -> None:
    """Show each service's health, address and uptime; exit code 1 unless all are healthy."""
    folder = services_folder()
    supervisor, addresses = _supervisor(folder), load(folder)
    if supervisor is None or addresses is None:
        process.out.print("nothing is up: [bold]make up[/]")
        raise typer.Exit(1)
    states = {p["name"]: p for p in supervisor.getAllProcessInfo()}
    all_healthy = True
    for name, healthy in chain.from_iterable(group.items() for group in _services(addresses, folder)):
        health = "healthy" if states[name]["statename"] == "RUNNING" and healthy() else "[red]not healthy[/]"
        all_healthy &= health == "healthy"
        process.out.print(f"{name:<12} {health:<12} {states[name]['description']}")
    _show(addresses, folder)
    raise typer.Exit(0 if all_healthy else 1)


def _show(addresses: Addresses, folder: Path) -> None:
    for name, place in {**addresses.urls, "logs": folder / "logs"}.items():
        process.say(f"{name:<12} {redacted(str(place))}")


# -- the supervisor --------------------------------------------------------------------------------
def _supervisor(folder: Path) -> Any | None:
    """Return the supervisor's interface, None if no supervisor answers."""
    path = socket_path(folder)
    if not path.exists():
        return None
    server = ServerProxy("http://local", transport=SupervisorTransport(None, None, f"unix://{path}"))
    with suppress(OSError, HTTPException, Fault):
        server.supervisor.getState()
        return server.supervisor
    return None


def _launch(folder: Path, addresses: Addresses) -> Any:
    """Start the supervisor, in the background, and return its interface."""
    socket_path(folder).unlink(missing_ok=True)
    cores = os.cpu_count() or 1
    variables = {
        MARK: str(folder),
        "SERVICES": str(folder),
        "SERVICES_HOST": HOST,
        "SERVICES_SOCKET": str(socket_path(folder)),
        "CPU_RUNS": os.environ.get("CPU_RUNS") or str(max(2, cores // 2)),
        "GPU_RUNS": os.environ.get("GPU_RUNS") or "1",
        METRICS_FOLDER: os.environ.get(METRICS_FOLDER) or str(folder / "metrics"),
        **database.environment(),
    }
    given = {**os.environ, **addresses.client_environment(), **addresses.server_environment(folder), **variables}
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(CONF)]
    made = subprocess.run(command, env=given, cwd=CONF.parents[1], capture_output=True, text=True, timeout=60)
    if made.returncode:
        raise LissnasError(f"the supervisor did not start: {(made.stdout + made.stderr).strip()}")
    deadline = time.monotonic() + STARTUP_SECONDS
    while (supervisor := _supervisor(folder)) is None:
        if time.monotonic() > deadline:
            raise LissnasError(f"the supervisor does not answer; see {folder / 'logs' / 'supervisord.log'}")
        time.sleep(0.1)
    return supervisor


def _state(supervisor: Any, name: str) -> str:
    return str(supervisor.getProcessInfo(name)["statename"])


def _start(supervisor: Any, group: Mapping[str, Callable[[], bool]], folder: Path) -> None:
    """Start programs and wait until all are healthy; raise LissnasError with the log's end of one that is not."""
    for name in group:
        if _state(supervisor, name) not in ("RUNNING", "STARTING"):
            with suppress(Fault):  # a failed start is detected below
                supervisor.startProcess(name, False)
    deadline, first_pids = time.monotonic() + STARTUP_SECONDS, dict[str, int]()
    for name, healthy in group.items():
        with process.err.status(f"waiting for {name}"):
            while (state := _state(supervisor, name)) != "RUNNING" or not healthy():
                # The supervisor restarts a process that exited, with another pid.
                pid = int(supervisor.getProcessInfo(name)["pid"])
                ended = pid and first_pids.setdefault(name, pid) != pid
                if state in ("FATAL", "EXITED") or ended or time.monotonic() > deadline:
                    raise _unhealthy(name, "ended" if ended else state.lower(), folder)
                time.sleep(0.3)


def _unhealthy(name: str, state: str, folder: Path) -> LissnasError:
    """Return the error about a program that did not become healthy, with the cause or the end of its log."""
    log = folder / "logs" / f"{name}.log"
    last = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    if causes := [line.strip() for line in last if any(part in line for part in OTHER_VERSION)]:
        return LissnasError(
            f"{name}: its database in {folder} was made by another version. Install that version, or upgrade the "
            f"database (infra/runbook.md, Upgrade): {causes[-1]}"
        )
    return LissnasError(f"{name} did not become healthy ({state}); {log} ends with\n" + "\n".join(last))


def _services(addresses: Addresses, folder: Path) -> list[dict[str, Callable[[], bool]]]:
    """Return the programs in groups that start together, each with its health check."""
    urls = addresses.urls
    first: dict[str, Callable[[], bool]] = {}
    if addresses.database == "postgresql":
        first["database"] = lambda: database.ready(addresses)
    servers: dict[str, Callable[[], bool]] = {
        "prefect": lambda: _answers(f"{urls['prefect']}/api/health"),
        "mlflow": lambda: _answers(f"{urls['mlflow']}/health"),
    }
    if not addresses.endpoint:
        servers["storage"] = lambda: _answers(f"{urls['storage']}/moto-api/") and bucket.ready(addresses, folder)
    workers: dict[str, Callable[[], bool]] = {
        f"worker-{pool}": partial(_online, urls["prefect"], pool) for pool in POOLS
    }
    return [first, servers, workers]


# -- health ----------------------------------------------------------------------------------------
def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5, trust_env=False).is_success
    return False


def _online(prefect: str, pool: str) -> bool:
    """Return whether a worker of the pool is online."""
    url = f"{prefect}/api/work_pools/{pool}/workers/filter"
    with suppress(httpx.HTTPError, ValueError):
        answer = httpx.post(url, json={}, timeout=5, trust_env=False).raise_for_status()
        return any(worker["status"] == "ONLINE" for worker in answer.json())
    return False


# -- remaining processes ---------------------------------------------------------------------------
def _started_by(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes that were started for this folder, identified by MARK in their environment."""
    me = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.pid not in me and one.environ().get(MARK) == str(folder):
                yield one


def _end(processes: list[psutil.Process]) -> None:
    """Terminate processes; kill those that do not exit within ten seconds."""
    for one in processes:
        with suppress(psutil.Error):
            one.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    for one in alive:
        with suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(alive, timeout=10)


if __name__ == "__main__":
    process.run(app)
