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
from lissnas.tracking import Run, model_registry, pending
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
def fitted(make_params: Callable[..., Params], tmp_path: Path) -> Callable[..., tuple[Outcome, Run]]:
    def fit(name: str, **overrides: Any) -> tuple[Outcome, Run]:
        params, record = make_params(predictor__held_out=300, pipeline__seeds=[0], **overrides), Run("predictor")
        outcome = predictor_stage(params, benchmarks.get("nas_bench_macro"), tmp_path / name, record=record)
        return outcome, record

    return fit


def message(record: Run) -> str:
    place = record.place()
    assert place is not None, record.error
    return place.registered


def champion() -> str:
    client, _ = _client()
    return str(client.get_model_version_by_alias(NAME, model_registry.CHAMPION).version)


@BOTH
def test_only_a_better_model_becomes_champion(server: str, fitted: Callable[..., tuple[Outcome, Run]]) -> None:
    poor, record = fitted("poor", predictor__trees=2)
    assert "version 1: the first champion" in message(record)
    good, record = fitted("good")
    worse, better = (o.table("assessment.parquet").to_pylist()[0]["tau"] for o in (poor, good))
    assert worse < better
    assert f"version 2: champion in place of version 1: tau {worse:.4g} to {better:.4g}" in message(record)
    assert champion() == "2"
    # Logging the same model again creates no third version.
    assert message(fitted("good")[1]) == ""
    assert "version 2 stays champion: tau" in message(fitted("middle", predictor__trees=3)[1])
    assert "another held-out set" in message(fitted("other", shrink__labels=301)[1])
    assert champion() == "2"


@BOTH
def test_champion_loads_and_predicts(server: str, fitted: Callable[..., tuple[Outcome, Run]]) -> None:
    import mlflow
    import numpy as np
    import xgboost as xgb

    outcome, record = fitted("model")
    assert "the first champion" in message(record)
    about = mlflow.models.get_model_info(f"models:/{NAME}@{model_registry.CHAMPION}")
    assert about.signature is not None
    assert about.signature.inputs.is_tensor_spec()
    booster = mlflow.xgboost.load_model(f"models:/{NAME}@{model_registry.CHAMPION}")
    space = benchmarks.get("nas_bench_macro").space
    rows = space.encode(space.sample(50, np.random.default_rng(0)))
    local = xgb.Booster(model_file=str(outcome.folder / "models" / "predictor-0.ubj"))
    assert np.array_equal(booster.inplace_predict(rows), local.inplace_predict(rows))


def test_sync_logs_pending_results(
    server: str, fitted: Callable[..., tuple[Outcome, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner().invoke
    assert "nothing is left to log" in run(app.app, ["sync"]).output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
    (outcome, first), (lost, second) = fitted("kept"), fitted("lost", predictor__trees=3)
    assert (first.place(), second.place()) == (None, None)
    away = run(app.app, ["sync"])
    assert away.exit_code == 1
    assert away.output.count("not logged: predictor") == 2
    assert len(list(pending.RECORDS.glob("*.jsonl"))) == 2
    (lost.folder / "metrics.json").write_text("{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    back = run(app.app, ["sync"])
    assert back.exit_code == 1
    assert f"{outcome.folder.name}: run " in " ".join(back.output.split())
    assert "is damaged" in " ".join(back.output.split())
    assert "It stays listed" in " ".join(back.output.split())
    assert str(tracking.find(outcome.folder)).startswith("run ")
    assert len(list(pending.RECORDS.glob("*.jsonl"))) == 1
