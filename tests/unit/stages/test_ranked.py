"""Ranking of a shrunk space by all evidence, and the choice among retrained networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.config import Params
from lissnas.oracles.label_table import Labels
from lissnas.searchers import History
from lissnas.stages.ranked import Ranking

MACRO = benchmarks.get("nas_bench_macro")
SPACE = MACRO.space


def labels_of(n: int, negated: bool = False) -> Labels:
    rows = SPACE.sample_distinct(n, np.random.default_rng(0))
    rows = rows[np.lexsort(rows.T[::-1])]
    return Labels(rows, MACRO(rows), np.ones(n, np.int64), "accuracy", {}, negated)


def ranking(make_params: Callable[..., Params], negated: bool = False) -> Ranking:
    labels = labels_of(60, negated)
    others = SPACE.sample_distinct(100, np.random.default_rng(1), without=SPACE.key(labels.archs))
    members = np.concatenate([others, labels.archs[10:40]])
    return Ranking(make_params(predictor__trees=30), SPACE, members, labels, 0)


def test_labels_outside_the_subspace_are_counted_and_teach_the_predictor(make_params: Callable[..., Params]) -> None:
    found = ranking(make_params)
    assert (len(found.labelled), found.n_outside) == (30, 30)
    assert len(found.predictor.quantiles) == 60
    assert (found.labels.archs[found.label_of] == found.members[found.labelled]).all()


def test_rows_have_label_prediction_costs_and_reason(make_params: Callable[..., Params]) -> None:
    found = ranking(make_params)
    rows, _ = found.best(None, 130)
    assert len(rows) == 130
    by_name = {row["arch"]: row for row in rows}
    for row in rows:
        assert (row["reason"] == "label") == (row["label"] is not None)
        assert row["supernet"] is None
        assert set(row["costs"]) == {"flops", "params"}
    truth = MACRO(found.members[found.labelled])
    for name, value in zip(SPACE.format(found.members[found.labelled]), truth, strict=True):
        assert by_name[name]["label"] == by_name[name]["score"] == value
    scores = [row["score"] for row in rows if row["reason"] == "label"]
    assert scores == sorted(scores, reverse=True)


def test_values_of_a_minimized_metric_have_its_sign(make_params: Callable[..., Params]) -> None:
    rows, _ = ranking(make_params, negated=True).best(None, 130)
    labels = [row["label"] for row in rows if row["label"] is not None]
    assert labels == sorted(labels)
    assert max(labels) < 0
    assert all(row["predicted"] < 0 for row in rows)


def test_a_search_that_knows_the_truth_is_trusted(make_params: Callable[..., Params]) -> None:
    found = ranking(make_params)
    history = History(found.members, MACRO(found.members), np.zeros(len(found.members), np.int64))
    rows, fused = found.best(history, 10)
    assert fused.weight > 0.3
    assert {row["reason"] for row in rows} <= {"label", "prediction and supernet"}
    assert all(row["supernet"] is not None for row in rows)


def row(validation: float, label: float | None) -> dict[str, Any]:
    return {"validation": validation, "label": label}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(60.0, 93.1), row(61.0, 92.9)], (0, "label")),  # within two standard errors of 1.5 points
        ([row(55.0, 93.1), row(61.0, 92.9)], (1, "label")),
        ([row(60.0, None), row(61.0, None)], (1, "validation accuracy")),
        ([row(55.0, 93.1), row(61.0, None)], (1, "validation accuracy")),
        ([row(60.0, 92.8), row(61.0, None), row(59.9, 93.0)], (2, "label")),
    ],
)
def test_choice_among_retrained_networks(rows: list[dict[str, Any]], expected: tuple[int, str]) -> None:
    pytest.importorskip("torch")
    from lissnas.stages.retrain import choose

    assert choose(rows, 2000) == expected
