"""Labels, predictor and supernet as one score."""

from __future__ import annotations

import numpy as np
import pytest

from lissnas.predictors.ranks import kendall, normal_scores
from lissnas.searchers.fusion import fuse
from lissnas.spaces import FloatArray, IntArray


def made_up(
    seed: int, n_labels: int, quality: float, n: int = 600
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Return values, predictions, scores of a supernet that correlate by `quality`, and labelled indices."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(n)
    predicted = 0.8 * values + 0.6 * rng.standard_normal(n)
    supernet = quality * values + np.sqrt(1 - quality**2) * rng.standard_normal(n)
    return values, predicted, supernet, rng.permutation(n)[:n_labels]


@pytest.mark.parametrize("n_labels", [40, 75, 150, 300])
@pytest.mark.parametrize("quality", [0.0, 0.3, 0.6, 0.95])
def test_fused_score_is_not_worse_than_the_better_one(quality: float, n_labels: int) -> None:
    """The rank correlation of unlabelled networks, over ten made-up supernets, within .01 (median: .005)."""
    gains = []
    for seed in range(10):
        values, predicted, supernet, labelled = made_up(seed, n_labels, quality)
        target = normal_scores(values[labelled])
        scores = fuse(predicted, supernet, labelled, target, predicted[labelled]).scores
        rest = np.setdiff1d(np.arange(len(values)), labelled)
        taus = [kendall(score[rest], values[rest]) for score in (scores, predicted, supernet)]
        gains.append(taus[0] - max(taus[1:]))
    # A supernet that is better than the predictor needs labels to show it.
    assert np.median(gains) > (-0.005 if quality < 0.9 or n_labels >= 75 else -0.05)
    assert np.mean(gains) > 0.005 or quality in (0.0, 0.3) or n_labels < 75


def test_labelled_networks_are_scored_by_their_label() -> None:
    values, predicted, supernet, labelled = made_up(0, 50, 0.5)
    target = normal_scores(values[labelled])
    assert (fuse(predicted, supernet, labelled, target, predicted[labelled]).scores[labelled] == target).all()


def test_a_useless_or_misleading_supernet_has_no_weight() -> None:
    values, predicted, supernet, labelled = made_up(0, 200, 0.9)
    target = normal_scores(values[labelled])
    for other in (-supernet, np.ones(len(values)), np.full(len(values), np.nan)):
        found = fuse(predicted, other, labelled, target, predicted[labelled])
        assert found.weight == 0
        rest = np.setdiff1d(np.arange(len(values)), labelled)
        assert (found.scores[rest] == predicted[rest]).all()


def test_networks_without_an_evaluation_keep_their_prediction() -> None:
    values, predicted, supernet, labelled = made_up(0, 200, 0.9)
    supernet[300:] = np.nan
    found = fuse(predicted, supernet, labelled, normal_scores(values[labelled]), predicted[labelled])
    rest = np.setdiff1d(np.arange(300, len(values)), labelled)
    assert found.weight > 0
    assert (found.scores[rest] == predicted[rest]).all()
