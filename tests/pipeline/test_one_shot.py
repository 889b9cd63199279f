"""Search and retraining: the command, after a kill and restart, and the flow."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
    nets,
    spaces,
)
from lissnas.nets import files, images  # noqa: E402
from lissnas.nets.images import Augmentation  # noqa: E402
from lissnas.nets.probe import accuracy  # noqa: E402
from lissnas.shrinkers.problem import Source  # noqa: E402
from lissnas.stages.retrain import choose  # noqa: E402
from lissnas.stages.shrink import shrink_stage  # noqa: E402
from tests.pipeline.harness import Done, lissnas_here, served  # noqa: E402
from tests.robustness.faults import FAST_PARAMS  # noqa: E402

ROOT = Path(__file__).parents[2]
MACRO = benchmarks.get("nas_bench_macro")
FORK = multiprocessing.get_context("forkserver")
"""Commands to be killed run in processes that are forked from a server that has imported torch."""
FORK.set_forkserver_preload(["pytest", "lissnas.cli.app", "lissnas.stages.one_shot"])

TINY: dict[str, Any] = {
    **FAST_PARAMS,
    "torch.threads": 1,
    "search.generations": 3,
    "search.top": 4,
    "retrain.networks": 2,
    **{f"recipes.{r}.{k}": v for r in ("cpu", "cpu_retrain") for k, v in (("batch_size", 16), ("checkpoint_every", 4))},
    **{"recipes.cpu.steps": 12, "recipes.cpu.report_every": 4, "recipes.cpu.warmup": 2},
    **{"recipes.cpu_retrain.steps": 8, "recipes.cpu_retrain.report_every": 4, "recipes.cpu_retrain.warmup": 2},
}
STAGES = {"supernet": "supernet", "search": ".", "retrain": "best"}
"""Folder of each stage inside the result."""


# -- commands ----------------------------------------------------------------------------------------
def command(cwd: Path, words: list[str], log: Path, stop: tuple[str, int]) -> None:
    """Run `lissnas`; pause after a stage has saved its checkpoint the given number of times."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(cwd)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    pause_at(*stop, log / "saved")
    sys.argv = ["lissnas", *words]
    from lissnas.cli.app import main

    main()


def pause_at(stage: str, times: int, marker: Path) -> None:
    save, seen = artifacts.Checkpoint.save, [0]
    mark = {"supernet": "/.supernet.checkpoint", "search": "/.out.checkpoint", "retrain": "/.best.tasks/"}[stage]

    def saved(self: artifacts.Checkpoint, arrays: Any, about: Any) -> None:
        save(self, arrays, about)
        seen[0] += mark in str(self.folder.absolute())
        if seen[0] == times:
            marker.touch()
            time.sleep(120)

    artifacts.Checkpoint.save = saved  # type: ignore[method-assign]


Lissnas = Callable[..., Done]


@pytest.fixture(scope="module")
def lissnas(tmp_path_factory: pytest.TempPathFactory) -> Lissnas:
    def run(cwd: Path, *words: str, killed: tuple[str, int] | None = None) -> Done:
        if killed is None:
            return lissnas_here(cwd, *words)
        log = tmp_path_factory.mktemp("log")
        child = FORK.Process(target=command, args=(cwd, list(words), log, killed))
        child.start()
        until = time.monotonic() + 60
        while child.is_alive() and not (log / "saved").exists() and time.monotonic() < until:
            time.sleep(0.02)
        child.kill()
        child.join(120)
        return Done(child.exitcode, (log / "out").read_text(), (log / "err").read_text())

    return run


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a parameter file, in JSON, which is valid YAML."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_bytes(artifacts.to_json(config.load(None, TINY, benchmarks.names()).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def shrunk(params: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checked = config.load(params, {}, benchmarks.names())
    return shrink_stage(checked, Source.of(MACRO), 0, tmp_path_factory.mktemp("shrunk") / "r", threads=1).folder


@pytest.fixture(scope="module")
def words(shrunk: Path, params: Path) -> list[str]:
    given = ("--benchmark", "nas_bench_macro", "--params", str(params), "--subspace", str(shrunk), "--seed", "1")
    return ["search", *given, "--out", "out"]


@pytest.fixture(scope="module")
def found(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of an uninterrupted run."""
    cwd = tmp_path_factory.mktemp("found")
    done = lissnas_here(cwd, *words)
    assert done.code == 0, done.err
    assert "supernet: step 12 of 12" in done.err
    assert "generation 2: 18 evaluated" in done.err
    assert "Retrained and exported: " in done.out
    assert "in the real table" in done.out
    assert sorted(p.name for p in cwd.iterdir() if not p.name.endswith(".lock")) == ["out"]
    return cwd / "out"


def manifests(out: Path) -> dict[str, dict[str, str]]:
    return {stage: artifacts.verify(out / folder) for stage, folder in STAGES.items()}


def members_of(shrunk: Path) -> Any:
    return MACRO.space.parse(pq.read_table(shrunk / "subspace.parquet")["arch"].to_pylist())


# -- results -----------------------------------------------------------------------------------------
def test_files_of_a_search(found: Path) -> None:
    written = manifests(found)
    shared = {"parameters.json", "metrics.json"}
    supernet = {"supernet.safetensors", "supernet.json", "training.csv", "training.png"}
    assert set(written["supernet"]) == supernet | shared
    assert set(written["search"]) == {"history.parquet", "top.json", "best.json", "history.png"} | shared
    assert set(written["retrain"]) == {"network.safetensors", "network.json", "network.pt2", "retrained.csv"} | shared
    hidden = {p.name for p in found.rglob(".*")}
    assert hidden <= {".supernet.lock", ".best.lock"}  # no checkpoint remains


def test_history_and_top_of_a_search(found: Path, shrunk: Path) -> None:
    history = pq.read_table(found / "history.parquet")
    assert history.column_names == ["arch", "score", "generation", "flops", "params"]
    names, generation = history["arch"].to_pylist(), history["generation"].to_pylist()
    labelled = set(pq.read_table(shrunk / "labels.parquet")["arch"].to_pylist())
    assert len(names) == len({*names})
    assert sum(g < 3 for g in generation) == 18
    assert {name for name, g in zip(names, generation, strict=True) if g == 3} <= labelled
    rows = MACRO.space.parse(history["arch"].to_pylist())
    assert set(MACRO.space.key(rows)) <= set(MACRO.space.key(members_of(shrunk)))
    assert history["flops"].to_pylist() == MACRO.space.costs(rows)["flops"].tolist()
    top = json.loads((found / "top.json").read_text())
    columns = {"arch", "score", "label", "predicted", "supernet", "reason", "flops", "params"}
    assert [set(row) for row in top] == [columns] * 4
    assert len(json.loads((found / "best.json").read_text())) == 10
    labels = [row["label"] for row in top if row["label"] is not None]
    assert labels == sorted(labels, reverse=True)
    metrics = json.loads((found / "metrics.json").read_text())
    assert metrics["evaluated"] == len(names)
    best = float(MACRO(MACRO.space.parse([top[0]["arch"]]))[0])
    assert metrics["best_true"] == best
    assert metrics["best_rank"] == 1 + int((MACRO.values > best).sum())


def test_chosen_network_is_exported(found: Path) -> None:
    import pyarrow.csv

    top = [row["arch"] for row in json.loads((found / "top.json").read_text())]
    best = found / "best"
    typed = pyarrow.csv.ConvertOptions(column_types={"arch": "string"})
    rows = pyarrow.csv.read_csv(best / "retrained.csv", convert_options=typed).to_pylist()
    assert [row["arch"] for row in rows] == top[:2]
    at, why = choose(rows, 200)
    chosen = rows[at]
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics["chosen_by"] == why
    assert {name: metrics[name] for name in chosen} == chosen
    model = files.load(best)
    data = images.MemoryData.of(images.packaged(), 0, 200, 8, Augmentation())
    for split in ("validation", "test"):
        assert accuracy(model, data.batches(split, 500)) == pytest.approx(chosen[split])
    assert MACRO.space.format(np.array([model.path], np.int8)) == [chosen["arch"]]
    program = torch.export.load(best / "network.pt2").module()
    x = data.plain("test", 0, 7)[0]
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_supernet_has_the_choices_of_the_shrunk_space(found: Path, shrunk: Path) -> None:
    model = files.load_supernet(found / "supernet", members_of(shrunk))
    used = nets.used_choices(MACRO.space, members_of(shrunk))
    assert [len(layer) for layer in model.layers] == used.sum(axis=1).tolist()  # type: ignore[union-attr]


def test_finished_search_is_reused_and_others_refused(found: Path, words: list[str], lissnas: Lissnas) -> None:
    def times() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in found.rglob("*") if p.is_file() and p.suffix != ".lock"}

    before = times()
    again = lissnas(found.parent, *words)
    assert again.code == 0
    assert "Nothing was done" in again.out
    assert "step" not in again.err
    other = lissnas(found.parent, *words, "--seed", "2")
    assert other.code == 2
    assert "other parameters (seed differ)" in other.err
    assert times() == before


def test_trained_supernet_is_used_and_one_of_another_space_refused(
    found: Path, words: list[str], params: Path, lissnas: Lissnas, tmp_path: Path
) -> None:
    given = ("--supernet", str(found / "supernet"), "--networks", "0")
    done = lissnas(tmp_path, *words, *given)
    assert done.code == 0, done.err
    assert "supernet: step" not in done.err
    assert not (tmp_path / "out" / "supernet").exists()
    assert artifacts.verify(tmp_path / "out")["history.parquet"] == manifests(found)["search"]["history.parquet"]
    few = MACRO.space.format(MACRO.space.enumerate()[:30])
    (tmp_path / "few.parquet").write_bytes(artifacts.to_parquet({"arch": few}))
    other = lissnas(tmp_path, *words, *given, "--subspace", "few.parquet", "--out", "other")
    assert other.code == 2
    assert "was trained on other networks (60 of nas_bench_macro) than the shrunk space has (30)" in other.err
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".other*checkpoint"))


def test_search_by_table_finds_the_best_under_a_limit(
    shrunk: Path, words: list[str], lissnas: Lissnas, tmp_path: Path
) -> None:
    flops = MACRO.space.costs(members_of(shrunk))["flops"]
    limit = float(np.median(flops)) / 1e6
    alone = ("--by", "table", "--networks", "0", "--set", "search.population=50", "--max-mflops", str(limit))
    done = lissnas(tmp_path, *words, *alone)
    assert done.code == 0, done.err
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == set()
    top = json.loads((tmp_path / "out" / "top.json").read_text())
    inside = members_of(shrunk)[flops <= 1e6 * limit]
    assert top[0]["score"] == MACRO(inside).max()
    assert all(row["flops"] <= 1e6 * limit for row in top)
    assert len(pq.read_table(tmp_path / "out" / "history.parquet")) == len(inside)


def test_search_by_predictor_uses_predictions(shrunk: Path, words: list[str], lissnas: Lissnas, tmp_path: Path) -> None:
    done = lissnas(tmp_path, *words, "--by", "predictor", "--networks", "0")
    assert done.code == 0, done.err
    history = pq.read_table(tmp_path / "out" / "history.parquet")
    predicted = pq.read_table(shrunk / "subspace.parquet")
    known = dict(zip(predicted["arch"].to_pylist(), predicted["predicted"].to_pylist(), strict=True))
    expected = [known[arch] for arch in history["arch"].to_pylist()]
    assert history["score"].to_pylist() == pytest.approx(expected)


# -- interruptions -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stage", "times", "there", "more"),
    [
        pytest.param("supernet", 1, [], ["--networks", "0"], marks=pytest.mark.faults),
        ("search", 2, ["supernet"], ["--networks", "0"]),
        pytest.param("retrain", 2, ["supernet", "search"], [], marks=pytest.mark.faults),
    ],
    ids=["supernet", "search", "retrain"],
)
def test_stage_killed_in_the_middle_resumes_to_the_same_files(
    stage: str,
    times: int,
    there: list[str],
    more: list[str],
    found: Path,
    words: list[str],
    lissnas: Lissnas,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    for earlier in there:
        ignored = shutil.ignore_patterns("supernet", "best", ".*")
        shutil.copytree(found / STAGES[earlier], out / STAGES[earlier], ignore=ignored, dirs_exist_ok=True)
    killed = lissnas(tmp_path, *words, *more, killed=(stage, times))
    assert killed.code == -signal.SIGKILL
    assert not (out / STAGES[stage] / "manifest.json").exists()
    done = lissnas(tmp_path, *words, *more)
    assert done.code == 0, done.err
    before = {"supernet": ["supernet: step 4"], "search": ["generation 0", "generation 1"]}.get(stage, [])
    assert not any(line in done.err for line in before)  # they were not repeated
    expected = manifests(found)
    for finished in [*there, stage]:
        assert artifacts.verify(out / STAGES[finished]) == expected[finished]
    assert {p.name for p in tmp_path.rglob(".*") if p.suffix != ".lock"} == set()


# -- invalid input -----------------------------------------------------------------------------------
def write_set(path: Path, names: list[str]) -> Path:
    path.write_bytes(artifacts.to_parquet({"arch": names}))
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of subspace files without a manifest."""
    folder = tmp_path_factory.mktemp("bare")
    write_set(folder / "macro.parquet", MACRO.space.format(MACRO.space.enumerate()[:9]))
    blocks = spaces.get("transnas_macro")
    write_set(folder / "transnas.parquet", blocks.format(blocks.enumerate()[:9]))
    table = pq.read_table(folder / "macro.parquet")
    pq.write_table(table.slice(0, 0), folder / "empty.parquet")
    return folder


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--benchmark", "nasbench101"], "a subset of space 'nas_bench_macro', not of 'nasbench101'"),
        (["--benchmark", "nas_bench_makro"], "Did you mean 'nas_bench_macro'?"),
        (["--max-mflops", "0.01"], "no network of the shrunk space is within the limits; the smallest has"),
        (["--set", "supernet.recipe=gpu"], "unknown recipe in supernet.recipe 'gpu'"),
        (["--set", "retrain.recipe=cpu_retrained"], "Did you mean 'cpu_retrain'?"),
        (["--device", "cuda"], "cuda was requested, but torch finds no GPU"),
        (["--device", "gpu"], "device"),
        (["--by", "luck"], "search.by"),
        (["--set", "search.population=0"], "search.population"),
        (["--subspace", "nowhere"], "nowhere: no such file"),
        (["--subspace", "{bare}/empty.parquet"], "empty.parquet is empty: there is nothing to search"),
        (["--subspace", "{bare}/transnas.parquet"], "is not of space nas_bench_macro"),
        (["--subspace", "{bare}/macro.parquet", "--by", "predictor"], "no run of lissnas was completed there"),
        (["--benchmark", "transnas_macro/jigsaw", "--subspace", "{bare}/transnas.parquet"], "space with networks"),
        (["--supernet", "nowhere"], "nowhere has no manifest.json"),
        (["--set", "images.side=12"], "can't be reduced to 12"),
        (["--set", "images.side=12", "--by", "table"], "can't be reduced to 12"),
        (["--source", "folder"], "images.folder: missing; images.source folder requires it"),
        (["--source", "cifar10", "--folder", "nowhere"], "CIFAR-10 is not in nowhere"),
        (["--set", "images.validation=10000"], "can't be held out"),
    ],
    ids=lambda value: " ".join(value).replace("{bare}/", "") if isinstance(value, list) else "",
)
def test_invalid_input_exits_with_2_and_writes_nothing(
    more: list[str],
    message: str,
    words: list[str],
    bare: Path,
    lissnas: Lissnas,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = lissnas(tmp_path, *words, *(word.format(bare=bare) for word in more))
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert [p for p in tmp_path.rglob("*") if not p.name.endswith(".lock")] == []


# -- the flow ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def flow_run(params: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run `python -m flows.nas` against a Prefect server and an MLflow database of this module."""
    home = tmp_path_factory.mktemp("flow")
    with served(home):
        from prefect.settings import PREFECT_API_URL

        given = ["--benchmark", "nas_bench_macro", "--params", str(params), "--seed", "1", "--networks", "1"]
        servers = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-m", "flows.nas", *given],
            cwd=home,
            env={**os.environ, **servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        (home / "output").write_text(done.stdout)
        yield home


def client_call(method: str) -> Any:
    from prefect.client.orchestration import get_client

    async def call() -> Any:
        async with get_client() as client:
            return await getattr(client, method)()

    return asyncio.run(call())


def test_nas_flow_prints_its_progress_and_one_summary(flow_run: Path) -> None:
    output = (flow_run / "output").read_text()
    assert len(output.splitlines()) <= 60
    for noise in ("Completed()", "Warning", "INFO", "Task run"):
        assert noise not in output
    for progress in ("iteration  3 ", "supernet: step ", "generation 1: "):
        assert progress in output
    summary = output[output.index("full space") :]
    for part in (
        "kept",
        "Best network by ",
        "Retrained and exported: ",
        "iterations.png",
        "history.png",
        "MLflow    4 runs",
    ):
        assert part in summary
    assert summary.rstrip().splitlines()[-4] == "Next:"


def test_nas_flow_shrinks_searches_and_retrains(flow_run: Path) -> None:
    folder = flow_run / "data" / "nas" / "nas_bench_macro" / "seed-1"
    assert len(pq.read_table(folder / "shrunk" / "subspace.parquet")) == 60
    manifests(folder / "search")
    assert files.load(folder / "search" / "best")(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_supernet_search_and_retraining_are_child_flow_runs(flow_run: Path) -> None:
    flows, tasks = client_call("read_flow_runs"), client_call("read_task_runs")
    assert all(run.state.is_completed() for run in [*flows, *tasks])
    (whole,) = [run for run in flows if run.parent_task_run_id is None]
    assert whole.name == "nas nas_bench_macro seed 1"
    of = {task.id: task.flow_run_id for task in tasks}
    assert {of[run.parent_task_run_id] for run in flows if run is not whole} == {whole.id}
    names = {run.id: run.name for run in flows}
    assert any(task.name.startswith("select_seeds") and task.flow_run_id == whole.id for task in tasks)
    for stage, step in (("supernet", "train_supernet"), ("search", "evolutionary_search"), ("retrain", "retrain")):
        gpu = [t for t in tasks if "gpu" in t.tags and names[t.flow_run_id] == f"{stage} nas_bench_macro seed 1"]
        steps = {t.name.rpartition("-")[0] or t.name for t in gpu}
        assert steps == ({step, "evaluate_labelled"} if stage == "search" else {step})


def logged() -> dict[str, Any]:
    """Return MLflow's runs by stage, and their common parent."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    above = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    children = {run.data.tags["stage"]: run for run in runs if above[run.info.run_id] == parent.info.run_id}
    networks = [run for run in runs if run.data.tags["stage"] == "network"]
    assert {above[run.info.run_id] for run in networks} == {children["retrain"].info.run_id}
    return {**children, "parent": parent, "network": networks[0]}


def test_mlflow_has_one_parent_run_with_the_stages_as_children(flow_run: Path) -> None:
    runs = logged()
    assert {"shrink", "search", "retrain"} <= set(runs)
    assert runs["parent"].info.run_name == "nas nas_bench_macro seed 1"
    assert {run.data.tags["benchmark"] for run in runs.values()} == {"nas_bench_macro"}
    best = flow_run / "data" / "nas" / "nas_bench_macro" / "seed-1" / "search" / "best"
    expected = json.loads((best / "metrics.json").read_text())
    assert runs["retrain"].data.metrics["test"] == pytest.approx(expected["test"])
    found = json.loads((best.parent / "metrics.json").read_text())
    assert runs["search"].data.metrics["evaluated"] == found["evaluated"]


def test_mlflow_has_the_training_of_the_supernet_by_step(flow_run: Path) -> None:
    from mlflow import MlflowClient

    runs = logged()
    assert "supernet" in runs
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    curves = [client.get_metric_history(runs["supernet"].info.run_id, name) for name in runs["supernet"].data.metrics]
    assert [4, 8, 12] in [[m.step for m in curve] for curve in curves]
    for run in (runs["supernet"], runs["network"]):
        assert {"loss", "rate", "epoch", "accuracy"} <= run.data.metrics.keys()
    assert {"generation/best", "generation/median", "generation/evaluated"} <= runs["search"].data.metrics.keys()


def test_the_parent_has_the_results_of_all_stages(flow_run: Path) -> None:
    from mlflow import MlflowClient

    parent, client = logged()["parent"], MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    stages = ("shrink", "supernet", "search", "retrain")
    expected = {"size", "mean_true", "full_mean_true", "kept_best", "best_true", "rank", "test", "peak_memory_mb"}
    assert expected | {f"seconds/{stage}" for stage in stages} <= parent.data.metrics.keys()
    assert parent.data.params["supernet.sampler"]
    names = {f.path for f in client.list_artifacts(parent.info.run_id, "pictures")}
    assert {"pictures/iterations.png", "pictures/history.png", "pictures/training.png"} <= names
    assert len(parent.data.tags["mlflow.note.content"].splitlines()) >= 4


def test_mlflow_has_the_picture_of_the_search(flow_run: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    names = {f.path for f in client.list_artifacts(logged()["search"].info.run_id, "pictures")}
    assert names == {"pictures/history.png"}


def test_exported_network_loads_from_mlflow_without_pickle(flow_run: Path) -> None:
    import mlflow

    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    model = mlflow.pytorch.load_model(f"runs:/{logged()['retrain'].info.run_id}/network")
    exported = files.load(flow_run / "data" / "nas" / "nas_bench_macro" / "seed-1" / "search" / "best")
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), exported(x), rtol=1e-4, atol=1e-5)
