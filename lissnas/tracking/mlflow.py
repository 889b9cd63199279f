"""Write records to MLflow, which is imported only here. A record that is sent twice is stored once."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from lissnas.artifacts.lock import file_lock
from lissnas.core.redaction import move_mlflow_credentials, redacted
from lissnas.tracking import model_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "lissnas"
MAIN = ""
"""The run of a stage; its children have names."""
PARENT = "lissnas.parent"
"""The run above it; also the tag with the key by which other processes find that one."""
KEY = "lissnas.run"
"""The tag by which a run is found again."""
SAME = "tags.manifest_sha256 = '{}' and attributes.status = 'FINISHED'"
"""Search for the runs of a result by the digest of its manifest."""
BATCH = 90
"""Metrics, parameters and tags in one request; MLflow takes at most 1,000, 100 and 100."""
MAX_TEXT = 5000
"""Characters of a parameter or tag."""
LIVE = 60.0
"""Maximum age of a start, in seconds, for system metrics: records that are sent later have none."""
TYPES = {
    "int64": "long",
    "int32": "integer",
    "int8": "integer",
    "double": "double",
    "float": "float",
    "bool": "boolean",
}
"""MLflow's names of Arrow types; all others are shown as string."""
NOTE = """One parent run for each benchmark and set of parameters, a child run for each stage and seed; retraining and
comparisons have a child run for each network, or each method and seed.

Results: `mean_true` and `max_true` of the shrunk space, in the benchmark's unit, higher is better
(`full_mean_true`, `full_max_true`: of the full space); `top10_kept`: how many of the ten best networks it contains;
`p_good`: its share of networks above the full space's 80th percentile; `queries`: architectures scored by the
predictor; `labels`: true values requested; `best_true`, `best_rank`: the best network found; `test`: its accuracy after
retraining. A parent has them by seed, and `seconds/STAGE`.
Curves: `iteration/...`, `labels/...` (by number of labels), `generation/...`, and `loss`, `rate`, `accuracy` by step.
Tags to group and filter by: `benchmark`, `stage`, `method`, `seed`, `goal`, `limits`, `params_digest`, `git_commit`.
The how-to guide docs/how_to/watch.md compares seeds, methods and goals."""


@dataclass(frozen=True)
class Logged:
    """The run of a logged result."""

    run_id: str
    experiment_id: str
    uri: str
    registered: str = ""
    """Message of the model registry."""

    def __str__(self) -> str:
        """Return the address of the run for a message."""
        if self.uri.startswith("http"):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"run {self.run_id} in {self.uri} (see it with `make ui`)"


class AlreadyLogged(Exception):
    """The result was logged by an earlier run."""

    def __init__(self, logged: Logged) -> None:
        super().__init__(str(logged))
        self.logged = logged


def is_heavy(record: Mapping[str, Any]) -> bool:
    """Return whether a record is a file or a model, which a failing artifact store delays without the others."""
    return bool({"file", "text", "model"} & record.keys())


class Sender:
    """Writes the records of one run and its children to MLflow; connects at the first record."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        """Ids of MLflow by name."""
        self.registered = ""
        self.progress = time.monotonic()
        """When MLflow answered last."""
        self._opened: tuple[MlflowClient, str] | None = None
        self._monitor: Any = None

    def _connected(self) -> tuple[MlflowClient, str]:
        """Return the client and the id of the experiment."""
        if self._opened is None:
            self._opened = _client()
        self.progress = time.monotonic()
        return self._opened

    def logged(self) -> Logged:
        """Return the run."""
        return Logged(self.ids[MAIN], self._connected()[1], _uri(), self.registered)

    def send(self, records: Sequence[Mapping[str, Any]], key: str) -> None:
        """Write records that are no files, in order; `key` identifies the run."""
        from mlflow.entities import Metric, Param, RunTag

        batches: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {}

        def flush() -> None:
            for to, (metrics, params, tags) in batches.items():
                left: dict[str, Any] = {"metrics": metrics, "params": [*params.values()], "tags": [*tags.values()]}
                while any(left.values()):
                    self._connected()[0].log_batch(self.ids[to], **{kind: one[:BATCH] for kind, one in left.items()})
                    left = {kind: one[BATCH:] for kind, one in left.items()}
            batches.clear()

        for record in records:
            to, at = record["to"], record["at"]
            if to == PARENT and to not in self.ids and "name" not in record:
                continue  # a run without a parent
            if "status" in record:
                flush()
                self._set_status(record, key)
            elif "dataset" in record:
                self._log_dataset(record)
            elif "compare" in record:
                view = compare_view(self._connected()[1], [self.ids[name] for name in record["compare"]])
                note = f"[{record['title']}]({view})"
                self._connected()[0].set_tag(self.ids[to], "mlflow.note.content", note)
            else:
                metrics, params, tags = batches.setdefault(to, ([], {}, {}))
                metrics += [Metric(n, v, at, record["step"]) for n, v in record.get("metrics", {}).items()]
                params.update({n: Param(n, v[:MAX_TEXT]) for n, v in record.get("params", {}).items()})
                tags.update({n: RunTag(n, v[:MAX_TEXT]) for n, v in record.get("tags", {}).items()})
        flush()

    def _set_status(self, record: Mapping[str, Any], key: str) -> None:
        """Start, continue or end a run."""
        client, experiment = self._connected()
        to, status = record["to"], record["status"]
        if "name" in record:
            if manifest := record.get("unless"):
                for run in client.search_runs([experiment], SAME.format(manifest), max_results=1):
                    raise AlreadyLogged(Logged(run.info.run_id, experiment, _uri()))
            self._open(record, f"{key} {to}".strip())
        elif to == PARENT:
            siblings = f"tags.`mlflow.parentRunId` = '{self.ids[to]}' and attributes.status = 'RUNNING'"
            if not client.search_runs([experiment], siblings, max_results=1):
                ended = client.get_run(self.ids[to]).info.end_time or 0
                client.set_terminated(self.ids[to], status, max(ended, record["at"]))
        else:
            if to == MAIN and self._monitor is not None:
                self._monitor.finish()
            client.set_terminated(self.ids[to], status, record["at"])

    def _open(self, record: Mapping[str, Any], key: str) -> None:
        """Start a run, or find and continue it."""
        from mlflow.entities import RunTag

        client, experiment = self._connected()
        to, tags = record["to"], dict(record["tags"])
        tag, key = (PARENT, record.get("key") or tags[PARENT]) if "key" in record or PARENT in tags else (KEY, key)
        if "above" in record and record["above"] in self.ids:
            tags["mlflow.parentRunId"] = self.ids[record["above"]]
        with file_lock(Path.cwd() / ".mlflow.lock", 120):
            found = client.search_runs([experiment], f"tags.`{tag}` = '{key}'", max_results=1)
            run = found[0] if found else client.create_run(experiment, record["at"], {tag: key, **tags}, record["name"])
        self.ids[to] = run.info.run_id
        if run.info.status != "RUNNING" and not record.get("is_started"):
            client.update_run(run.info.run_id, "RUNNING")
        if found and not record.get("is_started"):
            client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        if record.get("watched") and time.time() - record["at"] / 1000 < LIVE:
            self._watch(run.info.run_id)

    def _watch(self, run: str) -> None:
        """Let MLflow sample processor, memory, disk, network and GPUs, if its setting for that is on."""
        from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
            self._monitor = SystemMetricsMonitor(run, resume_logging=True)
            self._monitor.start()

    def _log_dataset(self, record: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        about = record["dataset"]
        columns = [{"name": name, "type": TYPES.get(kind, "string")} for name, kind in about["schema"].items()]
        schema, source = json.dumps({"mlflow_colspec": columns}), json.dumps({"uri": about["source"]})
        data = Dataset(about["name"], about["digest"][:32], "local", source, schema)
        tags = [InputTag("mlflow.data.context", about["context"])]
        self._connected()[0].log_inputs(self.ids[record["to"]], [DatasetInput(data, tags)])

    def send_file(self, record: Mapping[str, Any], result: str) -> None:
        """Write a file, a folder, a text or a model; `result` is the digest of the manifest of a model's result."""
        client, run = self._connected()[0], self.ids.get(record["to"])
        if run is None:  # a run without a parent
            return
        if "text" in record:
            client.log_text(run, record["text"], record["name"])
        elif "model" in record:
            about = record["model"]
            model = log_model(run, about)
            if "register" in about:
                named = model_registry.Model(id=model, **about["register"])
                self.registered = model_registry.register(client, named, run, result)
        elif Path(record["file"]).is_dir():
            client.log_artifacts(run, record["file"], record["folder"] or None)
        else:
            client.log_artifact(run, record["file"], record["folder"] or None)


def log_model(run: str, about: Mapping[str, Any]) -> str:
    """Log a model of a run, which loads without unpickling, and return its id.

    `about` has its `name`, `flavor` (xgboost or pytorch), `file`, `tags`, and for images the `side`; to register it,
    `register` (`model_registry.Model` without id).
    """
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    client, single = mlflow.MlflowClient(), np.dtype(np.float32)
    logged = client.get_run(run)
    for one in getattr(logged.outputs, "model_outputs", ()):
        if client.get_logged_model(one.model_id).name == about["name"]:
            return str(one.model_id)
    tags = {name: str(value) for name, value in {**about["tags"], **account()}.items()}
    made = client.create_logged_model(logged.info.experiment_id, about["name"], run, tags)
    given: dict[str, Any] = {"model_id": made.model_id, "run_id": run}
    if about["flavor"] == "xgboost":
        from lissnas.predictors.boosting import xgb

        booster = xgb.Booster(model_file=about["file"])
        inputs = Schema([TensorSpec(single, (-1, booster.num_features()))])
        given["signature"] = ModelSignature(inputs, Schema([TensorSpec(single, (-1,))]))
        given["pip_requirements"] = [f"xgboost-cpu=={version('xgboost-cpu')}"]
        return str(mlflow.xgboost.log_model(booster, model_format="ubj", **given).model_id)
    import torch

    given["input_example"] = np.zeros((2, 3, about["side"], about["side"]), single)
    given["pip_requirements"] = [f"torch=={version('torch')}"]
    network = torch.export.load(about["file"]).module()
    return str(mlflow.pytorch.log_model(network, serialization_format="pt2", **given).model_id)


def compare_view(experiment: str, runs: Sequence[str]) -> str:
    """Return the URL of the page that compares runs; relative without a server."""
    uri = redacted(os.environ.get("MLFLOW_TRACKING_URI", ""))
    query = {"runs": json.dumps(runs, separators=(",", ":")), "experiments": f'["{experiment}"]'}
    return f"{uri.rstrip('/') if uri.startswith('http') else ''}/#/compare-runs?{urlencode(query)}"


def tracking_uri() -> str:
    """Return the address of MLflow: MLFLOW_TRACKING_URI, else a database in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def _uri() -> str:
    import mlflow

    return redacted(mlflow.get_tracking_uri())


def _client() -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment; only one process creates the database."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    # The recorder tries again; it must not hang on one attempt.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # MLflow would print the address unredacted; the caller reports the run.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    move_mlflow_credentials()
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    with file_lock(Path.cwd() / ".mlflow.lock", 120):
        database = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"))
        if os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:///") and not database.exists():
            # A process that is killed while it creates a database would leave one that no version can open.
            new = database.with_name(f".{database.name}.new")
            new.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{new}").search_experiments()
            new.replace(database)
        client = MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        # With this kind, the experiment opens on its table of runs.
        tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
        if experiment is None:
            return client, client.create_experiment(EXPERIMENT, tags=tags)
        if experiment.lifecycle_stage != "active":
            restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            raise RuntimeError(f"the experiment {EXPERIMENT} was deleted: `{restore}`, then `lissnas sync`")
        for name, value in tags.items():
            if experiment.tags.get(name) != value:
                client.set_experiment_tag(experiment.experiment_id, name, value)
        return client, experiment.experiment_id


def account() -> dict[str, str]:
    """Return the tag with the user's name: MLflow's default, MLFLOW_TRACKING_USERNAME, can be a token."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container's user without a name
        return {"mlflow.user": "unknown"}


def revision() -> dict[str, str]:
    """Return tags with the git commit and whether files differ from it; empty outside of a repository."""
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = found.partition("-")
    return {"git_commit": commit, "git_dirty": str(bool(dirty)).lower()}
