"""`make up`, `make deploy`, `make schedule-demo` and `make down`, with processes killed in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from infra import database, storage
from infra.deploy import ROOT, automations
from infra.settings import load
from infra.stack import MARK
from lissnas import artifacts
from tests.pipeline.test_one_shot import TINY

pytest.importorskip("supervisor", reason="supervisor is not installed (the extra `pipeline`)")
pytestmark = pytest.mark.stack
NO_POSTGRESQL = pytest.mark.skipif(database.programs() is None, reason="PostgreSQL is not installed (`make system`)")
DATABASES = ["sqlite", pytest.param("postgresql", marks=NO_POSTGRESQL)]
SERVICES = {"storage", "prefect", "mlflow", "worker-cpu", "worker-gpu"}
LONG: dict[str, Any] = {"what": {"benchmark": "nasbench101"}, "overrides": {"shrink.target_size": 13000}}
"""Parameters of a shrink that takes half a minute: long enough to be killed in the middle."""


@dataclass
class Stack:
    """The servers of one folder, and the commands of make on them."""

    folder: Path
    settings: dict[str, str]

    def run(self, module: str, *words: str, code: int = 0, **more: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "AWS_", "MLFLOW_TR"))}
        done = subprocess.run(
            [sys.executable, "-m", f"infra.{module}", *words],
            env={**environment, "SERVICES": str(self.folder), "COLUMNS": "200", **self.settings, **more},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == code, done.stdout + done.stderr + self.logs()
        return done.stdout + done.stderr

    def logs(self) -> str:
        """Return the last 3,000 characters of each log."""
        texts = [(p.name, p.read_text(errors="replace")[-3000:]) for p in sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(f"--- {name}\n{text}" for name, text in texts)

    def started(self) -> list[psutil.Process]:
        """Return all processes that were started for this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def of(self, *words: str) -> list[psutil.Process]:
        """Return the started processes whose command contains these words."""
        return [p for p in self.started() if set(words) <= set(" ".join(p.cmdline()).split())]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        addresses = load(self.folder)
        assert addresses is not None
        url = addresses.urls["prefect"]
        answer = httpx.request(method, f"{url}/api/{path}", json=body, timeout=30).raise_for_status()
        return answer.json() if answer.content else None

    @contextmanager
    def worker(self, name: str) -> Iterator[None]:
        """Run another worker of the pool `cpu`, which executes one run at a time."""
        addresses = load(self.folder)
        assert addresses is not None
        given = {**os.environ, **addresses.client_environment(), MARK: str(self.folder)}
        command = ["prefect", "worker", "start", "--pool", "cpu", "--type", "process", "--name", name, "--limit", "1"]
        with (self.folder / "logs" / f"worker-{name}.log").open("w") as log:
            process = subprocess.Popen(command, env=given, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while name not in {w["name"] for w in self.api("POST", "work_pools/cpu/workers/filter", {})}:
                assert time.monotonic() < deadline, self.logs()
                time.sleep(0.3)
            yield
        finally:
            process.terminate()
            process.wait(60)

    def submit(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Submit a run to its pool; return its id."""
        known = self.api("GET", f"deployments/name/{deployment}")
        run = self.api("POST", f"deployments/{known['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run: str) -> str:
        return str(self.api("GET", f"flow_runs/{run}")["state"]["name"])

    def until(self, run: str, wanted: Callable[[str], bool], seconds: float) -> list[str]:
        """Wait until the state of a run is wanted; return the states that it passed through."""
        seen: list[str] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = self.state(run)
            except httpx.HTTPError:
                state = seen[-1] if seen else ""
            if state and state not in seen[-1:]:
                seen.append(state)
            if wanted(state):
                return seen
            time.sleep(0.5)
        raise AssertionError(f"{run} went through {seen} in {seconds} s\n{self.logs()}")


@pytest.fixture(scope="module", params=DATABASES)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    # Not in pytest's temporary folder, which the user `postgres` can't access.
    folder = Path(tempfile.mkdtemp(prefix="lissnas-stack-"))
    folder.chmod(0o755)
    more = {"GPU_POOL": "1"} if request.param == "postgresql" else {}
    stack = Stack(folder / "services", {"DATABASE": request.param, "CPU_RUNS": "1", "LISSNAS_HOME": str(ROOT), **more})
    try:
        yield stack
    finally:
        stack.run("stack", "down")
        left = stack.started()
        shutil.rmtree(folder)
        assert not left


def printed_urls(output: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(http://127\.0\.0\.1:\d+)$", output, re.MULTILINE))


def test_up_starts_healthy_services_and_is_idempotent(stack: Stack) -> None:
    assert "nothing is up" in stack.run("stack", "down")
    assert "make up" in stack.run("stack", "status", code=1)
    output = stack.run("stack", "up")
    assert printed_urls(output).keys() == {"prefect", "mlflow", "storage"}
    before = {p.pid for p in stack.started()}
    assert printed_urls(stack.run("stack", "up")) == printed_urls(output)
    assert before <= {p.pid for p in stack.started()}
    status = stack.run("stack", "status")
    wanted = SERVICES | ({"database"} if stack.settings["DATABASE"] == "postgresql" else set())
    assert set(re.findall(r"^([\w-]+) +healthy", status, re.MULTILINE)) == wanted
    assert (stack.folder / "secrets.json").stat().st_mode & 0o077 == 0


def test_a_schedule_fires_and_its_run_completes(stack: Stack) -> None:
    output = stack.run("deploy")
    assert output.count("\n") > 12
    output = stack.run("schedule_demo")
    states = dict(re.findall(r"^(\w+) +[\d:]{8} \(([+-][\d.]+) s\)", output, re.MULTILINE))
    assert float(states["running"]) < 30
    assert "completed" in states
    assert re.search(r"^MLflow +http://127\.0\.0\.1:\d+/#/experiments/\d+/runs/\w+", output, re.MULTILINE), output


def test_two_workers_run_flows_concurrently(stack: Stack, tmp_path: Path) -> None:
    with stack.worker("second"):
        # The first is long, so that the second starts before it finishes: workers poll for runs every few seconds.
        runs = [
            stack.submit("shrink/cpu", {**parameters, "out": str(tmp_path / str(i))})
            for i, parameters in enumerate((LONG, {"what": {"benchmark": "nas_bench_macro"}}))
        ]
        for run in runs:
            stack.until(run, lambda state: state == "Completed", 180)
    times = [(r["start_time"], r["end_time"]) for r in (stack.api("GET", f"flow_runs/{run}") for run in runs)]
    assert max(start for start, _ in times) < min(end for _, end in times), f"sequential: {times}"
    for i in range(2):
        assert artifacts.verify(tmp_path / str(i))
    for log in (stack.folder / "logs").glob("*.log"):
        assert "database is locked" not in log.read_text(errors="replace")
        assert "not logged to MLflow" not in log.read_text(errors="replace")


def test_training_runs_on_the_gpu_pool(stack: Stack, tmp_path: Path) -> None:
    if "GPU_POOL" not in stack.settings:
        pytest.skip("this stack has no GPU_POOL: training runs in the flow's process (tests/pipeline)")
    out = tmp_path / "nas"
    run = stack.submit("nas/cpu", {"benchmark": "nas_bench_macro", "out": str(out), "overrides": TINY})
    stack.until(run, lambda state: state == "Completed", 400)
    for folder in (out / "shrunk", out / "search" / "supernet", out / "search", out / "search" / "best"):
        assert artifacts.verify(folder)
    sent = stack.api("POST", "flow_runs/filter", {"work_pools": {"name": {"any_": ["gpu"]}}})
    assert len(sent) == 3
    assert {r["state"]["name"] for r in sent} == {"Completed"}
    ids = {"any_": [r["id"] for r in sent]}
    messages = [one["message"] for one in stack.api("POST", "logs/filter", {"logs": {"flow_run_id": ids}})]
    assert sum("requested a GPU and found none" in line for line in messages) == 3
    from mlflow import MlflowClient

    addresses = load(stack.folder)
    assert addresses is not None
    client = MlflowClient(addresses.urls["mlflow"])
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id])
    [parent] = [r for r in logged if r.info.run_name == "nas nas_bench_macro seed 0"]
    children = [r for r in logged if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    found = sorted((r.data.tags["stage"], r.info.status) for r in children)
    stages = ("retrain", "search", "shrink", "supernet")
    assert found == [(stage, "FINISHED") for stage in stages], "\n".join([*messages, stack.logs()])


@pytest.fixture
def sqlite(stack: Stack) -> Stack:
    if stack.settings["DATABASE"] != "sqlite":
        pytest.skip("independent of the database: tested on SQLite")
    return stack


class Webhook(BaseHTTPRequestHandler):
    """A webhook that records its requests."""

    received: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        Webhook.received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook
data = {"text": "{{subject}} {{body}}"}
Webhook(name="test", url=sys.argv[1], json_data=data, allow_private_urls=True).save("test", overwrite=True)
"""


def test_failed_flow_is_retried_and_then_notified(sqlite: Stack) -> None:
    addresses = load(sqlite.folder)
    assert addresses is not None
    server = HTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        given = {**os.environ, **addresses.client_environment()}
        command = [sys.executable, "-c", BLOCK, f"http://127.0.0.1:{server.server_port}/"]
        subprocess.run(command, env=given, check=True, capture_output=True, timeout=120)
        sqlite.run("deploy", NOTIFY="custom-webhook/test")
        run = sqlite.submit("shrink/cpu", {"what": {"benchmark": "nothing"}})
        states = sqlite.until(run, lambda state: state == "Failed", 300)
        assert "AwaitingRetry" in states
        assert sqlite.api("GET", f"flow_runs/{run}")["run_count"] == 3
        deadline = time.monotonic() + 60
        while not any("shrink: Failed" in text and "unknown benchmark" in text for text in Webhook.received):
            assert time.monotonic() < deadline, Webhook.received
            time.sleep(0.3)
    finally:
        server.shutdown()
        server.server_close()


def test_a_run_beyond_its_time_limit_is_cancelled(sqlite: Stack, tmp_path: Path) -> None:
    [limit] = [one for one in automations(None) if one["name"] == "time limit of 1 h"]
    limit["trigger"]["within"], limit["name"] = 10, "ten seconds"  # Prefect's minimum
    made = sqlite.api("POST", "automations/", limit)
    what = {"space": "nas_bench_macro", "oracle_command": "sleep 290"}
    parameters = {"what": what, "overrides": {"shrink.target_size": 300}}
    try:
        run = sqlite.submit("shrink/cpu", {**parameters, "out": str(tmp_path / "out")})
        states = sqlite.until(run, lambda state: state in ("Cancelled", "Completed", "Failed"), 240)
    finally:
        sqlite.api("DELETE", f"automations/{made['id']}")
    assert states[-1] == "Cancelled"
    assert not (tmp_path / "out").exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "290"]]


def test_workers_log_json_lines_with_run_ids(sqlite: Stack) -> None:
    lines = (sqlite.folder / "logs" / "worker-cpu.log").read_text(errors="replace").splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert any(record.get("flow_run_id") for record in records)


def test_killed_run_is_scheduled_again(sqlite: Stack, tmp_path: Path) -> None:
    uninterrupted = sqlite.submit("shrink/cpu", {**LONG, "out": str(tmp_path / "undisturbed")})
    sqlite.until(uninterrupted, lambda state: state == "Completed", 240)
    run = sqlite.submit("shrink/cpu", {**LONG, "out": str(tmp_path / "killed")})
    sqlite.until(run, lambda state: state == "Running", 60)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".killed.checkpoint/*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [worker] = sqlite.of("worker", "start", "cpu")
    dead = [*worker.children(recursive=True), worker]
    for process in dead:
        process.send_signal(signal.SIGKILL)
    states = sqlite.until(run, lambda state: state == "Completed", 400)
    assert states[0] == "Running"
    assert "Crashed" in states or "AwaitingRetry" in states
    made, wanted = (artifacts.read_manifest(tmp_path / name) for name in ("killed", "uninterrupted"))
    assert made == wanted is not None


def test_run_survives_a_killed_server(sqlite: Stack, tmp_path: Path) -> None:
    run = sqlite.submit("shrink/cpu", {**LONG, "out": str(tmp_path / "out"), "force": True})
    sqlite.until(run, lambda state: state == "Running", 60)
    for process in sqlite.of("infra.prefect_server"):
        process.send_signal(signal.SIGKILL)
    sqlite.until(run, lambda state: state == "Completed", 300)
    assert artifacts.verify(tmp_path / "out")


def test_up_recovers_from_a_killed_supervisor(sqlite: Stack) -> None:
    addresses = load(sqlite.folder)
    assert addresses is not None
    client = storage.connected(addresses)
    for process in sqlite.started():
        if "supervisord" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
    before = {p.pid for p in sqlite.started()}
    assert before
    sqlite.run("stack", "up")
    assert not before & {p.pid for p in sqlite.started()}
    sqlite.run("stack", "status")
    # The bucket's objects survive `down`, although the server has them in memory.
    client.put_object(Bucket="lissnas", Key="a/b", Body=b"kept")
    sqlite.run("stack", "down")
    assert not sqlite.started()
    assert "nothing is up" in sqlite.run("stack", "status", code=1)
    sqlite.run("stack", "up")
    assert client.get_object(Bucket="lissnas", Key="a/b")["Body"].read() == b"kept"


def test_database_of_another_version_is_refused(sqlite: Stack) -> None:
    sqlite.run("stack", "down")
    with closing(sqlite3.connect(sqlite.folder / "prefect" / "prefect.db")) as database, database:
        [[revision]] = database.execute("select version_num from alembic_version")
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
    output = sqlite.run("stack", "up", code=1)
    assert "prefect: its database in" in output
    assert "made by another version" in output
    assert "Traceback" not in output
    sqlite.run("stack", "down")
    with closing(sqlite3.connect(sqlite.folder / "prefect" / "prefect.db")) as database, database:
        database.execute("update alembic_version set version_num = ?", (revision,))


def test_invalid_settings_are_refused(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "s", {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        output = stack.run("stack", "up", code=2, PREFECT_PORT=port)
        assert f"PREFECT_PORT={port}" in output
        assert "in use" in output
    assert "DATABASE=oracle" in stack.run("stack", "up", code=2, DATABASE="oracle")
    assert "MLFLOW_PORT=x" in stack.run("stack", "up", code=2, MLFLOW_PORT="x")
    assert "make up" in stack.run("deploy", code=2)
    assert not stack.started()
