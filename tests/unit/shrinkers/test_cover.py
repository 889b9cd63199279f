"""Spaces too large to list, on ones small enough to list: balls round the best, exact in every count."""

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
    """One row in some hundred is a network."""

    def valid(self, rows: Archs) -> BoolArray:
        return np.asarray(rows.sum(axis=1) % 101 == 7)


# -- centres ---------------------------------------------------------------------------------------
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(0, 4), st.integers(1, 50))
@settings(max_examples=60)
def test_centres_are_those_of_one_look_after_the_other(seed: int, n: int, radius: int, block: int) -> None:
    rows = SPACE.sample_distinct(120, np.random.default_rng(seed))
    expected: list[int] = []
    for i, row in enumerate(rows):
        if len(expected) < n and all((row != rows[j]).sum() > radius for j in expected):
            expected.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover_module, "BLOCK", block)
        assert spaced(SPACE, rows, n, radius).tolist() == expected


def test_centres_of_next_to_nothing() -> None:
    assert spaced(SPACE, RANKED[:0], 5, 1).tolist() == []
    assert spaced(SPACE, RANKED[:1], 5, 8).tolist() == [0]
    assert spaced(SPACE, np.repeat(RANKED[:1], 9, axis=0), 5, 0).tolist() == [0]


def test_centres_are_apart_where_rows_are_the_same_network() -> None:
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
def test_a_cover_has_its_size_and_holds_the_better_ones(target: int) -> None:
    found = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    inside = found.contains(EVERY)
    assert found.size == (inside.sum(),) * 3
    assert abs(inside.sum() / target - 1) < 0.1
    assert len(set(found.radii.tolist())) == 1
    assert len(np.unique(SPACE.key(found.centres))) == len(found.centres)
    assert truth(EVERY[inside]).mean() > truth(EVERY).mean() + 0.5 * truth(EVERY).std() * (1 - target / len(EVERY))
    assert inside[SPACE.key(RANKED[:1]).astype(np.int64)].all()
    again = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    assert (again.centres == found.centres).all()


def test_the_radius_is_the_best_of_those_that_fit() -> None:
    target = 8_000
    found = cover(SPACE, RANKED[:4_000], target, SCORER, np.random.default_rng(0), 1)
    means = {}
    for radius in range(1, 8):
        if 16 <= np.ceil(target / ball_volume(SPACE, radius)) <= 10_000:
            union = cover_module._sized(SPACE, RANKED[:4_000], radius, target)
            means[radius] = truth(EVERY[union.contains(EVERY)]).mean()
    assert len(means) >= 2
    assert means[int(found.radii[0])] > max(means.values()) - 0.1


def test_sampling_a_cover_is_uniform_where_balls_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_the_interval_of_a_size_holds_however_balls_overlap(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balls_module, "LISTABLE", 0)
    monkeypatch.setattr(balls_module, "MOST_DRAWS", 2_000)
    rng = np.random.default_rng(seed)
    near = SPACE.mutate(np.repeat(RANKED[:1], 30, axis=0), rng.integers(0, 4, 30), rng)
    union = Balls(SPACE, near, rng.integers(0, 4, 30))
    exact = int(union.contains(EVERY).sum())
    assert union.size.low <= exact <= union.size.high
    assert union.size.high <= union.volume


@pytest.mark.parametrize("space", [spaces.get("nasbench101"), spaces.get("nasbench301")])
def test_a_space_without_balls_is_refused_by_name(space: Any) -> None:
    with pytest.raises(UserError, match=f"target_size: 20,000,000 networks of {space.name} can't be listed"):
        cover(space, space.sample(10, np.random.default_rng(0)), 20_000_000, SCORER, np.random.default_rng(0), 1)


def test_a_target_that_no_balls_make_is_refused_with_their_volumes() -> None:
    with pytest.raises(UserError, match=r"can't be made of 16 to 10,000 balls of made_up, which hold 25, 277"):
        cover(SPACE, RANKED[:1_000], 15, SCORER, np.random.default_rng(0), 1)


def test_where_rules_leave_few_rows_the_target_is_met_or_refused() -> None:
    space = Rare("rare", [4] * 10)
    every = space.enumerate()
    ranked = every[np.argsort(-truth(every), kind="stable")]
    target = len(every) // 3
    try:
        found = cover(space, ranked, target, SCORER, np.random.default_rng(0), 1)
    except UserError:
        return
    assert 0.5 < found.size.value / target < 1.5


# -- what a ball is --------------------------------------------------------------------------------
def test_balls_of_fixed_positions_never_leave_them() -> None:
    class Held(ChoiceSpace):
        fixed = (0, 2)

    space = Held("held", [3, 3, 3, 3])
    assert [ball_volume(space, r) for r in range(5)] == [1, 5, 9, 9, 9]
    union = Balls(space, np.array([[1, 1, 1, 1]], np.int8), np.array([4]))
    rows = union.sample(500, np.random.default_rng(0))
    assert (rows[:, [0, 2]] == 1).all()
    assert len(np.unique(space.key(rows))) == 9


def test_a_centre_that_is_no_network_is_refused() -> None:
    space = Rare("rare", [4] * 12)
    with pytest.raises(UserError):
        Balls(space, np.zeros((1, 12), np.int8), np.array([0]))


def test_a_centre_out_of_range_is_refused() -> None:
    with pytest.raises(UserError):
        Balls(SPACE, np.full((1, 8), 9, np.int8), np.array([1]))


def test_a_ball_as_large_as_the_space_is_the_space() -> None:
    for radius in (8, 50):
        union = Balls(SPACE, RANKED[:2], np.full(2, radius))
        assert union.contains(EVERY).all()
        assert union.size.value == len(EVERY)
        assert len(union.sample(10, np.random.default_rng(0))) == 10
    assert len(union.sample(0, np.random.default_rng(0))) == 0


# -- the shrink ------------------------------------------------------------------------------------
@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces of more than 5,000 networks can't be listed."""
    for module in (strategies, balls_module, subspace_module):
        monkeypatch.setattr(module, "LISTABLE", 5_000)
    monkeypatch.setattr(strategies, "SEARCH_SIZE", 1_500)
    monkeypatch.setattr(balls_module, "MOST_DRAWS", 20_000)
    monkeypatch.setattr(balls_module, "DRAWS", 1 << 23)


HUGE = ChoiceSpace("huge", [4] * 20)


@pytest.fixture
def shrunk(unlisted: None) -> Shrunk:
    archs = HUGE.sample_distinct(200, np.random.default_rng(0))
    return shrink(problem_of(HUGE, 1_000_000, labels=(archs, truth(archs))))


def test_files_of_balls_read_back_to_the_same_space(shrunk: Shrunk) -> None:
    files = files_of(shrunk)
    table = pq.read_table(io.BytesIO(files["subspace.parquet"]))
    assert table.column_names == ["arch", "predicted", "radius"]
    assert shrunk.balls is not None
    back = Balls(HUGE, HUGE.parse(table["arch"].to_pylist()), table["radius"].to_numpy())
    assert back.size == shrunk.balls.size
    probe = HUGE.mutate(np.repeat(back.centres[:50], 40, axis=0), np.tile(np.arange(8), 250), np.random.default_rng(0))
    inside = shrunk.subspace.contains(probe)
    assert (back.contains(probe) == inside).all()
    assert 0.1 < inside.mean() < 1
    near = distances(probe, back.centres) <= back.radii
    assert (near.any(axis=1) == inside).all()

    about, metrics = json.loads(files["subspace.json"]), json.loads(files["metrics.json"])
    assert about["kind"] == "balls"
    assert about["size"] == metrics["size"] == shrunk.size == back.size.value
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


def test_balls_are_the_same_bytes_after_an_interruption_and_with_threads(unlisted: None, tmp_path: Path) -> None:
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


def test_a_space_is_judged_by_a_sample_that_is_uniform(shrunk: Shrunk) -> None:
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
def test_a_target_out_of_reach_is_refused_before_anything_is_asked(unlisted: None, space: Space, target: int) -> None:
    def values(archs: Archs) -> FloatArray:
        raise AssertionError(f"{len(archs)} networks were asked about")

    with pytest.raises(UserError, match="target_size"):
        shrink(problem_of(space, target, scorer=values))
