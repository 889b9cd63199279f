"""Custom spaces from the command line and in the flow: equal artifacts, and all failures."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from lissnas import spaces
from lissnas.artifacts.stage_run import Outcome
from lissnas.oracles.label_table import write_rows
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.problem import get_space
from lissnas.spaces import Archs, FloatArray
from lissnas.stages.shrink import shrink_stage
from tests.pipeline.harness import Done, lissnas_here, served
from tests.pipeline.test_command import FILES, manifest

ROOT = Path(__file__).parents[2]
POSITIONS = 8
CHOICES = "abc"
SPACE = "name: mine\nmetric: {name: acc, direction: maximize}\npositions:\n" + "".join(
    f"  - {{name: p{i}, choices: [{', '.join(CHOICES)}]}}\n" for i in range(POSITIONS)
)
ORACLE = """\
import os, sys, time
names = sys.stdin.read().split()
done = len(open("queried").read().split()) if os.path.exists("queried") else 0
if os.path.exists("die") and done >= 64:
    sys.exit("the cluster is gone")
if os.path.exists("hang") and done >= 64:
    open("hangs", "w").write(str(os.getpid()))
    time.sleep(300)
with open("queried", "a") as file:
    file.write("".join(f"{name}\\n" for name in names))
for name in names:
    digits = ["abc".index(c) for c in name.split("|")]
    print(sum((i + 1) * d for i, d in enumerate(digits)) + 3 * (digits[0] == digits[5]))
"""
COMMAND = f"{sys.executable} oracle.py"


def truth(archs: Archs) -> FloatArray:
    values = archs @ np.arange(1, POSITIONS + 1) + 3 * (archs[:, 0] == archs[:, 5])
    return np.asarray(values, np.float64)


def write_labels(path: Path, n: int, noise: bool = False) -> None:
    space = get_space(str(path.parent / "space.yaml"))
    archs = space.sample_distinct(n, np.random.default_rng(0))
    first, *rows = write_rows(space, archs).decode().splitlines()
    values = np.random.default_rng(1).normal(size=n) if noise else truth(archs)
    lines = [f"{row}{float(value)!r}" for row, value in zip(rows, values, strict=True)]
    path.write_text("\n".join([first, *lines]) + "\n")


def fill(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(SPACE)
    (folder / "oracle.py").write_text(ORACLE)
    write_labels(folder / "labels.csv", 100)
    write_labels(folder / "noise.csv", 100, noise=True)
    space = get_space(str(folder / "space.yaml"))
    archs = space.enumerate()
    model = xgb.train({"nthread": 1}, xgb.DMatrix(space.encode(archs), truth(archs)), 30)
    model.save_model(folder / "model.ubj")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


def start(cwd: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lissnas.cli", "shrink", *words]
    given = {**os.environ, "COLUMNS": "500", "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(command, cwd=cwd, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lissnas(cwd: Path, *words: str) -> Done:
    """Shrink in this process."""
    with patch.dict(os.environ, COLUMNS="500"):
        done = lissnas_here(cwd, "shrink", *words)
    assert "Traceback" not in done.err
    return done


def lissnas_process(cwd: Path, *words: str, **env: str) -> Done:
    """Shrink in a separate process."""
    process = start(cwd, *words, **env)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return Done(process.returncode, out, err)


BY_LABELS = ("--space", "space.yaml", "--labels", "labels.csv", "--threads", "1")
BY_COMMAND = ("--space", "space.yaml", "--oracle-command", COMMAND, "--label-budget", "150", "--threads", "1")
BY_MODEL = ("--space", "space.yaml", "--oracle-model", "model.ubj", "--target-size", "400", "--threads", "1")


# -- labels ----------------------------------------------------------------------------------------
def test_shrink_by_labels_reports_the_predictors_tau(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = lissnas_process(folder, *BY_LABELS, "--out", "out")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.code == 0, done.err
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    metrics = json.loads((folder / "out/metrics.json").read_text())
    assert f"{metrics['tau']:.2f} ({metrics['tau_low']:.2f} to {metrics['tau_high']:.2f})" in done.out
    assert "too weak" not in done.out
    assert set(manifest(folder / "out")) == FILES | {"space.yaml"}
    space = get_space(str(folder / "space.yaml"))
    members = pq.read_table(folder / "out/subspace.parquet")
    rows = space.parse(members["arch"].to_pylist())
    assert len(np.unique(space.key(rows))) == metrics["size"] == members.num_rows
    assert truth(rows).mean() > truth(space.enumerate()).mean() + truth(space.enumerate()).std()
    assert metrics["labels"] == 100
    assert metrics["reduction"] == pytest.approx(3**POSITIONS / metrics["size"])
    again = lissnas(folder, *BY_LABELS, "--out", "out")
    assert again.code == 0
    assert "Nothing was done" in again.out
    other = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2"}
    assert lissnas_process(folder, *BY_LABELS, "--threads", "2", "--out", "other", **other).code == 0
    assert manifest(folder / "other") == manifest(folder / "out")


def test_estimated_size_is_an_interval(folder: Path) -> None:
    positions = "".join(f"  - {{name: p{i}, choices: [1, 2, 3]}}\n" for i in range(16))
    (folder / "large.yaml").write_text(
        f"name: large\nmetric: {{name: acc, direction: maximize}}\npositions:\n{positions}"
        "constraints:\n  - {forbid: {p0: 1, p1: 1}}\n"
    )
    space = get_space(str(folder / "large.yaml"))
    rows = space.sample_distinct(60, np.random.default_rng(0))
    lines = [f"{name},{value}" for name, value in zip(space.format(rows), rows.sum(axis=1), strict=True)]
    (folder / "large.csv").write_text("\n".join(["arch,acc", *lines]) + "\n")
    done = lissnas(folder, "--space", "large.yaml", "--labels", "large.csv", "--target-size", "300", "--out", "large")
    assert done.code == 0, done.err
    metrics = json.loads((folder / "large/metrics.json").read_text())
    assert metrics["full_size_low"] < 3**16 * 8 / 9 < metrics["full_size_high"] < 3**16
    assert "of them are different networks (99 %)" in " ".join(done.out.split())


def test_noisy_labels_give_a_warning(folder: Path) -> None:
    done = lissnas(folder, "--space", "space.yaml", "--labels", "noise.csv", "--out", "out")
    assert done.code == 0
    assert "the predictor is too weak to trust: its cross-validated tau is" in done.out
    assert "say next to nothing about this space" in done.out


BAD = [
    (["--space", "bad.yaml", "--labels", "labels.csv"], "bad.yaml: 2 problems"),
    (["--space", "space.yaml", "--labels", "bad.csv"], "bad.csv: 3 problems"),
    (["--space", "space.yaml", "--labels", "labels.csv", "--target-size", "9999"], "9,999 is more than the space has"),
    (["--space", "space.yaml", "--labels-from", "guessing"], "guessing"),
]


def test_too_small_query_budget_is_refused_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = lissnas(folder, *BY_LABELS, "--max-queries", "120", "--out", "out")
    assert done.code == 2
    assert "max_queries: 120 does not pay for the first sample" in done.err
    assert sorted(folder.iterdir()) == before


def test_invalid_input_is_reported_and_writes_nothing(folder: Path) -> None:
    (folder / "bad.yaml").write_text(
        SPACE.replace("choices: [a, b, c]", "choices: []", 1).replace("name: p3", "name: p4")
    )
    lines = (folder / "labels.csv").read_text().splitlines()
    wrong = ["z" + lines[1][1:], lines[2].rpartition(",")[0] + ",nan", lines[3] + ",7"]
    (folder / "bad.csv").write_text("\n".join([lines[0], *wrong, *lines[4:]]) + "\n")
    before = sorted(folder.iterdir())
    for words, message in BAD:
        done = lissnas(folder, *words, "--out", "out")
        assert (done.code, message in done.err) == (2, True), (words, done.err)
        assert sorted(folder.iterdir()) == before, words


def test_metric_name_with_markup_is_printed(folder: Path) -> None:
    space = spaces.get("fairnas")
    names = space.format(space.sample_distinct(60, np.random.default_rng(0)))
    (folder / "own.csv").write_text(
        "".join(f"{n}\n" for n in ["arch,acc[/top1]", *(f"{n},{n.count('1')}" for n in names)])
    )
    words = ["--space", "fairnas", "--labels", "own.csv", "--target-size", "300"]
    done = lissnas(folder, *words, "--out", "out")
    assert done.code == 0
    assert "acc[/top1]" in done.out


# -- a command -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("uninterrupted"))
    done = lissnas(folder, *BY_COMMAND, "--out", "out")
    assert done.code == 0, done.err
    return folder


def test_command_labels_as_many_architectures_as_the_budget(uninterrupted: Path) -> None:
    queried = (uninterrupted / "queried").read_text().split()
    labels = pq.read_table(uninterrupted / "out/labels.parquet")
    assert len(queried) == len(set(queried)) == 150
    assert set(labels["arch"].to_pylist()) == set(queried)
    space = get_space(str(uninterrupted / "space.yaml"))
    assert (labels["value"].to_numpy() == truth(space.parse(labels["arch"].to_pylist()))).all()
    metrics = json.loads((uninterrupted / "out/metrics.json").read_text())
    assert metrics["labels"] == 150
    assert "tau" in metrics


def test_failed_command_is_reported_and_the_shrink_resumes(folder: Path, uninterrupted: Path) -> None:
    (folder / "die").touch()
    done = lissnas(folder, *BY_COMMAND, "--out", "out")
    assert done.code == 1
    assert "exited with code 1 on the batch of" in done.err
    assert "the cluster is gone" in done.err
    assert not (folder / "out").exists()
    before = (folder / "queried").read_text().split()
    assert len(before) >= 64
    (folder / "die").unlink()
    assert lissnas(folder, *BY_COMMAND, "--out", "out").code == 0
    queried = (folder / "queried").read_text().split()
    assert queried[: len(before)] == before
    assert len(queried) == len(set(queried)) == 150
    assert manifest(folder / "out") == manifest(uninterrupted / "out")


def wait_for(path: Path) -> int:
    for _ in range(600):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError(f"{path} was not created")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shrink_killed_within_a_batch_resumes_to_the_same_bytes(folder: Path, uninterrupted: Path) -> None:
    (folder / "hang").touch()
    process = start(folder, *BY_COMMAND, "--out", "out")
    oracle = wait_for(folder / "hangs")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    until = time.monotonic() + 20
    while alive(oracle) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(oracle)
    (folder / "hang").unlink()
    assert lissnas(folder, *BY_COMMAND, "--out", "out").code == 0
    queried = (folder / "queried").read_text().split()
    assert len(queried) == len(set(queried)) == 150
    assert manifest(folder / "out") == manifest(uninterrupted / "out")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_program_is_terminated_with_the_command(folder: Path, how: signal.Signals) -> None:
    (folder / "hang").touch()
    process = start(folder, *BY_COMMAND, "--out", "out")
    oracle = wait_for(folder / "hangs")
    process.send_signal(how)
    _, message = process.communicate(timeout=60)  # under a second on an idle machine
    assert process.returncode == 128 + how
    assert "goes on where it was" in message
    time.sleep(0.5)
    left = alive(oracle)
    if left:
        os.kill(oracle, signal.SIGKILL)
    assert not left


def test_hanging_command_is_stopped_at_the_timeout(folder: Path) -> None:
    (folder / "hang").touch()
    done = lissnas(folder, *BY_COMMAND, "--oracle-timeout", "3", "--out", "out")
    assert done.code == 1
    assert "took longer than 3 s for " in done.err
    assert len((folder / "queried").read_text().split()) >= 60
    assert not alive(int((folder / "hangs").read_text()))


def test_shrink_by_a_model_uses_no_labels(folder: Path) -> None:
    done = lissnas(folder, *BY_MODEL, "--out", "out")
    assert done.code == 0, done.err
    metrics = json.loads((folder / "out/metrics.json").read_text())
    assert (metrics["size"], metrics["labels"]) == (400, 0)
    assert "predictor.ubj" not in manifest(folder / "out")
    assert pq.read_table(folder / "out/labels.parquet").num_rows == 0
    (folder / "again").mkdir()
    assert lissnas(folder, *BY_MODEL, "--out", "again/out").code == 0
    assert manifest(folder / "again/out") == manifest(folder / "out")


def test_shrink_by_a_model_requires_a_target_size(folder: Path) -> None:
    done = lissnas(folder, "--space", "space.yaml", "--oracle-model", "model.ubj", "--out", "out")
    assert done.code == 2
    assert "target_size: required" in done.err


# -- the flow --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a Prefect server and an MLflow database for this module, in a folder with a space."""
    home = fill(tmp_path_factory.mktemp("pipeline"))
    with served(home):
        yield home


def both(out: Path, overrides: dict[str, Any], **given: Any) -> tuple[Outcome, Outcome, str]:
    """Run the flow and the plain stage; return both outcomes and the flow's MLflow location."""
    from flows.shrink import shrink

    params = ROOT / "params.yaml"
    what = Description(**given)
    flow, place = shrink(what, out=out / "flow", params=params, overrides=overrides, threads=1)
    checked, source = what.load(params, overrides, out / "plain")
    return flow, shrink_stage(checked, source, 0, out / "plain", threads=1), place


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"labels": Path("labels.csv")}, id="labels", marks=pytest.mark.slow),
        pytest.param({"oracle_model": Path("model.ubj")}, id="model"),
        pytest.param({"labels": Path("labels.csv"), "oracle_command": COMMAND}, id="labels and command"),
        pytest.param({"oracle_command": COMMAND}, id="command", marks=pytest.mark.slow),
    ],
)
def test_flow_gives_the_bytes_of_the_command(server: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    overrides = {"shrink.target_size": 400, "shrink.labels": 120, "shrink.elite.max_iterations": 5}
    flow, plain, place = both(tmp_path, overrides, space="space.yaml", **given)
    assert manifest(flow.folder) == manifest(plain.folder)
    assert place.startswith("MLflow: run ")


def test_flow_logs_a_subspace_of_balls(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from lissnas.shrinkers import strategies
    from lissnas.spaces import balls, subspace

    for module in (strategies, balls, subspace):
        monkeypatch.setattr(module, "LISTABLE", 5_000)
    monkeypatch.setattr(strategies, "SEARCH_SIZE", 1_000)
    monkeypatch.setattr(balls, "MAX_DRAWS", 20_000)
    long = SPACE.replace("[a, b, c]", "[a, b, c, d]").replace("name: mine", "name: long")
    extra = "".join(f"  - {{name: q{i}, choices: [a, b, c, d]}}\n" for i in range(12))
    Path("long.yaml").write_text(long + extra)
    space = get_space("long.yaml")
    archs = space.sample_distinct(150, np.random.default_rng(0))
    first, *rows = write_rows(space, archs).decode().splitlines()
    Path("long.csv").write_text("\n".join([first, *(f"{r}{int(a.sum())}" for r, a in zip(rows, archs, strict=True))]))
    overrides = {"shrink.target_size": 50_000, "shrink.elite.max_iterations": 4}
    flow, plain, place = both(tmp_path, overrides, space="long.yaml", labels=Path("long.csv"))
    assert manifest(flow.folder) == manifest(plain.folder)
    about = flow.json("subspace.json")
    assert about["kind"] == "balls"
    assert flow.metrics["full_size"] == 4**20
    assert 0.8 < flow.metrics["size"] / 50_000 < 1.2
    assert place.startswith("MLflow: run ")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("lissnas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.benchmark = 'long' and tags.stage = 'shrink'")
    assert len(runs) == 1
    assert runs[0].data.metrics["mean_predicted"] == pytest.approx(flow.metrics["mean_predicted"])
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.metrics["tau"] == pytest.approx(flow.metrics["tau"])


def test_invalid_input_is_refused_before_prefect_starts(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "home"), "COLUMNS": "300"}
    (tmp_path / "space.yaml").write_text(SPACE)
    command = [sys.executable, "-m", "flows.shrink", "--space", "space.yaml", "--labels", "nothing.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
