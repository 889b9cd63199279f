"""Secrets planted wherever one can come from: after real jobs, and failures, none is in a log, a database or a file."""

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
AWAY = "127.0.0.1:9"
"""Where nobody listens."""
SMALL = ("--target-size", "300", "--label-budget", "60")
EXEMPT = {
    ".git/config": "git keeps the address of a remote as it was given",
    ".dvc/config.local": "DVC keeps a remote's key where it was put, out of git",
    "services/secrets.json": "`make up` keeps the secrets of its servers here, for their owner alone",
}
"""Files that hold a secret because somebody put it there."""


def secret(name: str) -> str:
    """A value that is found nowhere by chance, and looks different in an address."""
    return f"{name}+{artifacts.sha256(name.encode())[:20]}"


def address(scheme: str, name: str, rest: str) -> str:
    """An address that carries a password."""
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
    "AWS_ENDPOINT_URL_S3": address("http", "AWS_ENDPOINT_URL_S3", AWAY),
    "PREFECT_API_URL": address("http", "PREFECT_API_URL", f"{AWAY}/api"),
    "MLFLOW_TRACKING_URI": address("http", "MLFLOW_TRACKING_URI", AWAY),
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": address("postgresql+asyncpg", "PREFECT_DATABASE", f"{AWAY}/prefect"),
    "MLFLOW_BACKEND_STORE_URI": address("postgresql+psycopg", "MLFLOW_DATABASE", f"{AWAY}/mlflow"),
    "NOTIFY": f"https://hooks.example/services/{secret('NOTIFY')}",
}
ELSEWHERE = ("GIT_REMOTE", "DVC_REMOTE", "DVC_KEY")
SECRETS = [secret(name) for name in (*PLANTED, "PREFECT_DATABASE", "MLFLOW_DATABASE", *ELSEWHERE)]


# -- looking for them ------------------------------------------------------------------------------
def forms(text: str) -> list[bytes]:
    """A text as it is, as an address writes it, and in base64, wherever in what was encoded it began."""
    data, found = text.encode(), [text.encode(), quote(text, safe="").encode()]
    for before in range(3):
        whole = (before + len(data)) // 3 * 3 - before
        encoded = base64.b64encode(b"\0" * before + data[:whole])[4 if before else 0 :]
        found += [encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


FORMS = {form: text for text in SECRETS for form in forms(text)}


def leaks(*folders: Path) -> list[str]:
    """Which files hold a secret, and the beginning of which."""
    files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    assert files
    found = []
    for path in files:
        if any(str(path).endswith(exempt) for exempt in EXEMPT):
            continue
        data = path.read_bytes()
        found += sorted({f"{path}: {text.partition('+')[0]}" for form, text in FORMS.items() if form in data})
    return found


def test_what_is_planted_is_found(tmp_path: Path) -> None:
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
    f"['remote \"away\"']\n  url = {address('http', 'DVC_REMOTE', f'{AWAY}/dvc')}\n"
    f"  auth = basic\n  user = someone\n  password = {secret('DVC_KEY')}\n"
)
JUDGE = """
import os, sys
print("asked with", os.environ["ORACLE_TOKEN"], file=sys.stderr)
sys.exit(f"no answer from https://someone:{os.environ['AWS_SECRET_ACCESS_KEY']}@judge.example")
"""


class Refuses(BaseHTTPRequestHandler):
    """A server of Prefect, MLflow or S3 that is well, lets nobody in, and says who asked."""

    signed: set[str]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.signed.add(self.headers.get("Authorization", ""))
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
    """Yield where a server listens, in a thread."""
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
    """Yield where a server listens that refuses everything, and what it is signed with."""
    asked: set[str] = set()

    class Handler(Refuses):
        signed = asked

    with listening(HTTPServer(("127.0.0.1", 0), Handler)) as where:
        yield where, asked


@dataclass(frozen=True)
class Home:
    """A repository whose remotes have passwords, and the servers that jobs find; all that was said is in it too."""

    folder: Path
    prefect: str
    database: Path
    """Of the Prefect server: what was logged, how runs ended, what is on their pages."""

    def run(self, *words: str, code: int = 0, **env: str) -> str:
        """Run a module in a process of its own that has every secret in its environment; return what it said."""
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
        said = done.stdout + done.stderr
        self.keep(said)
        assert done.returncode == code, said
        return " ".join(said.split())

    def keep(self, said: str) -> None:
        (self.folder / f"said-{len(list(self.folder.glob('said-*')))}").write_text(said)

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
    (folder / "judge.py").write_text(JUDGE)
    (folder / "harness").mkdir()
    with served(folder / "harness"):
        from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL

        url, database = str(PREFECT_API_URL.value()), str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value())
        prefect = address("http", "PREFECT_API_URL", url.removeprefix("http://"))
        yield Home(folder, prefect, Path(database.partition(":///")[2]))


class Here(Protocol):
    """Runs a command in this process, as `Home.run` does in another one; returns what it said."""

    def __call__(self, *words: str, code: int = 0, **env: str) -> str: ...


@pytest.fixture
def here(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Here:
    """A PREFECT_API_URL is what Prefect was told; without one it has the server of these tests."""
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
        said = "".join(capfd.readouterr()) + caplog.text
        caplog.clear()
        home.keep(said)
        assert ended.value.code == code, said
        return " ".join(said.split())

    return run


@pytest.mark.faults
def test_a_flow_and_its_servers(home: Home) -> None:
    with mlflow_server(home.folder / "mlflow-server") as url:
        where = url.removeprefix("http://")
        said = home.run(*SHRINK, MLFLOW_TRACKING_URI=address("http", "MLFLOW_TRACKING_URI", where))
    assert f"MLflow: http://{where}/#/experiments/" in said
    assert "View at http://127.0.0.1" in said
    home.check()


def test_both_servers_away(home: Home, here: Here) -> None:
    said = here(*SHRINK, PREFECT_API_URL=PLANTED["PREFECT_API_URL"])
    assert f"PREFECT_API_URL=http://{AWAY}/api does not answer" in said
    assert f"not logged to MLflow (API request to http://{AWAY}/" in said
    assert (home.folder / pending.JOURNAL).exists()
    home.check()


@pytest.mark.faults
def test_prefect_lets_nobody_in(home: Home, here: Here) -> None:
    with refusing() as (where, signed):
        said = here(*SHRINK, code=1, PREFECT_API_URL=address("http", "PREFECT_API_URL", f"{where}/api"))
    assert f"'403 Forbidden' for url 'http://{where}/api/" in said
    assert any(is_signed("PREFECT_API_URL", header) for header in signed)
    home.check()


def is_signed(name: str, header: str) -> bool:
    """Whether a request carried the password of an address."""
    return header == f"Basic {base64.b64encode(f'someone:{secret(name)}'.encode()).decode()}"


@pytest.mark.faults
def test_mlflow_in_every_way(home: Home, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `test_both_servers_away` left untold."""
    import mlflow.store.db.utils as databases

    monkeypatch.setattr(databases, "MAX_RETRY_COUNT", 1)
    with refusing() as (where, signed):
        uri = address("http", "MLFLOW_TRACKING_URI", where)
        assert "403" in here("lissnas", "sync", code=1, MLFLOW_TRACKING_URI=uri)
    assert all(is_signed("MLFLOW_TRACKING_URI", header) for header in signed)
    for uri, expected in {
        address("http", "MLFLOW_TRACKING_URI", AWAY): f"http://{AWAY}/",
        address("postgresql+psycopg", "MLFLOW_TRACKING_URI", f"{AWAY}/mlflow"): "port 9",
        address("sqlite", "MLFLOW_TRACKING_URI", "host/x.db"): "not logged",
        address("weird", "MLFLOW_TRACKING_URI", "host/x"): "weird://host/x",
    }.items():
        assert expected in here("lissnas", "sync", code=1, MLFLOW_TRACKING_URI=uri)
    assert "logged" in here("lissnas", "sync", MLFLOW_TRACKING_URI=f"sqlite:///{home.folder}/mlflow.db")
    home.check()


@pytest.mark.faults
def test_the_plain_command(home: Home, here: Here) -> None:
    here("lissnas", "shrink", "--benchmark", "nas_bench_macro", *SMALL, "--out", "plain")
    here("lissnas", "doctor", code=1)
    home.check()


@pytest.mark.faults
def test_object_storage_away_and_refusing(home: Home, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ATTEMPTS", 1)
    to_bucket = ("lissnas", "shrink", "--benchmark", "nas_bench_macro", *SMALL, "--out", "s3://bucket/shrunk")

    def try_it(endpoint: str) -> str:
        remote._storage.cache_clear()
        return here(*to_bucket, code=1, AWS_ENDPOINT_URL_S3=endpoint)

    assert f"http://{AWAY} does not answer" in try_it(PLANTED["AWS_ENDPOINT_URL_S3"])
    with refusing() as (where, signed):
        assert "refused (" in try_it(f"http://{where}")
        assert f"http://{where} does not answer" in try_it(address("http", "AWS_ENDPOINT_URL_S3", where))
    assert secret("AWS_ACCESS_KEY_ID") in str(signed)  # it was used
    remote._storage.cache_clear()
    home.check()


@pytest.mark.faults
def test_programs_that_fail_and_tell_all(home: Home, here: Here) -> None:
    program, told = f"{sys.executable} judge.py", "asked with *** no answer from https://judge.example"
    label = ("flows.label", "--space", "nas_bench_macro", "--networks", "2", "--out", "labels", "--workers", "0")
    assert told in here(*label, "--program", program, code=1)
    assert told.encode() in (home.folder / "labels" / "labels.jsonl").read_bytes()
    shrink = ("flows.shrink", "--space", "nas_bench_macro", *SMALL, "--out", "asked")
    assert told in here(*shrink, "--oracle-command", program, code=1)
    home.check()


@pytest.mark.faults
def test_a_password_in_a_command_is_in_no_record_of_it(home: Home, here: Here) -> None:
    (home.folder / "one.py").write_text("import sys\nfor _ in sys.stdin: print(1)")
    program = f"{sys.executable} one.py {address('https', 'ORACLE_TOKEN', 'judge.example')}"
    label = ("flows.label", "--space", "nas_bench_macro", "--networks", "2", "--out", "ones", "--workers", "0")
    here(*label, "--program", program)
    for name in ("run.json", "parameters.json"):
        assert b"https://judge.example" in (home.folder / "ones" / name).read_bytes()
    home.check()


@pytest.mark.faults
def test_a_push_that_fails(home: Home, here: Here) -> None:
    from prefect import flow

    from flows.reproduce import push

    (home.folder / "dvc.yaml").write_text("stages: {made: {cmd: echo made > made, outs: [made]}}")
    here("dvc", "repro", "--quiet")

    @flow(name="pushes")
    def pushes() -> None:
        push.with_options(retries=0)()

    with pytest.raises(LissnasError, match=r"(?s)push ended with code 1.*127\.0\.0\.1:9") as caught:
        pushes()
    home.keep(str(caught.value))
    home.check()


@pytest.mark.faults
def test_what_prefect_was_told(home: Home) -> None:
    """Last of the flows: logs reach the server a while later."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    kept = b"".join(p.read_bytes() for p in home.database.parent.iterdir())
    for part in (b"not logged to MLflow", b"asked with ***", b"push ended with code"):
        assert part in kept
    home.check()


# -- infra -----------------------------------------------------------------------------------------
@pytest.mark.faults
def test_what_make_up_keeps(home: Home, here: Here, capfd: pytest.CaptureFixture[str]) -> None:
    folder = home.folder / "services"
    folder.mkdir()
    chosen = settings.choose(folder)
    settings.save(chosen, folder)
    assert settings.load(folder) == chosen
    assert chosen.urls["storage"] == PLANTED["AWS_ENDPOINT_URL_S3"]
    stack._show(chosen, folder)
    home.keep("".join(capfd.readouterr()) + repr(chosen))
    kept = folder / settings.SECRETS
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    others = b"".join(p.read_bytes() for p in home.folder.rglob("*") if p.is_file() and p != kept)
    assert not [value for value in chosen.secrets.values() if value.encode() in others]
    home.check()


@pytest.mark.faults
def test_make_deploy(home: Home, here: Here) -> None:
    deploy.find_servers()
    with pytest.raises(LissnasError, match=f"PREFECT_API_URL=http://{AWAY}/api does not answer") as away:
        deploy.deploy()
    with pytest.raises(UserError, match="an address belongs in the block") as webhook:
        deploy._notification_block(None)
    home.keep(f"{away.value} {webhook.value}")
    home.check()
