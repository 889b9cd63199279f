"""Planted secrets from every source appear in no log, database or file, after successful and failed jobs."""

from __future__ import annotations

import base64
import os
import runpy
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest

pytest.importorskip("prefect", reason="prefect is not installed (the extra `pipeline`)")
pytest.importorskip("supervisor", reason="supervisor is not installed (the extra `pipeline`)")

from infra import deploy, settings, stack
from lissnas import artifacts
from lissnas.artifacts import remote
from lissnas.cli import app
from lissnas.core.errors import LissnasError, UserError
from lissnas.tracking import pending
from tests.pipeline.harness import mlflow_server, served

ROOT = Path(__file__).parents[2]
UNREACHABLE = "127.0.0.1:9"
"""An address without a server."""
SMALL = ("--target-size", "300", "--label-budget", "60")
EXEMPT = {
    ".git/config": "git stores the address of a remote unchanged",
    ".dvc/config.local": "DVC stores a remote's key in this file, outside git",
    "services/secrets.json": "`make up` stores the secrets of its servers here, readable only by the owner",
}
"""Files that may contain a secret, and the reason."""


def secret(name: str) -> str:
    """Return a unique value whose URL-encoded form differs."""
    return f"{name}+{artifacts.sha256(name.encode())[:20]}"


def address(scheme: str, name: str, rest: str) -> str:
    """Return an address with a password."""
    return f"{scheme}://someone:{quote(secret(name), safe='')}@{rest}"


PLANTED = {
    **{
        name: secret(name)
        for name in (
            *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
            *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
            *("PREFECT_API_KEY", "POSTGRES_PASSWORD", "ORACLE_TOKEN"),
        )
    },
    "PREFECT_API_AUTH_STRING": f"admin:{secret('PREFECT_API_AUTH_STRING')}",
    "AWS_ENDPOINT_URL_S3": address("http", "AWS_ENDPOINT_URL_S3", UNREACHABLE),
    "PREFECT_API_URL": address("http", "PREFECT_API_URL", f"{UNREACHABLE}/api"),
    "MLFLOW_TRACKING_URI": address("http", "MLFLOW_TRACKING_URI", UNREACHABLE),
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": address(
        "postgresql+asyncpg", "PREFECT_DATABASE", f"{UNREACHABLE}/prefect"
    ),
    "MLFLOW_BACKEND_STORE_URI": address("postgresql+psycopg", "MLFLOW_DATABASE", f"{UNREACHABLE}/mlflow"),
    "NOTIFY": f"https://hooks.example/services/{secret('NOTIFY')}",
}
ELSEWHERE = ("GIT_REMOTE", "DVC_REMOTE", "DVC_KEY")
SECRETS = [secret(name) for name in (*PLANTED, "PREFECT_DATABASE", "MLFLOW_DATABASE", *ELSEWHERE)]


# -- search for secrets ----------------------------------------------------------------------------
def forms(text: str) -> list[bytes]:
    """Return the text plain, URL-encoded, and in base64 at each of the three alignments."""
    data, found = text.encode(), [text.encode(), quote(text, safe="").encode()]
    for before in range(3):
        whole = (before + len(data)) // 3 * 3 - before
        encoded = base64.b64encode(b"\0" * before + data[:whole])[4 if before else 0 :]
        found += [encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


FORMS = {form: text for text in SECRETS for form in forms(text)}


def leaks(*folders: Path) -> list[str]:
    """Return the files that contain a secret, with its name."""
    files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    assert files
    found = []
    for path in files:
        if any(str(path).endswith(exempt) for exempt in EXEMPT):
            continue
        data = path.read_bytes()
        found += sorted({f"{path}: {text.partition('+')[0]}" for form, text in FORMS.items() if form in data})
    return found


def test_planted_secrets_are_found(tmp_path: Path) -> None:
    value = secret("MLFLOW_TRACKING_PASSWORD")
    for i, written in enumerate(
        (
            value,
            quote(value, safe=""),
            base64.b64encode(value.encode()).decode(),
            base64.b64encode(f"someone:{value}".encode()).decode(),
            base64.urlsafe_b64encode(f"a:{value}".encode()).decode(),
        )
    ):
        file = tmp_path / str(i) / ".deep" / "file.db"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\0" * 70_000 + written.encode() + b"\xff")
        assert leaks(tmp_path / str(i)) == [f"{file}: MLFLOW_TRACKING_PASSWORD"]
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "file").write_text("MLFLOW_TRACKING_PASSWORD+ is a name")
    assert leaks(tmp_path / "clean") == []


# -- the jobs --------------------------------------------------------------------------------------
SHRINK = ("flows.shrink", "--benchmark", "nas_bench_macro", *SMALL, "--out", "shrunk")
DVC = "[core]\n  remote = away\n['remote \"away\"']\n  url = http://store.example/dvc\n"
DVC_LOCAL = (
    f"['remote \"away\"']\n  url = {address('http', 'DVC_REMOTE', f'{UNREACHABLE}/dvc')}\n"
    f"  auth = basic\n  user = someone\n  password = {secret('DVC_KEY')}\n"
)
ORACLE = """
import os, sys
print("called with", os.environ["ORACLE_TOKEN"], file=sys.stderr)
sys.exit(f"no answer from https://someone:{os.environ['AWS_SECRET_ACCESS_KEY']}@oracle.example")
"""


class Refuses(BaseHTTPRequestHandler):
    """A healthy server of Prefect, MLflow or S3 that refuses all requests and records their authorization headers."""

    headers_received: set[str]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.headers_received.add(self.headers.get("Authorization", ""))
        body = f"<Error><Code>Denied</Code><Message>no key {PLANTED['AWS_ACCESS_KEY_ID']}</Message></Error>".encode()
        self.send_response(200 if self.path.endswith("health") else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(server: HTTPServer) -> Iterator[str]:
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def refusing() -> Iterator[tuple[str, set[str]]]:
    """Run a server that refuses all requests; yield its address and the received authorization headers."""
    received: set[str] = set()

    class Handler(Refuses):
        headers_received = received

    with listening(HTTPServer(("127.0.0.1", 0), Handler)) as where:
        yield where, received


@dataclass(frozen=True)
class Home:
    """A repository whose remotes have passwords, the servers of its jobs, and the output of all jobs."""

    folder: Path
    prefect: str
    database: Path
    """Database of the Prefect server: logs, states of runs, artifacts."""

    def run(self, *words: str, code: int = 0, **env: str) -> str:
        """Run a module in a new process with every secret in its environment; return its output."""
        given = {**os.environ, "PYTHONPATH": str(ROOT), **PLANTED, "PREFECT_API_URL": self.prefect, **env}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={k: v for k, v in given.items() if v},
            capture_output=True,
            text=True,
            timeout=300,
        )
        output = done.stdout + done.stderr
        self.save(output)
        assert done.returncode == code, output
        return " ".join(output.split())

    def save(self, output: str) -> None:
        (self.folder / f"output-{len(list(self.folder.glob('output-*')))}").write_text(output)

    def check(self) -> None:
        assert leaks(self.folder, self.database.parent) == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    for words in (
        "git init --quiet",
        "git -c user.name=a -c user.email=a@example.com commit --quiet --allow-empty -m first",
        f"git remote add origin {address('https', 'GIT_REMOTE', 'git.example/lissnas.git')}",
    ):
        subprocess.run(words.split(), cwd=folder, check=True)
    for name, text in {"config": DVC, "config.local": DVC_LOCAL}.items():
        artifacts.write(folder / ".dvc" / name, text.encode())
    (folder / "oracle.py").write_text(ORACLE)
    (folder / "harness").mkdir()
    with served(folder / "harness"):
        from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL

        url, database = str(PREFECT_API_URL.value()), str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value())
        prefect = address("http", "PREFECT_API_URL", url.removeprefix("http://"))
        yield Home(folder, prefect, Path(database.partition(":///")[2]))


class Here(Protocol):
    """Run a command in this process, as `Home.run` does in another one; return its output."""

    def __call__(self, *words: str, code: int = 0, **env: str) -> str: ...


@pytest.fixture
def here(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Here:
    """Return a runner of commands; without PREFECT_API_URL they use the server of these tests."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.chdir(home.folder)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, code: int = 0, **env: str) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", list(words))
        prefect = {PREFECT_API_URL: env["PREFECT_API_URL"]} if "PREFECT_API_URL" in env else {}
        with pytest.raises(SystemExit) as ended, temporary_settings(prefect):
            app.main() if words[0] == "lissnas" else runpy.run_module(words[0], run_name="__main__")
        output = "".join(capfd.readouterr()) + caplog.text
        caplog.clear()
        home.save(output)
        assert ended.value.code == code, output
        return " ".join(output.split())

    return run


@pytest.mark.faults
def test_flow_with_reachable_servers(home: Home) -> None:
    with mlflow_server(home.folder / "mlflow-server") as url:
        where = url.removeprefix("http://")
        output = home.run(*SHRINK, MLFLOW_TRACKING_URI=address("http", "MLFLOW_TRACKING_URI", where))
    assert f"MLflow: http://{where}/#/experiments/" in output
    assert "View at http://127.0.0.1" in output
    home.check()


def test_flow_with_unreachable_servers(home: Home, here: Here) -> None:
    output = here(*SHRINK, PREFECT_API_URL=PLANTED["PREFECT_API_URL"])
    assert f"PREFECT_API_URL=http://{UNREACHABLE}/api does not answer" in output
    assert f"not logged to MLflow (API request to http://{UNREACHABLE}/" in output
    assert list((home.folder / pending.RECORDS).glob("*.jsonl"))
    home.check()


@pytest.mark.faults
def test_prefect_server_that_refuses_requests(home: Home, here: Here) -> None:
    with refusing() as (where, received):
        output = here(*SHRINK, code=1, PREFECT_API_URL=address("http", "PREFECT_API_URL", f"{where}/api"))
    assert f"'403 Forbidden' for url 'http://{where}/api/" in output
    assert any(has_password("PREFECT_API_URL", header) for header in received)
    home.check()


def has_password(name: str, header: str) -> bool:
    """Return whether an authorization header contains the password of an address."""
    return header == f"Basic {base64.b64encode(f'someone:{secret(name)}'.encode()).decode()}"


@pytest.mark.faults
def test_sync_with_all_kinds_of_mlflow_address(home: Home, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync the result that `test_flow_with_unreachable_servers` could not log."""
    import mlflow.store.db.utils as databases

    monkeypatch.setattr(databases, "MAX_RETRY_COUNT", 1)
    with refusing() as (where, received):
        uri = address("http", "MLFLOW_TRACKING_URI", where)
        assert "403" in here("lissnas", "sync", code=1, MLFLOW_TRACKING_URI=uri)
    assert all(has_password("MLFLOW_TRACKING_URI", header) for header in received)
    for uri, expected in {
        address("http", "MLFLOW_TRACKING_URI", UNREACHABLE): f"http://{UNREACHABLE}/",
        address("postgresql+psycopg", "MLFLOW_TRACKING_URI", f"{UNREACHABLE}/mlflow"): "port 9",
        address("sqlite", "MLFLOW_TRACKING_URI", "host/x.db"): "not logged",
        address("weird", "MLFLOW_TRACKING_URI", "host/x"): "weird://host/x",
    }.items():
        assert expected in here("lissnas", "sync", code=1, MLFLOW_TRACKING_URI=uri)
    assert "logged" in here("lissnas", "sync", MLFLOW_TRACKING_URI=f"sqlite:///{home.folder}/mlflow.db")
    home.check()


@pytest.mark.faults
def test_shrink_and_doctor_commands(home: Home, here: Here) -> None:
    here("lissnas", "shrink", "--benchmark", "nas_bench_macro", *SMALL, "--out", "plain")
    here("lissnas", "doctor", code=1)
    home.check()


@pytest.mark.faults
def test_unreachable_and_refusing_object_storage(home: Home, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ATTEMPTS", 1)
    to_bucket = ("lissnas", "shrink", "--benchmark", "nas_bench_macro", *SMALL, "--out", "s3://bucket/shrunk")

    def try_endpoint(endpoint: str) -> str:
        remote._storage.cache_clear()
        return here(*to_bucket, code=1, AWS_ENDPOINT_URL_S3=endpoint)

    assert f"http://{UNREACHABLE} does not answer" in try_endpoint(PLANTED["AWS_ENDPOINT_URL_S3"])
    with refusing() as (where, received):
        assert "refused (" in try_endpoint(f"http://{where}")
        assert f"http://{where} does not answer" in try_endpoint(address("http", "AWS_ENDPOINT_URL_S3", where))
    assert secret("AWS_ACCESS_KEY_ID") in str(received)  # the key was sent
    remote._storage.cache_clear()
    home.check()


@pytest.mark.faults
def test_programs_that_fail_and_print_secrets(home: Home, here: Here) -> None:
    program, redacted = f"{sys.executable} oracle.py", "called with *** no answer from https://oracle.example"
    label = ("flows.label", "--space", "nas_bench_macro", "--networks", "2", "--out", "labels", "--workers", "0")
    assert redacted in here(*label, "--program", program, code=1)
    assert redacted.encode() in (home.folder / "labels" / "labels.jsonl").read_bytes()
    shrink = ("flows.shrink", "--space", "nas_bench_macro", *SMALL, "--out", "failed")
    assert redacted in here(*shrink, "--oracle-command", program, code=1)
    home.check()


@pytest.mark.faults
def test_password_in_a_command_is_not_recorded(home: Home, here: Here) -> None:
    (home.folder / "one.py").write_text("import sys\nfor _ in sys.stdin: print(1)")
    program = f"{sys.executable} one.py {address('https', 'ORACLE_TOKEN', 'oracle.example')}"
    label = ("flows.label", "--space", "nas_bench_macro", "--networks", "2", "--out", "ones", "--workers", "0")
    here(*label, "--program", program)
    for name in ("run.json", "parameters.json"):
        assert b"https://oracle.example" in (home.folder / "ones" / name).read_bytes()
    home.check()


@pytest.mark.faults
def test_failed_push(home: Home, here: Here) -> None:
    from prefect import flow

    from flows.reproduce import push

    (home.folder / "dvc.yaml").write_text("stages: {made: {cmd: echo made > made, outs: [made]}}")
    here("dvc", "repro", "--quiet")

    @flow(name="pushes")
    def pushes() -> None:
        push.with_options(retries=0)()

    with pytest.raises(LissnasError, match=r"(?s)push ended with code 1.*127\.0\.0\.1:9") as caught:
        pushes()
    home.save(str(caught.value))
    home.check()


@pytest.mark.faults
def test_logs_of_the_prefect_server(home: Home) -> None:
    """Run after the other flows, since logs reach the server with a delay."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    stored = b"".join(p.read_bytes() for p in home.database.parent.iterdir())
    for part in (b"not logged to MLflow", b"called with ***", b"push ended with code"):
        assert part in stored
    home.check()


# -- infra -----------------------------------------------------------------------------------------
@pytest.mark.faults
def test_secrets_of_make_up_are_in_one_private_file(home: Home, here: Here, capfd: pytest.CaptureFixture[str]) -> None:
    folder = home.folder / "services"
    folder.mkdir()
    chosen = settings.choose(folder)
    settings.save(chosen, folder)
    assert settings.load(folder) == chosen
    assert chosen.urls["storage"] == PLANTED["AWS_ENDPOINT_URL_S3"]
    stack._show(chosen, folder)
    home.save("".join(capfd.readouterr()) + repr(chosen))
    private = folder / settings.SECRETS
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    others = b"".join(p.read_bytes() for p in home.folder.rglob("*") if p.is_file() and p != private)
    assert not [value for value in chosen.secrets.values() if value.encode() in others]
    home.check()


@pytest.mark.faults
def test_errors_of_make_deploy_contain_no_secrets(home: Home, here: Here) -> None:
    deploy.find_servers()
    with pytest.raises(LissnasError, match=f"PREFECT_API_URL=http://{UNREACHABLE}/api does not answer") as unreachable:
        deploy.deploy()
    with pytest.raises(UserError, match="an address belongs in the block") as webhook:
        deploy._notification_block(None)
    home.save(f"{unreachable.value} {webhook.value}")
    home.check()
