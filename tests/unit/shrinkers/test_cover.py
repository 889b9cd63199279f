"""Unions of balls, for targets too large to list, verified on spaces that can be enumerated."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lissnas import artifacts, spaces
from lissnas.core.errors import UserError
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import cover as cover_module
from lissnas.shrinkers import description, strategies
from lissnas.shrinkers import shrunk as shrunk_module
from lissnas.shrinkers.cover import cover, spaced
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.result import files_of, metrics_of
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import State
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from lissnas.spaces import balls as balls_module
from lissnas.spaces import subspace as subspace_module
from lissnas.spaces.balls import Balls, ball_volume, distances
from lissnas.spaces.base import BoolArray
from lissnas.stages.shrink import shrink_stage
from tests.problems import problem_of

SPACE = ChoiceSpace("made_up", [4] * 8)
EVERY = SPACE.enumerate()
WORTH = np.random.default_rng(0).normal(size=(20, 4))


def truth(archs: Archs) -> FloatArray:
    n = archs.shape[1]
    return np.asarray(WORTH[np.arange(n), archs].sum(axis=1) + (archs[:, 1:] == archs[:, :-1]) @ WORTH[1:n, 0])


SCORER = SurrogateScorer(truth)
RANKED = EVERY[np.argsort(-truth(EVERY), kind="stable")]


class Rare(ChoiceSpace):
    """A space in which one of about a hundred rows is valid."""

    def valid(self, rows: Archs) -> BoolArray:
        return np.asarray(rows.sum(axis=1) % 101 == 7)


# -- centres ---------------------------------------------------------------------------------------
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(0, 4), st.integers(1, 50))
@settings(max_examples=60)
def test_centres_match_a_sequential_selection(seed: int, n: int, radius: int, block: int) -> None:
    rows = SPACE.sample_distinct(120, np.random.default_rng(seed))
    expected: list[int] = []
    for i, row in enumerate(rows):
        if len(expected) < n and all((row != rows[j]).sum() > radius for j in expected):
            expected.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover_module, "BLOCK", block)
        assert spaced(SPACE, rows, n, radius).tolist() == expected


def test_centres_of_few_rows() -> None:
    assert spaced(SPACE, RANKED[:0], 5, 1).tolist() == []
    assert spaced(SPACE, RANKED[:1], 5, 8).tolist() == [0]
    assert spaced(SPACE, np.repeat(RANKED[:1], 9, axis=0), 5, 0).tolist() == [0]


def test_centres_are_separate_in_all_equivalent_forms() -> None:
    space = spaces.get("nas_bench_macro")
    assert isinstance(space, ChoiceSpace)
    rows = space.sample_distinct(400, np.random.default_rng(0))
    chosen = rows[spaced(space, rows, 400, 2)]
    a, b = np.triu_indices(len(chosen), 1)
    assert space.distance(chosen[a], chosen[b]).min() > 2


# -- the union -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target",
    [500, 2_000, pytest.param(8_000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.slow)],
)
def test_cover_has_the_target_size_and_better_members(target: int) -> None:
    found = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    inside = found.contains(EVERY)
    assert found.size == (inside.sum(),) * 3
    assert abs(inside.sum() / target - 1) < 0.1
    assert len(set(found.radii.tolist())) == 1
    assert len(np.unique(SPACE.key(found.centres))) == len(found.centres)
    assert truth(EVERY[inside]).mean() > truth(EVERY).mean() + 0.5 * truth(EVERY).std() * (1 - target / len(EVERY))
    assert inside[SPACE.key(RANKED[:1]).astype(np.int64)].all()
    repeated = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    assert (repeated.centres == found.centres).all()


def test_radius_is_the_best_of_the_feasible_ones() -> None:
    target = 8_000
    found = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    means = {}
    for radius in range(1, 8):
        if 16 <= np.ceil(target / ball_volume(SPACE, radius)) <= 10_000:
            union = cover_module._sized(SPACE, RANKED[:4_000], radius, target)
            means[radius] = truth(EVERY[union.contains(EVERY)]).mean()
    assert len(means) >= 2
    assert means[int(found.radii[0])] > max(means.values()) - 0.1


def test_sampling_overlapping_balls_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cover(SPACE, RANKED[:400], 1_500, SCORER, np.random.default_rng(0), 1)
    assert found.volume > 1.3 * found.size.value
    members = np.flatnonzero(found.contains(EVERY))
    keys = SPACE.key(found.sample(60_000, np.random.default_rng(1))).astype(np.int64)
    count = np.bincount(np.searchsorted(members, keys), minlength=len(members))
    assert np.isin(keys, members).all()
    assert chisquare(count).pvalue > 1e-4
    monkeypatch.setattr(balls_module, "LISTABLE", 0)
    measured = Balls(SPACE, found.centres, found.radii).size
    assert measured.low <= len(members) <= measured.high
    assert not measured.exact


@pytest.mark.parametrize("seed", range(20))
def test_size_interval_contains_the_exact_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balls_module, "LISTABLE", 0)
    monkeypatch.setattr(balls_module, "MAX_DRAWS", 2_000)
    rng = np.random.default_rng(seed)
    near = SPACE.mutate(np.repeat(RANKED[:1], 30, axis=0), rng.integers(0, 4, 30), rng)
    union = Balls(SPACE, near, rng.integers(0, 4, 30))
    exact = int(union.contains(EVERY).sum())
    assert union.size.low <= exact <= union.size.high
    assert union.size.high <= union.volume


@pytest.mark.parametrize("space", [spaces.get("nasbench101"), spaces.get("nasbench301")])
def test_space_without_balls_is_refused(space: Any) -> None:
    with pytest.raises(UserError, match=f"target_size: 20,000,000 networks of {space.name} can't be listed"):
        cover(space, space.sample(10, np.random.default_rng(0)), 20_000_000, SCORER, np.random.default_rng(0), 1)


def test_target_that_balls_can_not_reach_is_refused() -> None:
    with pytest.raises(UserError, match=r"can't be made of 16 to 10,000 balls of made_up, which hold 25, 277"):
        cover(SPACE, RANKED[:1_000], 15, SCORER, np.random.default_rng(0), 1)


def test_target_in_a_sparse_space_is_reached_or_refused() -> None:
    space = Rare("rare", [4] * 10)
    every = space.enumerate()
    ranked = every[np.argsort(-truth(every), kind="stable")]
    target = len(every) // 3
    try:
        found = cover(space, ranked, target, SCORER, np.random.default_rng(0), 1)
    except UserError:
        return
    assert 0.5 < found.size.value / target < 1.5


# -- balls -----------------------------------------------------------------------------------------
def test_balls_keep_fixed_positions() -> None:
    class Fixed(ChoiceSpace):
        fixed = (0, 2)

    space = Fixed("fixed", [3, 3, 3, 3])
    assert [ball_volume(space, r) for r in range(5)] == [1, 5, 9, 9, 9]
    union = Balls(space, np.array([[1, 1, 1, 1]], np.int8), np.array([4]))
    rows = union.sample(500, np.random.default_rng(0))
    assert (rows[:, [0, 2]] == 1).all()
    assert len(np.unique(space.key(rows))) == 9


def test_invalid_centre_is_refused() -> None:
    space = Rare("rare", [4] * 12)
    with pytest.raises(UserError):
        Balls(space, np.zeros((1, 12), np.int8), np.array([0]))


def test_centre_out_of_range_is_refused() -> None:
    with pytest.raises(UserError):
        Balls(SPACE, np.full((1, 8), 9, np.int8), np.array([1]))


def test_ball_with_the_maximum_radius_is_the_space() -> None:
    for radius in (8, 50):
        union = Balls(SPACE, RANKED[:2], np.full(2, radius))
        assert union.contains(EVERY).all()
        assert union.size.value == len(EVERY)
        assert len(union.sample(10, np.random.default_rng(0))) == 10
    assert len(union.sample(0, np.random.default_rng(0))) == 0


# -- shrink ----------------------------------------------------------------------------------------
@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit listing to 5,000 architectures."""
    for module in (strategies, balls_module, subspace_module):
        monkeypatch.setattr(module, "LISTABLE", 5_000)
    monkeypatch.setattr(strategies, "SEARCH_SIZE", 1_500)
    monkeypatch.setattr(balls_module, "MAX_DRAWS", 20_000)
    monkeypatch.setattr(balls_module, "MAX_PAIRS", 1 << 23)


HUGE = ChoiceSpace("huge", [4] * 20)


@pytest.fixture
def shrunk(unlisted: None) -> Shrunk:
    archs = HUGE.sample_distinct(200, np.random.default_rng(0))
    return shrink(problem_of(HUGE, 1_000_000, labels=(archs, truth(archs))))


def test_balls_are_saved_and_loaded(shrunk: Shrunk) -> None:
    files = files_of(shrunk)
    table = pq.read_table(io.BytesIO(files["subspace.parquet"]))
    assert table.column_names == ["arch", "predicted", "radius"]
    assert shrunk.balls is not None
    loaded = Balls(HUGE, HUGE.parse(table["arch"].to_pylist()), table["radius"].to_numpy())
    assert loaded.size == shrunk.balls.size
    centres, edits = (
        np.repeat(loaded.centres[np.arange(50) % len(loaded.centres)], 40, axis=0),
        np.tile(np.arange(8), 250),
    )
    probe = HUGE.mutate(centres, edits, np.random.default_rng(0))
    inside = shrunk.subspace.contains(probe)
    assert (loaded.contains(probe) == inside).all()
    assert 0.1 < inside.mean() < 1
    near = distances(probe, loaded.centres) <= loaded.radii
    assert (near.any(axis=1) == inside).all()

    about, metrics = json.loads(files["subspace.json"]), json.loads(files["metrics.json"])
    assert about["kind"] == "balls"
    assert about["size"] == metrics["size"] == shrunk.size == loaded.size.value
    assert abs(about["size"] / 1_000_000 - 1) < 0.1
    assert about["size_exact"] or about["size_low"] <= about["size"] <= about["size_high"]
    assert metrics["reduction"] == pytest.approx(4**20 / about["size"])
    assert metrics["mean_predicted"] > metrics["full_mean_predicted"]
    assert metrics["p_good"] > 0.5
    assert metrics["tau_low"] <= metrics["tau"] <= metrics["tau_high"]
    rows = shrunk.subspace.sample(500, np.random.default_rng(0))
    assert shrunk.subspace.contains(rows).all()
    assert truth(rows).mean() > truth(HUGE.sample(5_000, np.random.default_rng(0))).mean() + 3
    with pytest.raises(UserError, match="is not listed"):
        _ = shrunk.subspace.members


def test_resumed_shrink_to_balls_gives_the_same_bytes(unlisted: None, tmp_path: Path) -> None:
    problem = problem_of(HUGE, 12_000, scorer=truth)
    source, saved = problem.source, list[Any]()
    whole = files_of(shrink(problem, on_iteration=lambda s: saved.append(s.to_arrays())))
    state = State.from_arrays(HUGE, *saved[len(saved) // 2])
    assert files_of(shrink(replace(problem, threads=3), state=state)) == whole
    overrides = {"shrink.target_size": 12_000}
    outcome = shrink_stage(
        description.load_params(None, overrides), replace(source, point=1.0), 0, tmp_path / "out", threads=2
    )
    assert artifacts.verify(outcome.folder).keys() >= {"subspace.json", "subspace.parquet", "metrics.json"}
    assert outcome.metrics["size"] == json_size(whole)
    assert shrink_stage(description.load_params(None, overrides), source, 0, tmp_path / "out").reused


def json_size(files: dict[str, bytes]) -> int:
    return int(json.loads(files["metrics.json"])["size"])


def test_balls_are_evaluated_by_a_uniform_sample(shrunk: Shrunk) -> None:
    values = shrunk.sampled_values
    assert len(values) == shrunk_module.N_SAMPLED
    assert shrunk.balls is not None
    model = shrunk.state.predictor
    assert model is not None
    other = model.value(model.score(shrunk.balls.sample(10_000, np.random.default_rng(9)), 1))
    assert abs(values.mean() - other.mean()) < 5 * other.std() / 100
    metrics = metrics_of(shrunk)
    assert metrics["best_predicted"] <= metrics["full_best_predicted"] + np.ptp(values) * 100


@pytest.mark.parametrize(
    ("space", "target"),
    [
        (ChoiceSpace("wide", [120] * 3), 5_001),
        (spaces.get("nasbench301"), 20_000_000),
    ],
)
def test_unreachable_target_is_refused_before_any_query(unlisted: None, space: Space, target: int) -> None:
    def values(archs: Archs) -> FloatArray:
        raise AssertionError(f"{len(archs)} networks were queried")

    with pytest.raises(UserError, match="target_size"):
        shrink(problem_of(space, target, scorer=values))
