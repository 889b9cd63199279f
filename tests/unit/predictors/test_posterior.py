"""The posterior of a search: means, deviations, repeated labels, pending networks."""

from __future__ import annotations

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.predictors import posterior
from lissnas.predictors.posterior import Posterior
from lissnas.searchers.guided import SETTINGS
from lissnas.spaces import Archs

MACRO = benchmarks.get("nas_bench_macro")
SPACE = MACRO.space
ROWS = SPACE.sample_distinct(80, np.random.default_rng(0))
OTHERS = SPACE.sample_distinct(300, np.random.default_rng(1), without=SPACE.key(ROWS))


def fit(rows: Archs = ROWS, **more: object) -> Posterior:
    return Posterior.fit(SPACE, rows, MACRO(rows), SETTINGS, 0, **more)  # type: ignore[arg-type]


def test_means_rank_and_deviations_grow_with_the_distance() -> None:
    model = fit()
    assert np.corrcoef(model.mean(SPACE.encode(OTHERS)), MACRO(OTHERS))[0, 1] > 0.8
    labelled, others = (model.deviation(SPACE.encode(rows)) for rows in (ROWS, OTHERS))
    assert labelled.mean() < 0.8 * others.mean()
    assert (others >= 0).all()


def test_pending_networks_reduce_the_deviation_around_them_and_leave_the_means() -> None:
    alone, expecting = fit(), fit(pending=OTHERS[:5])
    features = SPACE.encode(OTHERS)
    assert (alone.mean(features) == expecting.mean(features)).all()
    assert (expecting.deviation(features[:5]) < alone.deviation(features[:5])).all()
    assert (expecting.deviation(features) <= alone.deviation(features) + 1e-4).all()


def test_repeated_labels_pull_the_mean_more_than_a_single_one() -> None:
    noisy = MACRO(ROWS)
    at = int(np.argmin(noisy))
    noisy[at] = noisy.max() + 1
    repeats = np.ones(len(ROWS), np.int64)
    once = Posterior.fit(SPACE, ROWS, noisy, SETTINGS, 0, repeats)
    repeats[at] = 50
    often = Posterior.fit(SPACE, ROWS, noisy, SETTINGS, 0, repeats)
    features = SPACE.encode(ROWS[at : at + 1])
    assert often.mean(features)[0] > once.mean(features)[0]


def test_more_labels_than_the_kernel_takes_keep_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "MAX_POINTS", 40)
    values = MACRO(ROWS)
    kept = posterior.kept(values)
    assert len(kept) == len(np.unique(kept)) == 40
    assert np.isin(np.argsort(-values)[:20], kept).all()
    assert len(fit().points) == 40
