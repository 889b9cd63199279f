"""Results in object storage: with a moto server, a server that hangs, and an unreachable one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("s3fs", reason="s3fs is not installed (the extra `pipeline`)")
pytest.importorskip("moto.server", reason="moto is not installed (the extra `dev`)")

from moto.server import ThreadedMotoServer

from lissnas import artifacts
from lissnas.artifacts import remote
from lissnas.artifacts.stage_run import finished
from lissnas.cli import app
from lissnas.core.errors import DamagedFile, LissnasError, UserError

BUCKET = "results"
OUT = f"s3://{BUCKET}/a/shrunk"
SHRINK = ("shrink", "--benchmark", "nas_bench_macro", "--target-size", "300", "--label-budget", "60")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def storage(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    remote._storage.cache_clear()
    storage = remote._storage()
    storage.mkdir(BUCKET)
    yield storage
    storage.rm(BUCKET, recursive=True)
    remote._storage.cache_clear()


def lissnas(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app.app, list(words))
    output = done.output + str(done.exception or "")
    assert (done.exit_code == 0) == (code == 0), output
    return " ".join(output.split())


def test_result_is_uploaded_and_found_again(storage: Any, tmp_path: Path) -> None:
    lissnas(*SHRINK, "--out", "here")
    assert f"Files: {OUT}" in lissnas(*SHRINK, "--out", OUT)
    manifest = artifacts.read_manifest(tmp_path / "here")
    assert manifest is not None
    for name, digest in manifest.items():
        assert artifacts.sha256(storage.cat_file(f"{OUT}/{name}")) == digest
    assert not list(tmp_path.glob("s3*"))
    assert "Nothing was done" in lissnas(*SHRINK, "--out", OUT)
    for file in sorted((tmp_path / ".lissnas").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert "Nothing was done" in lissnas(*SHRINK, "--out", OUT)
    assert finished(Path(OUT)).metrics["size"] == 300
    assert artifacts.read_json(remote.local_copy(OUT) / artifacts.RUN)["seconds"] > 0
    assert "300" in lissnas("show", OUT)
    lissnas(*SHRINK, "--seed", "1", "--out", OUT, code=2)
    lissnas(*SHRINK, "--seed", "1", "--out", OUT, "--force")
    assert finished(Path(OUT)).metrics["seed"] == 1


def test_damaged_remote_file_is_detected_on_download(storage: Any, tmp_path: Path) -> None:
    lissnas(*SHRINK, "--out", OUT)
    data = bytearray(storage.cat_file(f"{OUT}/subspace.parquet"))
    data[len(data) // 2] ^= 1
    storage.pipe_file(f"{OUT}/subspace.parquet", bytes(data))
    remote.local_copy(OUT).joinpath("subspace.parquet").unlink()
    with pytest.raises(DamagedFile, match=r"s3://results/a/shrunk/subspace.parquet"):
        finished(Path(OUT))


def test_result_without_remote_manifest_is_absent_until_uploaded_again(storage: Any) -> None:
    lissnas(*SHRINK, "--out", OUT)
    storage.rm_file(f"{OUT}/manifest.json")
    with pytest.raises(UserError, match="holds no result"):
        finished(Path(OUT))
    # A run that is killed before its upload leaves such a local copy, which the next run uploads.
    assert "Nothing was done" in lissnas(*SHRINK, "--out", OUT)
    assert finished(Path(OUT)).metrics["size"] == 300


def test_files_listed_in_the_run_record_are_downloaded_and_verified(storage: Any, tmp_path: Path) -> None:
    lissnas(*SHRINK, "--out", OUT)
    storage.pipe_file(f"{OUT}/run.json", artifacts.to_record({"files": {"times.json": artifacts.sha256(b"{}")}}))
    storage.pipe_file(f"{OUT}/times.json", b"{}")
    copy = finished(Path(OUT)).folder
    assert (copy / "times.json").read_bytes() == b"{}"
    (copy / "times.json").unlink()
    storage.pipe_file(f"{OUT}/times.json", b"[]")
    with pytest.raises(DamagedFile, match=r"times.json"):
        finished(Path(OUT))
    for content in (b"no", b'{"files": {"../x": "00"}}', b'{"files": 3}', b"[]"):
        storage.pipe_file(f"{OUT}/run.json", content)
        with pytest.raises(UserError, match=r"run.json"):
            finished(Path(OUT))


def test_manifest_with_a_path_outside_the_folder_is_refused(storage: Any) -> None:
    storage.pipe_file(f"{OUT}/manifest.json", b'{"files": {"../../evil": "00"}}')
    with pytest.raises(UserError, match="is not in its folder"):
        finished(Path(OUT))


@pytest.mark.parametrize("address", ["s3://results", "s3://", "s3://results/../x", "s3:///x"])
def test_invalid_address_is_refused(storage: Any, address: str) -> None:
    with pytest.raises(UserError, match="expected s3://bucket/prefix"):
        finished(Path(address))


def test_missing_bucket_is_refused(storage: Any, server: str) -> None:
    with pytest.raises(UserError, match=f"there is no bucket 'other' at {server}"):
        remote.fetch(Path("s3://other/x"))
    assert not Path(".lissnas").exists()


def test_missing_key_is_refused(storage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    remote._storage.cache_clear()
    with pytest.raises(LissnasError, match="AWS_ACCESS_KEY_ID"):
        remote.fetch(Path(OUT))


class Refuses(BaseHTTPRequestHandler):
    """A storage that refuses every key."""

    def do_GET(self) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_wrong_key_is_refused(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        remote._storage.cache_clear()
        with pytest.raises(LissnasError, match=r"refused .*AWS_SECRET_ACCESS_KEY") as caught:
            remote.fetch(Path(OUT))
        assert "planted-secret" not in str(caught.value)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_hanging_or_unreachable_endpoint_is_reported(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT", 1)
    monkeypatch.setattr(remote, "READ_TIMEOUT", 1)
    monkeypatch.setattr(remote, "MAX_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        for port in (hangs.getsockname()[1], 1):
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
            remote._storage.cache_clear()
            with pytest.raises(LissnasError, match=f"127.0.0.1:{port} .*AWS_ENDPOINT_URL_S3") as caught:
                remote.fetch(Path(OUT))
            assert "planted-secret" not in str(caught.value)


def test_objects_of_a_user_are_never_replaced(storage: Any, tmp_path: Path) -> None:
    """Before the work without a result there, else at the upload; results in subfolders are not in the way."""
    storage.pipe_file(f"{OUT}/labels.parquet", b"mine")
    for words in ((), ("--force",)):
        assert "has a file labels.parquet that lissnas did not make" in lissnas(*SHRINK, "--out", OUT, *words, code=2)
    assert not (tmp_path / ".lissnas").exists()
    storage.rm_file(f"{OUT}/labels.parquet")
    lissnas(*SHRINK, "--out", OUT)
    storage.pipe_file(f"{OUT}/notes.txt", b"mine")
    lissnas(*SHRINK, "--out", OUT, "--seed", "1", "--force")
    assert storage.cat_file(f"{OUT}/notes.txt") == b"mine"
    remote.check_out(Path(OUT).parent)
    storage.pipe_file(f"{OUT}/new.csv", b"mine")
    (remote.local_copy(OUT) / "new.csv").write_bytes(b"ours")
    artifacts.write(remote.local_copy(OUT) / "manifest.json", artifacts.to_json({"files": {"new.csv": "00"}}))
    with pytest.raises(UserError, match=r"has a file new\.csv that lissnas did not make"):
        remote.upload(Path(OUT))
    assert storage.cat_file(f"{OUT}/new.csv") == b"mine"
