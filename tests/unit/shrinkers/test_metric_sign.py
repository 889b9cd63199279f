"""Comparison, locality and search of a minimized metric: the results of the maximized one, in the metric's sign."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lissnas import benchmarks
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.config import Params
from lissnas.oracles.direction import metric_label, stated
from lissnas.plots import comparison as figures
from lissnas.searchers.base import History
from lissnas.shrinkers.comparison_summary import VALUES, in_sign
from lissnas.shrinkers.methods import REFERENCES
from lissnas.shrinkers.own_table import benchmark_of
from lissnas.shrinkers.problem import Source, from_space
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.search import SearchOracle, search_stage
from tests.small import LOCALITY

MACRO = benchmarks.get("nas_bench_macro")
ROWS = MACRO.space.enumerate()
METHODS = ("lissnas", "lissnas_paper", "abs", "flops", "top5", "score_all")
ENDS = ("_low", "_high")


def source(path: Path, which: Sequence[int], minimize: bool) -> Source:
    """Return labels of NAS-Bench-Macro as a source: accuracies, or their negatives as losses to minimize."""
    sign, metric = (-1, "val_loss") if minimize else (1, "accuracy")
    values = sign * MACRO(ROWS[[*which]])
    names = MACRO.space.format(ROWS[[*which]])
    path.write_text("\n".join([f"arch,{metric}", *(f"{n},{v!r}" for n, v in zip(names, values.tolist(), strict=True))]))
    return from_space(MACRO.space, path, minimize=minimize or None)


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(
        predictor__trees=40, compare__diversities=[0.05], shrink__target_size=450, shrink__labels=300, benchmarks={}
    )


def sign_of(column: str) -> int:
    return -1 if column.removesuffix("_low").removesuffix("_high") in VALUES else 1


def check_rows(gains: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> None:
    """Check that rows are equal but for values, which have the other sign, and the ends of their intervals."""
    for gain, loss in zip(gains, losses, strict=True):
        assert gain.keys() == loss.keys()
        for name, value in gain.items():
            if name == "seconds":
                continue
            other = name
            if sign_of(name) < 0 and name.endswith(ENDS):
                other = name[:-4] + "_high" if name.endswith("_low") else name[:-5] + "_low"
            flipped = value if isinstance(value, str) or value is None else sign_of(name) * value
            assert loss[other] == flipped, name


def compared(tmp_path: Path, quick: Params, which: Sequence[int]) -> tuple[list[Outcome], list[list[str]]]:
    outcomes, printed = [], []
    for minimize in (False, True):
        lines: list[str] = []
        given = source(tmp_path / f"{minimize}.csv", which, minimize)
        out = tmp_path / f"out-{minimize}"
        outcomes.append(compare_stage(quick, given, METHODS, [0], out, threads=1, on_progress=lines.append))
        printed.append(lines)
    return outcomes, printed


@pytest.mark.parametrize("share", [1, 3], ids=["table", "held out"])
def test_compared_losses_are_negative_accuracies(
    share: int, tmp_path: Path, quick: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = np.sort(np.random.default_rng(0).permutation(len(ROWS))[: len(ROWS) // share]).tolist()
    (gain, loss), lines = compared(tmp_path, quick, drawn)
    assert (gain.metrics["metric"], gain.metrics["direction"]) == ("accuracy", "maximize")
    assert (loss.metrics["metric"], loss.metrics["direction"]) == ("val_loss", "minimize")
    for name in ("comparison.csv", "summary.csv"):
        check_rows(gain.csv(name), loss.csv(name))
    check_rows(*(one.table("comparison.parquet").to_pylist() for one in (gain, loss)))
    assert all(row["mean_true"] < 0 for row in loss.csv("summary.csv") if row["mean_true"] is not None)
    for name, value in loss.metrics.items():
        if name in ("mean_true", "ours_minus_sd"):
            assert {k: v and -v for k, v in value.items()} == gain.metrics[name]
        elif name not in ("metric", "direction"):
            assert value == gain.metrics[name]
    assert all(" mean -" in line for line in lines[1] if "no mean" not in line)
    page = (loss.folder / "comparison.md").read_text()
    assert "val_loss (less is better)" in page
    assert "negative val_loss" not in page
    assert ("Less is better, so ours is ahead" in page) == (share == 1)
    assert ("Good is below the labels' 20th percentile" in page) == (share == 3)
    verdicts = [
        [
            line
            for line in (one.folder / "comparison.md").read_text().splitlines()
            if line.startswith(("- lissnas", "- Ours"))
        ]
        for one in (gain, loss)
    ]
    assert verdicts[0] == verdicts[1]
    render.show_comparison(loss)
    shown = capsys.readouterr().out
    assert "Metric: val_loss, minimized." in shown
    assert all(line[2:].split(",")[0] in " ".join(shown.split()) for line in verdicts[1])


def test_colours_are_of_the_closest_rivals_in_both_directions() -> None:
    rows = [{"method": "lissnas", "ours_minus": 0.0}] + [{"method": f"m{i}", "ours_minus": float(i)} for i in range(9)]
    assert figures.coloured(rows, REFERENCES) == figures.coloured(in_sign(rows, -1), REFERENCES, -1)


def test_sign_of_rows_is_changed_and_restored() -> None:
    row = {"method": "a", "mean_true": 2.0, "mean_true_low": 1.0, "mean_true_high": 4.0, "ours_minus": None, "p": 0.5}
    (changed,) = in_sign([row], -1)
    assert (changed["mean_true_low"], changed["mean_true"], changed["mean_true_high"]) == (-4.0, -2.0, -1.0)
    assert (changed["ours_minus"], changed["p"], row["mean_true"]) == (None, 0.5, 2.0)
    assert in_sign([changed], -1) == [row] == in_sign([row], 1)


def test_locality_names_the_metric(tmp_path: Path, make_params: Callable[..., Params]) -> None:
    params = make_params(**{name.replace(".", "__"): value for name, value in LOCALITY.items()})
    found = {}
    for minimize in (False, True):
        table = benchmark_of(source(tmp_path / f"{minimize}.csv", range(len(ROWS)), minimize), predicted=False)
        found[minimize] = locality_stage(params, table, tmp_path / f"out-{minimize}", threads=1)
    assert stated("val_loss", minimize=True).items() <= found[True].metrics.items()
    assert found[True].json("locality.json")["metric"] == "val_loss"
    rows = [pq.read_table(one.folder / "locality.parquet").to_pylist() for one in found.values()]
    assert rows[0] == rows[1]


def test_search_reports_scores_in_the_metrics_sign(
    tmp_path: Path, quick: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    best: list[str] = []
    for name, minimize in (("gain", False), ("loss", True)):
        oracle = SearchOracle(MACRO, name, name, minimize)
        histories: list[History] = []
        outcome = search_stage(
            *(quick, MACRO.space, ROWS[:200], oracle, 0, tmp_path / name), on_generation=histories.append
        )
        m, top = outcome.metrics, outcome.json("top.json")
        sign = -1 if minimize else 1
        assert stated(name, minimize).items() <= m.items()
        assert m["best_score"] == top[0]["score"] == sign * max(MACRO(ROWS[:200]))
        history = outcome.table("history.parquet").to_pydict()
        assert history["score"] == (sign * MACRO(MACRO.space.parse(history["arch"]))).tolist()
        assert render.search_line(histories[-1]).endswith(f"best {m['best_score']:.4g}")
        render.show_search(outcome, None)
        assert f"Metric: {name}, {'minimized' if minimize else 'maximized'}." in capsys.readouterr().out
        best.append(top[0]["arch"])
    assert best[0] == best[1]


def test_history_without_a_direction_is_maximized() -> None:
    history = History(ROWS[:2], np.array([1.0, 3.0]), np.zeros(2, np.int64))
    assert history.values.tolist() == [1.0, 3.0]
    assert history.extended(ROWS[2:3], np.array([2.0]), 1).sign == 1
    assert (metric_label("acc", False), metric_label("loss", True)) == ("acc", "loss (less is better)")
