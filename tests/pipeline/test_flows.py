"""Each flow end to end on real data, with a test server of Prefect and MLflow on SQLite."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lissnas import artifacts, benchmarks
from lissnas.artifacts.stage_run import Outcome
from lissnas.predictors.accuracy import predictor_in
from lissnas.predictors.boosting import booster_scores
from lissnas.shrinkers import description
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.problem import Source
from lissnas.stages.shrink import shrink_stage
from tests.pipeline.harness import served

ROOT = Path(__file__).parents[2]
MACRO = Description("nas_bench_macro")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a Prefect server and an MLflow database for this module, in an empty folder."""
    home = tmp_path_factory.mktemp("pipeline")
    with served(home):
        yield home


@pytest.fixture(scope="module")
def shrink_outcome(server: Path) -> Outcome:
    from flows.shrink import shrink

    outcome, place = shrink(MACRO, 5, params=ROOT / "params.yaml")
    assert place.startswith("MLflow: run ")
    return outcome


def client_call(method: str, *args: Any, **given: Any) -> Any:
    from prefect.client.orchestration import get_client

    async def call() -> Any:
        async with get_client() as client:
            return await getattr(client, method)(*args, **given)

    return asyncio.run(call())


def test_shrink_flow_gives_the_bytes_of_the_command(shrink_outcome: Outcome, tmp_path: Path) -> None:
    checked, source = description.load("nas_bench_macro", ROOT / "params.yaml", {}, None)
    plain = shrink_stage(checked, Source.of(source), 5, tmp_path / "plain")
    assert shrink_outcome.folder == Path("data/shrunk/nas_bench_macro/seed-5")
    assert artifacts.verify(plain.folder) == artifacts.verify(shrink_outcome.folder)


def test_steps_are_named_tasks(shrink_outcome: Outcome) -> None:
    runs = client_call("read_task_runs")
    names = {run.name for run in runs}
    for name in (
        "sample 0",
        "label 0",
        "predict 0",
        "select_seeds, generate_neighbors, predict 1",
        "check_convergence 1",
    ):
        assert name in names
    assert all(run.state.is_completed() for run in runs)
    flow_runs = client_call("read_flow_runs")
    assert "shrink nas_bench_macro seed 5" in {run.name for run in flow_runs}


def test_iterations_are_a_table_artifact(shrink_outcome: Outcome) -> None:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    key = ArtifactFilter(key=ArtifactFilterKey(any_=["iterations-nas-bench-macro-seed-5"]))
    (artifact,) = client_call("read_artifacts", artifact_filter=key)
    rows = json.loads(artifact.data)
    assert len(rows) == shrink_outcome.table("iterations.parquet").num_rows
    assert {"size", "mean_true", "queries"} <= set(rows[0])


def test_shrink_is_logged_to_mlflow(shrink_outcome: Outcome) -> None:
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    (child,) = client.search_runs([experiment.experiment_id], "tags.seed = '5' and tags.stage = 'shrink'")
    tags = child.data.tags
    assert {"params_digest", "benchmark", "method", "seed"} <= set(tags)
    parent = client.get_run(tags["mlflow.parentRunId"])
    assert parent.info.run_name == "method nas_bench_macro"
    assert child.data.params["method.diversity"] == "0.05"
    assert child.data.metrics["mean_true"] == pytest.approx(shrink_outcome.metrics["mean_true"])
    curve = client.get_metric_history(child.info.run_id, "iteration/mean_true")
    assert [m.step for m in curve] == list(range(len(curve)))
    assert child.inputs is not None
    assert child.inputs.dataset_inputs[0].dataset.name == "shrunk nas_bench_macro"
    names = {f.path for f in client.list_artifacts(child.info.run_id, "pictures")}
    assert names == {"pictures/edf.png", "pictures/iterations.png"}
    booster = mlflow.xgboost.load_model(f"runs:/{child.info.run_id}/predictor")
    space = benchmarks.get("nas_bench_macro").space
    members = pq.read_table(shrink_outcome.folder / "subspace.parquet")
    archs = space.parse(members["arch"].to_pylist())
    model = predictor_in(shrink_outcome.folder, space)
    assert np.allclose(booster.inplace_predict(space.encode(archs)), booster_scores(model.booster, space.encode(archs)))
    assert np.allclose(model.value(model.score(archs)), members["predicted"].to_numpy())
    assert child.outputs is not None
    logged = client.get_logged_model(child.outputs.model_outputs[0].model_id)
    assert float(logged.tags["stack_weight"]) == model.trees_member.weight
    assert {"predictor.json", "predictor_kernel.npz"} <= {f.path for f in client.list_artifacts(child.info.run_id)}


def test_second_run_reuses_result_and_mlflow_run(shrink_outcome: Outcome) -> None:
    from flows.shrink import shrink

    again, place = shrink(MACRO, 5, params=ROOT / "params.yaml")
    assert again.reused
    assert place.startswith("MLflow: run ")


def test_unreachable_mlflow_keeps_the_result(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.shrink import shrink

    secret = "http://someone:hunter2@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome, place = shrink(MACRO, 6, out=tmp_path / "r", params=ROOT / "params.yaml")
    assert "not logged" in place
    assert "hunter2" not in place
    assert artifacts.verify(outcome.folder)


def run_flow_shrink(folder: Path, **settings: str) -> tuple[int, str]:
    """Run the command of the shrink flow in a folder; return exit code and output."""
    words = ["--benchmark", "nas_bench_macro", "--target-size", "300", "--label-budget", "60", "--out", "r"]
    separate = {
        "PREFECT_HOME": str(folder / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows.shrink", *words],
        cwd=folder,
        env={**os.environ, **separate, **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.faults
def test_unreachable_prefect_keeps_the_result(tmp_path: Path) -> None:
    code, output = run_flow_shrink(tmp_path, PREFECT_API_URL="http://someone:hunter2@127.0.0.1:9/api")
    assert code == 0, output
    assert "PREFECT_API_URL=http://127.0.0.1:9/api does not answer" in output
    assert "hunter2" not in output
    assert artifacts.verify(tmp_path / "r")


def test_unreachable_database_of_prefect_is_reported(tmp_path: Path) -> None:
    wrong = "postgresql+asyncpg://someone:hunter2@127.0.0.1:9/none"
    seconds = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "3"}
    code, output = run_flow_shrink(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=wrong, **seconds)
    assert code == 1, output
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://" in output
    assert "hunter2" not in output
    assert "Traceback" not in output
    assert not (tmp_path / "r").exists()


def test_prepare_and_predictor(server: Path) -> None:
    from flows.predictor import predictor
    from flows.prepare import prepare

    prepared = prepare("transnas_macro/class_scene")
    assert prepared.metrics["size"] == 3_256
    table = pq.read_table(prepared.folder / "table.parquet")
    assert table.column_names == ["key", "arch", "value"]
    outcome, _ = predictor("transnas_macro/class_scene", params=ROOT / "params.yaml", table=prepared.folder)
    rows = outcome.table("assessment.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert all(row["labels"] == 489 and row["held_out"] == 3_256 - 489 for row in rows)
    assert all(row["tau"] > 0.6 and row["tau_better_half"] > 0.4 for row in rows)


def test_shrink_uses_measured_locality(server: Path, tmp_path: Path) -> None:
    from flows.locality import locality
    from flows.shrink import shrink

    measured, place = locality(MACRO, params=ROOT / "params.yaml", overrides={"locality.pairs": 2_000})
    assert place.startswith("MLflow: run ")
    assert measured.metrics["threshold_distance"] == 2
    overrides = {"shrink.elite.max_edits": 4}
    outcome, _ = shrink(MACRO, 7, tmp_path / "r", ROOT / "params.yaml", overrides=overrides, locality=measured.folder)
    assert outcome.table("subspace.parquet")["distance"].to_numpy().max() == 2
    assert "at most 2 edits" in outcome.metrics["notes"][-1]


def test_compare_has_a_task_and_a_run_for_each_method_and_seed(server: Path) -> None:
    from mlflow import MlflowClient

    from flows.compare import compare

    methods = ["lissnas", "abs", "flops"]
    given: dict[str, Any] = {"params": ROOT / "params.yaml", "methods": ",".join(methods), "seeds": "0-1"}
    outcome, place = compare(MACRO, **given)
    assert outcome.metrics["rivals"] == 2
    names = {run.name for run in client_call("read_task_runs")}
    assert {f"{m} seed {s}" for m in methods for s in (0, 1)} <= names
    client = MlflowClient()
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'method'")
    assert {(r.data.params["method"], r.data.params["seed"]) for r in runs} == {(m, s) for m in methods for s in "01"}
    assert all({"mean_true", "ours_mean_true"} <= set(r.data.metrics) for r in runs)
    parent = place.split()[2]
    assert {r.data.tags["mlflow.parentRunId"] for r in runs} == {parent}
    note = client.get_run(parent).data.tags["mlflow.note.content"]
    assert note.startswith("[lissnas, abs, flops side by side](/#/compare-runs?runs=")
    assert all(r.info.run_id in note for r in runs)
    rows = {(r["method"], str(r["seed"])): r for r in outcome.table("comparison.parquet").to_pylist()}
    for r in runs:
        assert r.data.metrics["mean_true"] == rows[r.data.params["method"], r.data.params["seed"]]["mean_true"]
    again, place = compare(MACRO, **given)
    assert again.reused
    assert parent in place
    assert len(client.search_runs([experiment.experiment_id], "tags.stage = 'method'")) == len(runs)


@pytest.mark.parametrize(
    "module", ["flows.shrink", "flows.prepare", "flows.predictor", "flows.locality", "flows.compare"]
)
def test_invalid_input_is_refused_before_prefect_starts(module: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    command = [sys.executable, "-m", module, "--benchmark", "nasbench102"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Did you mean 'nasbench101'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
