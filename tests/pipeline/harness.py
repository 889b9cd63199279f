"""Helpers that run commands in this process and start servers for one test module."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from infra.settings import free_port
from lissnas.cli import app
from lissnas.core import process


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int | None
    out: str
    err: str


def lissnas_here(folder: Path, *words: str) -> Done:
    """Run `lissnas` in this process, in a folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in range(2))
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        process.run(lambda: app.app(args=list(words), prog_name="lissnas"))
    printed = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Done(int(ended.value.code or 0), *printed)


@contextmanager
def served(home: Path) -> Iterator[None]:
    """Change to a folder with a separate Prefect server and MLflow database; restore folder and environment on exit."""
    saved, before = dict(os.environ), Path.cwd()
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    os.chdir(home)
    from prefect.testing.utilities import prefect_test_harness

    try:
        with prefect_test_harness(server_startup_timeout=120):
            yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(saved)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run an MLflow server, as `make up` does, with database and artifacts in a folder; yield its URL."""
    folder.mkdir()
    port = free_port()
    where, stores = f"http://127.0.0.1:{port}", f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    more = ["--backend-store-uri", stores, "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    given = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    given.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *more], env=given, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{where}/health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                alive = process.poll() is None and time.monotonic() < until
                assert alive, (folder / "log").read_text()
                time.sleep(0.3)
        yield where
    finally:
        process.terminate()
        process.wait(60)
