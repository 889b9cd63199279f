"""The stack of trees and kernel regression: weights, the kernel's linear part, subsets, models of earlier versions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from threadpoolctl import threadpool_info

from lissnas import benchmarks
from lissnas.config import PredictorConfig
from lissnas.core.blas import one_blas_thread
from lissnas.predictors import kernel as kernels
from lissnas.predictors.accuracy import PRIOR_LABELS, Member, Predictor, stack_weights, tau
from lissnas.predictors.kernel import KernelModel, subset
from lissnas.shrinkers import description
from lissnas.spaces import Archs, ChoiceSpace, FloatArray

SPACE = ChoiceSpace("made_up", [4] * 12)
EFFECTS = default_rng(0).normal(size=(12, 4))


@pytest.fixture(scope="module")
def config() -> PredictorConfig:
    return description.load_params(None, {}).predictor


def additive(archs: Archs) -> FloatArray:
    """Return the sum of one effect per choice: a landscape that a linear model learns exactly."""
    return np.asarray(EFFECTS[np.arange(12), archs].sum(axis=1))


# -- weights ---------------------------------------------------------------------------------------
@given(st.integers(2, 5_000), st.integers(0, 2**32 - 1))
def test_weights_are_not_negative_and_pulled_to_the_prior(n: int, seed: int) -> None:
    rng = default_rng(seed)
    target = rng.normal(size=n)
    weights = stack_weights(np.stack([target, -target], axis=1), target)
    expected = (n * np.array([1, 0]) + PRIOR_LABELS * np.array([0.5, 0.5])) / (n + PRIOR_LABELS)
    assert weights == pytest.approx(expected, abs=1e-4)


def test_the_kernel_has_the_weight_on_an_additive_space(config: PredictorConfig) -> None:
    archs = SPACE.sample_distinct(300, default_rng(1))
    model = Predictor.fit(SPACE, archs, additive(archs), config, 0, 1)
    assert model.kernel is not None
    assert model.kernel.share < 0.5
    assert model.kernel_member.weight > 0.8 > 0.2 > model.trees_member.weight
    more = SPACE.sample(2_000, default_rng(2))
    trees = replace(model, trees_member=Member(1.0), kernel_member=Member(0.0))
    assert tau(model.score(more), additive(more)) > tau(trees.score(more), additive(more)) + 0.1


def test_reported_taus_are_those_of_out_of_fold_predictions(config: PredictorConfig) -> None:
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.sample_distinct(200, default_rng(0))
    model = Predictor.fit(table.space, rows, table(rows), config, 0, 1)
    metrics = model.member_metrics()
    assert set(metrics) == {"trees_weight", "trees_tau", "kernel_weight", "kernel_tau"}
    assert model.out_of_fold is not None
    held_out = table.space.sample(1_000, default_rng(1))
    assert tau(model.out_of_fold, table(rows)) == pytest.approx(tau(model.score(held_out), table(held_out)), abs=0.06)


def test_a_fit_like_an_earlier_one_has_its_weights(config: PredictorConfig) -> None:
    archs = SPACE.sample_distinct(200, default_rng(1))
    first = Predictor.fit(SPACE, archs[:100], additive(archs[:100]), config, 0, 1)
    second = Predictor.fit(SPACE, archs, additive(archs), config, 0, 1, first)
    assert second.out_of_fold is None
    assert (second.trees_member, second.kernel_member) == (first.trees_member, first.kernel_member)
    more = SPACE.sample(2_000, default_rng(2))
    assert tau(second.score(more), additive(more)) > tau(first.score(more), additive(more))


# -- kernel ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [40, 400])
def test_a_linear_kernel_is_ridge_regression(n: int) -> None:
    rng = default_rng(n)
    x, penalty = rng.normal(size=(n, 6)).astype(np.float32), 0.3
    y = x @ rng.normal(size=6) + rng.normal(size=n)
    model = KernelModel.restore(x, np.zeros(n), 1.0, 0.0, penalty).refit(np.arange(n), y)
    z = np.concatenate([model.points / np.sqrt(model.norm), np.ones((n, 1))], axis=1)  # the kernel is 1 + x.x' / norm
    coefficients = np.linalg.solve(z.T @ z + penalty * np.eye(7), z.T @ y)
    assert model.predict(x) == pytest.approx(z @ coefficients, abs=1e-4)


@settings(max_examples=25)
@given(st.integers(3, 60), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 1.0]))
def test_predictions_equal_those_of_the_whole_kernel_matrix(n: int, seed: int, share: float) -> None:
    rng = default_rng(seed)
    x, y, more = rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=n), rng.normal(size=(700, 4))
    model = KernelModel.restore(x, np.zeros(n), 2.0, share, 0.1).refit(np.arange(n), y)
    a, b = model.scale(more.astype(np.float32)), model.points
    distance = np.sqrt(((a[:, None] - b) ** 2).mean(axis=2))
    kernel = 1 + share * np.exp(-distance / 2.0) + (1 - share) * a @ b.T / model.norm
    assert model.predict(more.astype(np.float32)) == pytest.approx(kernel @ model.weights, abs=1e-9)


def test_many_labels_are_fitted_on_a_subset(config: PredictorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.subset, "__defaults__", (80,))
    archs = SPACE.sample_distinct(300, default_rng(1))
    model = Predictor.fit(SPACE, archs, additive(archs), config, 0, 1)
    assert model.labelled is not None
    assert len(model.labelled) == 80
    assert (SPACE.key(model.labelled)[:, None] == SPACE.key(archs)).any(axis=1).all()
    assert model.out_of_fold is not None
    assert len(model.out_of_fold) == 300
    read = Predictor.load(SPACE, *model.dump())
    assert (read.score(archs) == model.score(archs)).all()


@given(st.integers(1, 5_000))
def test_a_subset_is_sorted_and_distinct(n: int) -> None:
    chosen = subset(n, 100)
    assert len(chosen) == min(n, 100)
    assert (np.diff(chosen) > 0).all()
    assert n <= 100 or chosen[-1] < n


def test_one_blas_thread_is_restored_after_the_last_user() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before


# -- models of earlier versions --------------------------------------------------------------------
def test_a_model_of_trees_only_is_loaded(config: PredictorConfig) -> None:
    archs = SPACE.sample_distinct(150, default_rng(1))
    trees, _, about = Predictor.fit(SPACE, archs, additive(archs), config, 0, 1).dump()
    old = {name: value for name, value in about.items() if name not in ("members", "kernel_sha256")}
    model = Predictor.load(SPACE, trees, b"", json.loads(json.dumps(old)))
    assert model.kernel is None
    assert model.member_metrics() == {}
    assert tau(model.score(archs), additive(archs)) > 0.5


def test_a_kernel_without_a_linear_part_is_loaded_with_half_of_the_weight(config: PredictorConfig) -> None:
    archs = SPACE.sample_distinct(60, default_rng(1))
    model = Predictor.fit(SPACE, archs, additive(archs), config, 0, 1)
    trees, _, about = model.dump()
    weights = default_rng(0).normal(size=60)
    old = {name: value for name, value in about.items() if name not in ("members", "kernel_sha256")}
    old["kernel"] = {"labelled": archs.tolist(), "weights": weights.tolist(), "length": 2.0}
    read = Predictor.load(SPACE, trees, b"", old)
    assert read.kernel is not None
    points = read.kernel.points
    distance = np.sqrt(((points[:, None] - points) ** 2).mean(axis=2))
    kernel = (1 + np.exp(-distance / 2.0)) @ weights
    alone = replace(model, trees_member=Member(1.0), kernel_member=Member(0.0)).score(archs)
    assert read.score(archs) == pytest.approx((alone + kernel) / 2, abs=1e-4)
