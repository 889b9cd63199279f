"""Direction: a metric is maximized or minimized as stated, and values are shown in its own sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import lissnas
from lissnas import spaces
from lissnas.artifacts import read_json
from lissnas.benchmarks import get as benchmark
from lissnas.cli import app as cli
from lissnas.core.errors import UserError
from lissnas.oracles.direction import is_minimized, looks_like_cost
from lissnas.oracles.label_table import read_labels
from lissnas.shrinkers.description import Description
from lissnas.spaces.declared import parse_space

MACRO = spaces.get("nas_bench_macro")
DECLARED = parse_space(
    "name: s\nmetric: {name: loss, direction: minimize}\npositions:\n"
    "  - {name: a, choices: [1, 2, 3, 4, 5]}\n  - {name: b, choices: [1, 2, 3, 4, 5]}\n",
    "space.yaml",
)
COSTS = (
    *("val_loss", "loss", "valLoss", "test_error", "top1_err", "error_rate", "perplexity", "ppl", "latency_ms"),
    *("latency", "train_time", "flops", "n_params", "model_size", "energy", "wer", "rmse", "RMSE", "testerror", "nll"),
)
GAINS = ("accuracy", "val_acc", "top1", "value", "auc", "neg_loss", "negative loss", "images_per_sec", "params_score")


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_refused_without_a_direction(name: str) -> None:
    assert looks_like_cost(name)
    with pytest.raises(UserError, match=r"--minimize .*minimize=True.* --maximize"):
        is_minimized(MACRO, name)
    assert is_minimized(MACRO, name, True)
    assert not is_minimized(MACRO, name, False)


@pytest.mark.parametrize("name", GAINS)
def test_other_metrics_are_maximized(name: str) -> None:
    assert not is_minimized(MACRO, name)
    assert is_minimized(MACRO, name, True)


def test_direction_of_a_space_applies_to_its_metric_only() -> None:
    assert is_minimized(DECLARED, "loss")
    assert is_minimized(DECLARED, "loss", True)
    with pytest.raises(UserError, match="declares that loss is to be minimized"):
        is_minimized(DECLARED, "loss", False)
    with pytest.raises(UserError, match="latency_ms"):
        is_minimized(DECLARED, "latency_ms")


def write(folder: Path, metric: str, sign: int, n: int = 150) -> Path:
    rows = MACRO.sample_distinct(n, np.random.default_rng(1))
    values = sign * benchmark("nas_bench_macro")(rows)
    path = folder / f"{metric}.csv"
    lines = [f"{name},{value!r}" for name, value in zip(MACRO.format(rows), values.tolist(), strict=True)]
    path.write_text("\n".join([f"arch,{metric}", *lines]) + "\n")
    return path


def test_losses_give_the_space_of_accuracies_and_keep_their_sign(tmp_path: Path) -> None:
    """Labels that are negative accuracies, minimized, give the same space; every file has the labels' sign."""
    folders = {}
    for metric, sign, minimize in (("accuracy", 1, None), ("loss", -1, True)):
        result = lissnas.shrink(
            "nas_bench_macro", write(tmp_path, metric, sign), target_size=100, minimize=minimize, threads=1
        )
        folders[metric] = result.save(tmp_path / f"by_{metric}")
        assert result.metrics["metric"] == metric
    members = [pq.read_table(f / "subspace.parquet").to_pydict() for f in folders.values()]
    assert members[0]["arch"] == members[1]["arch"]
    assert members[0]["predicted"] == [-x for x in members[1]["predicted"]]
    labels = [pq.read_table(f / "labels.parquet").to_pydict()["value"] for f in folders.values()]
    assert labels[0] == [-x for x in labels[1]]
    rounds = [pq.read_table(f / "iterations.parquet").to_pylist() for f in folders.values()]
    for gain, loss in zip(*rounds, strict=True):
        for name, value in gain.items():
            sign = -1 if name in ("mean_predicted", "best_predicted") else 1
            assert loss[name] == sign * value
    gain, loss = (read_json(f / "metrics.json") for f in folders.values())
    assert (gain.pop("direction"), loss.pop("direction")) == ("maximize", "minimize")
    assert gain.keys() == loss.keys()
    for name, value in gain.items():
        if name not in ("metric", "notes", "stop"):
            assert loss[name] == (-value if "_predicted" in name or name.startswith("mean_predicted") else value)
    assert loss["best_predicted"] < loss["mean_predicted"] < loss["full_mean_predicted"] < 0


def test_command_line_states_metric_and_direction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = write(tmp_path, "val_loss", -1, 60)
    words = ["shrink", "--space", "nas_bench_macro", "--labels", str(labels), "--target-size", "50", "--out", "shrunk"]
    with pytest.raises(UserError, match="metric 'val_loss': usually less of it is better"):
        cli.app(words, standalone_mode=False)
    assert not Path("shrunk").exists()
    cli.app([*words, "--minimize", "--threads", "1"], standalone_mode=False)
    assert "Metric: val_loss, minimized." in capsys.readouterr().out
    cli.app(["show", "shrunk"], standalone_mode=False)
    assert "Metric: val_loss, minimized." in capsys.readouterr().out


def test_other_metric_of_a_declared_space_needs_a_direction(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    rows = [f"{a},{b},{a + b},{10 * a + b}" for a in range(1, 6) for b in range(1, 6)]
    path.write_text("\n".join(["a,b,loss,latency_ms", *rows]) + "\n")
    assert read_labels(path, DECLARED).negated
    with pytest.raises(UserError, match="latency_ms"):
        read_labels(path, DECLARED, "latency_ms")
    assert read_labels(path, DECLARED, "latency_ms", minimize=True).measured.tolist()[0] == 11


def test_benchmark_has_its_own_direction() -> None:
    with pytest.raises(UserError, match="--minimize or --maximize belongs to --space"):
        Description("nas_bench_macro", minimize=True).check()
    with pytest.raises(UserError, match="more is better in all tables"):
        lissnas.shrink(MACRO, oracle=benchmark("nas_bench_macro"), minimize=True)


def test_study_minimizes_in_the_sign_of_its_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val_loss"):
        lissnas.Study.open(tmp_path, "nas_bench_macro", metric="val_loss")
    study = lissnas.Study.open(tmp_path, "nas_bench_macro", metric="val_loss", minimize=True)
    study.tell(["00000000", "11111111", "22222222"], [0.5, 0.25, 0.75])
    assert study.best[2:] == ("11111111", 0.25)
    assert sorted(study.labels.measured.tolist()) == [0.25, 0.5, 0.75]
    assert (tmp_path / "labels.csv").read_text().splitlines()[1] == "00000000,0.5,ok"
