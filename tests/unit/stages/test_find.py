"""The best network for a number of evaluations: own spaces, labels alone, programs, interruptions, directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import lissnas
from lissnas import benchmarks
from lissnas.config import Params
from lissnas.core.errors import LissnasError, UserError
from lissnas.oracles.label_table import Labels
from lissnas.searchers import History
from lissnas.shrinkers.problem import Source, from_space
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.declared import parse_space
from lissnas.spaces.subspace import Subspace
from lissnas.stages.find import find, find_stage

MACRO = benchmarks.get("nas_bench_macro")
SPACE = MACRO.space
YAML = """\
name: net
metric: {name: loss, direction: minimize}
positions:
  - {name: a, choices: [1, 2, 3, 4, 5, 6]}
  - {name: b, choices: [1, 2, 3, 4, 5, 6]}
  - {name: c, choices: [1, 2, 3, 4, 5, 6]}
  - {name: d, choices: [1, 2, 3, 4, 5, 6]}
"""
OWN = parse_space(YAML, "space.yaml")


def loss(archs: Archs) -> FloatArray:
    return np.asarray(((archs - np.array([1, 4, 2, 5])) ** 2).sum(axis=1) + 1.0)


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(predictor__trees=30)


def labels_of(n: int) -> Labels:
    rows = SPACE.sample_distinct(n, np.random.default_rng(0))
    rows = rows[np.lexsort(rows.T[::-1])]
    return Labels(rows, MACRO(rows), np.ones(n, np.int64), "accuracy", {})


def test_best_of_an_own_space_with_a_minimized_metric(quick: Params) -> None:
    source = from_space(OWN, oracle=loss)
    found = find(source, OWN, 80, quick, 0)
    assert len(found.history.rows) == 80
    assert found.best[0]["label"] == found.best[0]["score"] == 1.0
    assert found.best[0]["arch"] == OWN.format(np.array([[1, 4, 2, 5]], np.int8))[0]
    columns = found.columns()
    assert (columns["value"] == loss(found.history.rows)).all()
    assert [*dict.fromkeys(found.kinds)] == ["uniform", "search"]
    scores = [row["score"] for row in found.best if row["label"] is not None]
    assert scores == sorted(scores)


def test_labels_alone_rank_unlabelled_networks_too(quick: Params) -> None:
    found = find(from_space(SPACE, labels_of(150)), SPACE, 0, quick, 0)
    assert set(found.kinds) == {"given"}
    assert len(found.best) == 10
    assert {row["reason"] for row in found.best} == {"label", "prediction"}
    top = MACRO(SPACE.parse([row["arch"] for row in found.best]))
    assert top.mean() > np.quantile(MACRO.values, 0.97)


def test_given_labels_are_continued_and_never_evaluated_again(quick: Params) -> None:
    labels = labels_of(60)
    seen: list[str] = []

    def oracle(archs: Archs) -> FloatArray:
        seen.extend(SPACE.format(archs))
        return MACRO(archs)

    found = find(from_space(SPACE, labels, oracle=oracle), SPACE, 30, quick, 0)
    assert len(seen) == len({*seen}) == 30
    assert not {*seen} & {*SPACE.format(labels.archs)}
    assert (found.kinds.count("given"), found.kinds.count("search")) == (60, 30)
    assert MACRO.rank_of(float(found.history.scores.max())) <= 20


def test_only_members_of_a_subspace_are_evaluated_and_labels_outside_are_learned_from(quick: Params) -> None:
    labels = labels_of(60)
    members = SPACE.sample_distinct(300, np.random.default_rng(3))
    part = Subspace(SPACE, listed=members)
    found = find(from_space(SPACE, labels, oracle=MACRO), part, 40, quick, 0)
    assert part.contains(found.history.rows).all()
    assert part.contains(SPACE.parse([row["arch"] for row in found.best])).all()
    inside = int(part.contains(labels.archs).sum())
    assert found.kinds.count("given") == inside < 20
    assert found.kinds.count("search") == 40  # the labels outside suffice for a model
    assert found.history.scores.max() == pytest.approx(MACRO(members).max(), abs=0.1)


def test_a_whole_subspace_is_evaluated_if_it_is_small(quick: Params) -> None:
    part = Subspace(SPACE, listed=SPACE.sample_distinct(25, np.random.default_rng(3)))
    found = find(from_space(SPACE, oracle=MACRO), part, 100, quick, 0)
    assert len(found.history.rows) == 25


def test_failures_and_equal_values(quick: Params) -> None:
    def some_fail(archs: Archs) -> FloatArray:
        return np.where(archs[:, 0] == 0, np.nan, MACRO(archs))

    found = find(from_space(SPACE, oracle=some_fail), SPACE, 60, quick, 0)
    assert len(found.history.rows) == 60
    assert 0 < np.isnan(found.history.scores).sum() < 25
    assert found.best[0]["label"] == np.nanmax(found.history.scores)
    equal = find(from_space(SPACE, oracle=lambda archs: np.ones(len(archs))), SPACE, 30, quick, 0)
    assert equal.best[0]["label"] == 1
    with pytest.raises(LissnasError, match="failed"):
        find(from_space(SPACE, oracle=lambda archs: np.full(len(archs), np.nan)), SPACE, 30, quick, 0)


def test_missing_oracle_and_labels_are_named(quick: Params) -> None:
    with pytest.raises(UserError, match="--n: nothing evaluates networks of nas_bench_macro"):
        find(from_space(SPACE, labels_of(60)), SPACE, 5, quick, 0)
    with pytest.raises(UserError, match="neither labels nor evaluations"):
        find(from_space(SPACE, oracle=MACRO), SPACE, 0, quick, 0)


def test_interrupted_search_resumes_to_the_same_files(quick: Params, tmp_path: Path) -> None:
    source = Source.of(MACRO)
    whole = find_stage(quick, source, SPACE, 60, 0, tmp_path / "a")
    evaluated = 0

    def stop(history: History) -> None:
        nonlocal evaluated
        evaluated = len(history.rows)
        if evaluated == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_stage(quick, source, SPACE, 60, 0, tmp_path / "b", on_batch=stop)
    rest: list[int] = []
    again = find_stage(quick, source, SPACE, 60, 0, tmp_path / "b", on_batch=lambda h: rest.append(len(h.rows)))
    assert rest == [40, 50, 60]
    for name in ("history.parquet", "best.json", "metrics.json", "history.png"):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    table = pq.read_table(again.folder / "history.parquet")
    assert table.column_names == ["arch", "value", "round", "kind", "predicted"]
    assert whole.metrics["best_rank"] == MACRO.rank_of(whole.metrics["best_true"])


def test_face(tmp_path: Path, quick: Params) -> None:
    found = lissnas.search(OWN, lissnas.by_rows(loss), n=40, params=quick)
    frame = found.to_pandas()
    assert frame.columns.tolist() == ["arch", "value", "round", "kind", "predicted"]
    assert frame["value"].min() == found.best[0]["score"]
    with pytest.raises(UserError, match="subspace: it is of nas_bench_macro, not of net"):
        lissnas.search(OWN, None, 0, subspace=Subspace(SPACE, listed=SPACE.sample(3, np.random.default_rng(0))))


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from lissnas.cli.app import app

    def run(*words: str) -> None:
        app(["search", "--out", "found", *words], standalone_mode=False)

    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(YAML)
    Path("train.py").write_text(
        "import sys\nfor line in sys.stdin: print(sum(map(int, line.split('|'))), flush=True)\n"
    )
    with pytest.raises(UserError, match="--by belongs to a search by a supernet"):
        run("--space", "space.yaml", "--by", "all")
    with pytest.raises(UserError, match="give --space with --labels or an oracle"):
        run()
    run("--space", "space.yaml", "--oracle-command", "python train.py", "--n", "30", "--set", "predictor.trees=30")
    shown = capsys.readouterr().out
    assert "Metric: loss, minimized." in shown
    assert "best networks of net: 30 with a value" in shown
    best: list[dict[str, Any]] = json.loads(Path("found/best.json").read_text())
    assert best[0]["label"] <= 7
