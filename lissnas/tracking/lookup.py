"""Find the MLflow run of a result without writing anything."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

from lissnas import artifacts
from lissnas.core.errors import first_line, short
from lissnas.core.redaction import move_mlflow_credentials, redacted
from lissnas.tracking.mlflow import EXPERIMENT, SAME, Logged, tracking_uri

TIMEOUT_SECONDS = "5"
SQLITE = "sqlite:///"
QUERY = """
SELECT runs.run_uuid, runs.experiment_id FROM runs
JOIN tags ON tags.run_uuid = runs.run_uuid
JOIN experiments ON experiments.experiment_id = runs.experiment_id
WHERE tags.key = 'manifest_sha256' AND tags.value = ? AND experiments.name = ?
AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active' LIMIT 1
"""
"""The query of MLflow's schema that `SAME` is for its client, which would upgrade or create a database."""


def find(folder: Path) -> str | None:
    """Return a text about the run of a result: its address, or why MLflow was not asked; None if it is not logged."""
    move_mlflow_credentials()
    uri = tracking_uri()
    manifest = artifacts.sha256((folder / artifacts.MANIFEST).read_bytes())
    try:
        found = _in_database(uri, manifest) if uri.startswith(SQLITE) else _on_server(uri, manifest)
    except Exception as error:  # whatever a server, a proxy or a login page makes the client raise
        return f"not asked ({_reason(uri, error)})"
    return None if found is None else str(found)


def _in_database(uri: str, manifest: str) -> Logged | None:
    path = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
        for run, experiment in database.execute(QUERY, (manifest, EXPERIMENT)):
            return Logged(str(run), str(experiment), redacted(uri))
    return None


def _on_server(uri: str, manifest: str) -> Logged | None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient, set_tracking_uri

    set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    for run in client.search_runs([experiment.experiment_id], SAME.format(manifest), max_results=1):
        return Logged(run.info.run_id, experiment.experiment_id, redacted(uri))
    return None


def _reason(uri: str, error: Exception) -> str:
    """Return what went wrong, with the address, in one line."""
    text = short(first_line(error).partition(". ")[0], 150)
    place = urlsplit(redacted(uri)).netloc or redacted(uri)
    is_silent = isinstance(error, OSError) or "failed with exception" in text
    return f"{place} does not answer" if is_silent else f"{place}: {text}"
