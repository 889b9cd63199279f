"""Supernet, search, retraining and ranking as separate flows: their files, MLflow runs and task limits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
)
from lissnas.nets import files  # noqa: E402
from lissnas.shrinkers.problem import Source  # noqa: E402
from lissnas.stages.shrink import shrink_stage  # noqa: E402
from tests.pipeline.harness import served  # noqa: E402
from tests.pipeline.test_one_shot import TINY  # noqa: E402

ROOT = Path(__file__).parents[2]
MORE = {"ranking.methods": ["full", "lissnas"], "ranking.networks": 6}
RANKED = {"nas_bench_macro": {"recipe": "cpu", "seeds": [0]}}


def flow(name: str, *words: str, code: int = 0) -> str:
    """Run `python -m flows.NAME` in this process; return its output."""
    output, argv = io.StringIO(), sys.argv
    sys.argv = [f"flows.{name}", "--benchmark", "nas_bench_macro", *words]
    try:
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
            runpy.run_module(f"flows.{name}", run_name="__main__")
    finally:
        sys.argv = argv
    assert ended.value.code == code, output.getvalue()
    return output.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run all four flows in sequence, against a separate Prefect server and MLflow database."""
    home = tmp_path_factory.mktemp("flows")
    checked = config.load(None, {**TINY, **MORE, "ranking.benchmarks": RANKED}, benchmarks.names())
    (home / "params.yaml").write_bytes(artifacts.to_json(checked.model_dump(mode="json")))
    shrink_stage(checked, Source.of(benchmarks.get("nas_bench_macro")), 0, home / "shrunk", threads=1)
    threads = torch.get_num_threads()
    with served(home):
        flow("supernet", "--subspace", "shrunk")
        flow("search", "--subspace", "shrunk", "--supernet", "data/supernet/nas_bench_macro")
        flow("retrain", "--found", "data/search/nas_bench_macro")
        flow("ranking")
        yield home
    torch.set_num_threads(threads)


def runs() -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_each_flow_writes_a_complete_result(home: Path) -> None:
    for name in ("supernet", "search", "retrain", "ranking"):
        artifacts.verify(home / "data" / name / "nas_bench_macro")
    top = json.loads((home / "data/search/nas_bench_macro/top.json").read_bytes())
    assert [t["score"] for t in top] == sorted((t["score"] for t in top), reverse=True)
    network = files.load(home / "data/retrain/nas_bench_macro")
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_three_stages_are_children_of_one_mlflow_run(home: Path) -> None:
    found = {r.data.tags["stage"]: r for r in runs() if r.data.tags.get("stage") in ("supernet", "search", "retrain")}
    assert len(found) == 3
    assert len({r.data.tags["mlflow.parentRunId"] for r in found.values()}) == 1
    assert {r.data.tags["benchmark"] for r in found.values()} == {"nas_bench_macro"}


def test_ranking_has_a_run_for_each_space_and_seed(home: Path) -> None:
    rankings = [r for r in runs() if r.data.tags.get("stage") == "ranking" and "method" in r.data.params]
    assert {r.data.params["method"] for r in rankings} == {"full", "lissnas"}
    assert all("found_true" in r.data.metrics for r in rankings)


def test_gpu_tasks_are_limited(home: Path) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        assert client.read_concurrency_limit_by_tag("gpu").concurrency_limit == 1


WITHOUT_A_SERVER = """
from prefect import flow, get_client
from flows.common import GPU, limit_gpu_tasks, run_step

def train():
    print("trained")

@flow
def run():
    limit_gpu_tasks()
    run_step(train, tags=[GPU])

with get_client(sync_client=True) as client:
    client.create_concurrency_limit(GPU, 0)
run()
"""


@pytest.mark.faults
def test_embedded_server_has_no_gpu_limit(tmp_path: Path) -> None:
    """Prefect's embedded server never releases the slot of a killed run, as if the limit were 0."""
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_SERVER],
        cwd=tmp_path,
        env={**environment, "PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "trained" in done.stdout


def test_finished_search_is_reused(home: Path) -> None:
    output = flow("search", "--subspace", "shrunk", "--supernet", "data/supernet/nas_bench_macro")
    assert "Nothing was done" in output


def test_search_with_other_images_is_refused(home: Path) -> None:
    flow(
        "search",
        "--subspace",
        "shrunk",
        "--supernet",
        "data/supernet/nas_bench_macro",
        "--set",
        "images.validation=300",
        code=2,
    )
