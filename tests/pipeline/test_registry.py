"""Models and champions in MLflow's registry; results that are logged later by `lissnas sync`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("mlflow", reason="mlflow is not installed (the extra `pipeline`)")

from lissnas import benchmarks, tracking
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import app
from lissnas.config import Params
from lissnas.stages.predictor import predictor_stage
from lissnas.tracking import model_registry, pending
from lissnas.tracking.mlflow import _client
from tests.pipeline.harness import mlflow_server

NAME = "lissnas-predictor-nas_bench_macro"
UNREACHABLE = "http://127.0.0.1:1"
BOTH = pytest.mark.parametrize("server", ["database", "server"], indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if getattr(request, "param", "database") == "database":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
        yield uri
        return
    with mlflow_server(tmp_path / "server") as where:  # stricter than its database
        monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
        yield where


@pytest.fixture
def fitted(make_params: Callable[..., Params], tmp_path: Path) -> Callable[..., Outcome]:
    def fit(name: str, **overrides: Any) -> Outcome:
        params = make_params(predictor__held_out=300, pipeline__seeds=[0], **overrides)
        return predictor_stage(params, benchmarks.get("nas_bench_macro"), tmp_path / name)

    return fit


def champion() -> str:
    client, _ = _client()
    return str(client.get_model_version_by_alias(NAME, model_registry.CHAMPION).version)


@BOTH
def test_only_a_better_model_becomes_champion(server: str, fitted: Callable[..., Outcome]) -> None:
    poor, good = fitted("poor", predictor__trees=2), fitted("good")
    other = fitted("other", shrink__labels=301)
    worse, better = (o.table("assessment.parquet").to_pylist()[0]["tau"] for o in (poor, good))
    assert worse < better
    assert "version 1: the first champion" in tracking.log_stage("predictor", poor).registered
    message = tracking.log_stage("predictor", good).registered
    assert f"version 2: champion in place of version 1: tau {worse:.4g} to {better:.4g}" in message
    assert champion() == "2"
    # Logging the same model again creates no third version.
    assert tracking.log_stage("predictor", good).run_id
    middle = fitted("middle", predictor__trees=3)
    assert "version 2 stays champion: tau" in tracking.log_stage("predictor", middle).registered
    assert "another held-out set" in tracking.log_stage("predictor", other).registered
    assert champion() == "2"


@BOTH
def test_champion_loads_and_predicts(server: str, fitted: Callable[..., Outcome]) -> None:
    import mlflow
    import numpy as np
    import xgboost as xgb

    outcome = fitted("model")
    tracking.log_stage("predictor", outcome)
    booster = mlflow.xgboost.load_model(f"models:/{NAME}@{model_registry.CHAMPION}")
    space = benchmarks.get("nas_bench_macro").space
    rows = space.encode(space.sample(50, np.random.default_rng(0)))
    local = xgb.Booster(model_file=str(outcome.folder / "models" / "predictor-0.ubj"))
    assert np.array_equal(booster.inplace_predict(rows), local.inplace_predict(rows))


def test_sync_logs_pending_results(
    server: str, fitted: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, lost = fitted("kept"), fitted("lost", predictor__trees=3)
    run = CliRunner().invoke
    assert "nothing is left to log" in run(app.app, ["sync"]).output
    for one in (outcome, lost):
        pending.add("predictor", one.folder, None, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
    away = run(app.app, ["sync"])
    assert away.exit_code == 1
    assert away.output.count("not logged: predictor") == 2
    assert len(pending.waiting()) == 2
    (lost.folder / "metrics.json").write_text("{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    back = run(app.app, ["sync"])
    assert back.exit_code == 1
    assert f"logged: predictor in {outcome.folder}: run " in " ".join(back.output.split())
    assert "is damaged" in " ".join(back.output.split())
    assert "It is kept in mind" in " ".join(back.output.split())
    assert str(tracking.find(outcome.folder)).startswith("run ")
    assert tracking.find(lost.folder) is None
    assert [Path(one.folder).name for one in pending.waiting()] == [lost.folder.name]
