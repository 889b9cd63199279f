"""Log results to MLflow, which is imported only for logging. Results never depend on it."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from lissnas import artifacts
from lissnas.artifacts.lock import file_lock
from lissnas.artifacts.stage_run import PARAMETERS, Outcome
from lissnas.core.redaction import move_mlflow_credentials, redacted
from lissnas.tracking import model_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "lissnas"
PARENT = "lissnas.parent"
FILES = {
    "shrink": ("iterations.parquet", "subspace.parquet"),
    "compare": ("comparison.md", "comparison.csv", "summary.csv"),
    "search": ("top.json", "history.parquet"),
    "retrain": ("network.safetensors", "network.json", "retrained.csv"),
    "ranking": ("ranking.md", "ranking.csv", "summary.csv", "scores.parquet"),
}
"""Files of a result to log, in addition to those of every stage, by stage."""
SIDE_BY_SIDE = ("lissnas", "padnas", "dds", "abs", "nse")
"""Methods that the note of a comparison links to side by side, filled up with others if some are missing."""
BY_ITERATION = (
    *("size", "seen", "labels", "mean_predicted", "best_predicted"),
    *("turnover", "p_good", "mean_true", "max_true"),
)
"""Columns of `iterations.parquet` to log by iteration."""


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


def log_stage(
    stage: str,
    outcome: Outcome,
    seed: int | None = None,
    group: str | None = None,
    load_network: Callable[[Path], Any] | None = None,
) -> Logged:
    """Log a result as a child run of its benchmark's parent run; return the existing run if it is logged already.

    A parent run groups results of one benchmark with the same parameters, across processes; with a `group` (a name),
    the results of one run of the whole method. `load_network` loads an exported network from its folder; without it,
    no network is logged as a model.
    """
    import mlflow

    client, experiment = _client()
    parameters = json.loads((outcome.folder / PARAMETERS).read_bytes())
    benchmark = parameters.get("benchmark", parameters.get("space", "all benchmarks"))
    shared = {k: v for k, v in parameters.items() if k != "seed"}
    digest = artifacts.digest(shared)[:12]
    what = "method" if stage == "shrink" else stage
    key = f"{what} {benchmark} {digest}" if group is None else group
    parent = _parent(client, experiment, benchmark, f"{what} {benchmark}" if group is None else group, key, digest)
    manifest = artifacts.sha256((outcome.folder / artifacts.MANIFEST).read_bytes())
    tags = {
        "mlflow.parentRunId": parent.info.run_id,
        "stage": stage,
        "benchmark": benchmark,
        "method": str(parameters.get("method", parameters.get("variant", stage))),
        "params_digest": digest,
        "manifest_sha256": manifest,
        **{name: str(outcome.metrics[name]) for name in ("metric", "direction") if name in outcome.metrics},
        **_account(),
        **({} if seed is None else {"seed": str(seed)}),
        **_revision(),
    }
    if (known := _find(client, experiment, manifest)) is not None:
        return known
    name = f"{stage} {benchmark}" + ("" if seed is None else f" seed {seed}")
    # The tag names the parent: the fluent API nests only under a run of the same process.
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags) as run:
        mlflow.log_params(_flat(parameters))
        mlflow.log_metrics({k: float(v) for k, v in outcome.metrics.items() if isinstance(v, (int, float))})
        for picture in sorted(outcome.folder.glob("*.png")):
            mlflow.log_artifact(str(picture), "pictures")
        for name in ("metrics.json", "manifest.json", PARAMETERS, *FILES.get(stage, ())):
            mlflow.log_artifact(str(outcome.folder / name))
        if stage == "shrink":
            _log_shrink(outcome)
        if stage == "compare":
            _log_comparison(client, run, outcome)
        if stage == "supernet":
            _log_rows(outcome.csv("training.csv"), "step", {"loss": "loss", "rate": "rate"})
        model = None
        if stage == "predictor":
            model = _log_predictor(outcome)
        if stage == "retrain" and load_network is not None:
            model = _log_network(outcome, load_network(outcome.folder))
        if stage == "ranking":
            _log_ranking(client, run, outcome)
        if stage == "report":
            for page in ("index.html", "report.md"):
                client.log_artifact(parent.info.run_id, str(outcome.folder / page))
            client.log_artifacts(parent.info.run_id, str(outcome.folder / "pages"), "pages")
        registered = "" if model is None else model_registry.register(client, model, run.info.run_id, manifest)
        return Logged(run.info.run_id, experiment, redacted(mlflow.get_tracking_uri()), registered)


def _find(client: MlflowClient, experiment: str, manifest: str) -> Logged | None:
    import mlflow

    same = f"tags.manifest_sha256 = '{manifest}' and attributes.status = 'FINISHED'"
    for run in client.search_runs([experiment], same, max_results=1):
        return Logged(run.info.run_id, experiment, redacted(mlflow.get_tracking_uri()))
    return None


def _log_shrink(outcome: Outcome) -> None:
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas

    records = outcome.table("iterations.parquet").to_pylist()
    _log_rows(records, "iteration", {name: f"iteration/{name}" for name in BY_ITERATION})
    if (model := outcome.folder / "predictor.ubj").exists():  # missing if a surrogate was queried directly
        _log_booster(model)
    members = outcome.table("subspace.parquet").to_pandas()
    source = str(outcome.folder / "subspace.parquet")
    data = from_pandas(members, source=source, name=f"shrunk {outcome.metrics['benchmark']}")
    mlflow.log_input(data, context="shrunk space")


def _log_booster(file: Path) -> str:
    """Log a predictor's trees, tagged with their weight in the stack, and its other files; return the model's id."""
    import mlflow

    from lissnas.predictors.boosting import xgb

    requirements = [f"xgboost-cpu=={version('xgboost-cpu')}"]
    booster, about = xgb.Booster(model_file=str(file)), file.with_suffix(".json")
    weight = json.loads(about.read_bytes())["members"]["trees"]["weight"]
    tags = {**_account(), "stack_weight": weight}
    tags = {**_account(), "stack_weight": weight}
    logged = mlflow.xgboost.log_model(
        booster, name="predictor", model_format="ubj", pip_requirements=requirements, tags=tags
    )
    mlflow.log_artifact(str(about))
    mlflow.log_artifact(str(file.with_name(f"{file.stem}_kernel.npz")))
    return str(logged.model_id)


def _log_predictor(outcome: Outcome) -> model_registry.Model:
    """Log the predictor of the first seed, with its metric on the test set."""
    parameters, first = outcome.json(PARAMETERS), outcome.table("assessment.parquet").to_pylist()[0]
    held_out = {
        "table_sha256": parameters["table_sha256"],
        **{name: first[name] for name in ("seed", "labels", "held_out")},
    }
    return model_registry.Model(
        f"lissnas-predictor-{parameters['benchmark']}".replace("/", "-"),
        _log_booster(outcome.folder / "models" / f"predictor-{first['seed']}.ubj"),
        *("tau", first["tau"], held_out),
        f"Predicts the values of networks of {parameters['benchmark']}; tau on held-out networks",
    )


def _log_comparison(client: MlflowClient, run: Run, outcome: Outcome) -> None:
    """Log each method and seed as a child run, with the metric names of a shrink."""
    benchmark = str(outcome.metrics["benchmark"])
    rows = outcome.table("comparison.parquet").to_pylist()
    methods = sorted(dict.fromkeys(row["method"] for row in rows), key=lambda name: name not in SIDE_BY_SIDE)
    shown, side_by_side = methods[: len(SIDE_BY_SIDE)], []
    for row in rows:
        about = {"benchmark": benchmark, **{name: str(row.pop(name)) for name in ("method", "seed")}}
        tags = {"stage": "method", "kind": row.pop("kind")}
        # The compare page opens on the first metric.
        child = _log_child(client, run, about, {"mean_true": row["mean_true"], **row}, tags)
        if about["method"] in shown:
            side_by_side.append(child)
    view = compare_view(run.info.experiment_id, side_by_side)
    client.set_tag(run.info.run_id, "mlflow.note.content", f"[{', '.join(shown)} side by side]({view})")


def compare_view(experiment: str, runs: Sequence[str]) -> str:
    """Return the URL of the page that compares runs; relative without a server."""
    uri = redacted(os.environ.get("MLFLOW_TRACKING_URI", ""))
    query = {"runs": json.dumps(runs, separators=(",", ":")), "experiments": f'["{experiment}"]'}
    return f"{uri.rstrip('/') if uri.startswith('http') else ''}/#/compare-runs?{urlencode(query)}"


def _log_ranking(client: MlflowClient, run: Run, outcome: Outcome) -> None:
    """Log each trained space and seed as a child run."""
    rows = outcome.csv("ranking.csv")
    for key in dict.fromkeys((r["method"], r["seed"]) for r in rows):
        own = [r for r in rows if (r["method"], r["seed"]) == key]
        about = {"benchmark": str(outcome.metrics["benchmark"]), "method": str(key[0]), "seed": str(key[1])}
        values = {f"{name}_{r['sample']}": r[name] for r in own for name in ("kendall", "spearman", "pearson")}
        values |= {name: own[0][name] for name in ("found_true", "size", "space_mean_true")}
        _log_child(client, run, about, values, {"stage": "ranking"})


def _log_child(
    client: MlflowClient, run: Run, about: Mapping[str, str], values: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Log a method and seed of a stage's table as a finished child run; return its id."""
    from mlflow.entities import Metric, Param, RunTag

    name = f"{about['method']} {about['benchmark']} seed {about['seed']}"
    tags = {"mlflow.parentRunId": run.info.run_id, **about, **tags}
    child: str = client.create_run(run.info.experiment_id, run_name=name, tags=tags).info.run_id
    client.log_batch(
        child,
        metrics=[Metric(k, float(v), run.info.start_time, 0) for k, v in values.items() if v is not None],
        params=[Param(k, v) for k, v in about.items()],
        tags=[RunTag("params_digest", run.data.tags.get("params_digest", ""))],
    )
    client.set_terminated(child)
    return child


def _log_rows(rows: Sequence[Mapping[str, Any]], by: str, names: dict[str, str]) -> None:
    """Log rows as metrics, one step for each row; `names` maps columns to metrics, `by` is the column of the step."""
    import mlflow

    for r in rows:
        mlflow.log_metrics({names[c]: float(r[c]) for c in names if c in r}, step=int(r[by]))


def _log_network(outcome: Outcome, network: Any) -> model_registry.Model:
    """Log the exported network as a model that loads without unpickling."""
    import mlflow
    import numpy as np

    about = outcome.json("network.json")
    example = np.zeros((2, 3, about["side"], about["side"]), np.float32)
    requirements = [f"torch=={version('torch')}"]
    logged = mlflow.pytorch.log_model(
        network,
        name="network",
        input_example=example,
        serialization_format="pt2",
        pip_requirements=requirements,
        tags=_account(),
    )
    parameters = outcome.json(PARAMETERS)
    held_out = {"set": "test", **{name: parameters["images"][name] for name in ("source", "folder", "side")}}
    return model_registry.Model(
        f"lissnas-network-{about['space']}",
        str(logged.model_id),
        *("test accuracy, %", about["test"], held_out),
        f"The best network found in {about['space']}, trained from scratch; test accuracy in percent",
    )


def _database() -> Path:
    """Return the database that is used if no server is configured."""
    return Path.cwd() / "mlflow.db"


def tracking_uri() -> str:
    """Return the address of MLflow: MLFLOW_TRACKING_URI, else a database in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{_database()}"


def _client() -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment; only one process creates the database."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    # MLflow would print the address unredacted; the caller reports the run.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    move_mlflow_credentials()
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    with file_lock(Path.cwd() / ".mlflow.lock", 120):
        client = MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            # With this kind, the experiment opens on its table of runs.
            tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
            return client, client.create_experiment(EXPERIMENT, tags=tags)
        return client, experiment.experiment_id


NOTE = """One parent run for each benchmark and set of parameters, a child run for each stage and seed.

Columns: `mean_true` and `max_true` of the shrunk space, in the benchmark's unit, higher is better
(`full_mean_true`, `full_max_true`: of the full space); `top10_kept`: how many of the ten best networks it contains;
`p_good`: its share of networks above the full space's 80th percentile; `queries`: architectures scored by the
predictor; `labels`: true values requested. `iteration/...` are curves."""


def _parent(client: MlflowClient, experiment: str, benchmark: str, name: str, key: str, digest: str) -> Run:
    with file_lock(Path.cwd() / ".mlflow.lock", 120):
        for run in client.search_runs([experiment], f"tags.`{PARENT}` = '{key}'", max_results=1):
            return run
        tags = {PARENT: key, "benchmark": benchmark, "params_digest": digest, **_revision()}
        run = client.create_run(experiment, run_name=name, tags=tags)
        client.set_terminated(run.info.run_id)
        return run


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _account() -> dict[str, str]:
    """Return the tag with the user's name: MLflow's default, MLFLOW_TRACKING_USERNAME, can be a token."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container's user without a name
        return {"mlflow.user": "unknown"}


def _revision() -> dict[str, str]:
    """Return tags with the git commit and whether files differ from it; empty outside of a repository."""
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = found.partition("-")
    return {"git_commit": commit, "git_dirty": str(bool(dirty)).lower()}
