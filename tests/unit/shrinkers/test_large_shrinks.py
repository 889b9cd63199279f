"""Shrinks in batches and in limited memory, from given labels, with scorers, and to large targets."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.config import shrink_params
from lissnas.core.errors import UserError
from lissnas.predictors.accuracy import Predictor, tau_interval
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import description, strategies
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers import problem as problems
from lissnas.shrinkers.archive import FAILED
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import WEAK_TAU, files_of, metrics_of
from lissnas.shrinkers.selection import select_top
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import State
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from tests.problems import problem_of

SPACE = ChoiceSpace("made_up", [4] * 10)
WORTH = np.random.default_rng(0).normal(size=(10, 4))
Bound = Callable[[int, int], None]


def truth(archs: Archs) -> FloatArray:
    """Return the sum of a worth per choice and one per pair of equal adjacent choices."""
    pairs = (archs[:, 1:] == archs[:, :-1]) * WORTH[1:, 0]
    return np.asarray(WORTH[np.arange(10), archs].sum(axis=1) + pairs.sum(axis=1))


def make(space: Space = SPACE, target: int | None = 600, **more: Any) -> Problem:
    return problem_of(space, target, **more)


def given(n: int, seed: int = 1) -> tuple[Archs, FloatArray]:
    archs = SPACE.sample_distinct(n, np.random.default_rng(seed))
    return archs, truth(archs)


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Bound:
    """Return a function that sets the batch size of neighbors and the number of rows in memory."""

    def set_to(part: int, rows: int) -> None:
        monkeypatch.setattr(problems, "PART", part)
        monkeypatch.setattr(problems, "rows_in_memory", lambda memory, length: rows)

    return set_to


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "oracle": lambda: make(oracle=truth, shrink__labels=150),
    "labels": lambda: make(labels=given(150)),
    "labels and oracle": lambda: make(labels=given(60), oracle=truth, shrink__labels=150),
    "scorer": lambda: make(scorer=truth),
}
FEW: dict[str, Any] = {"shrink__paper__first_size": 1_500, "shrink__paper__max_iterations": 4}
PAPER: dict[str, Callable[[], Problem]] = {
    "paper oracle": lambda: make(oracle=truth, target=None, shrink__variant="paper", shrink__labels=150, **FEW)
}


def slow_except(fast: str, kinds: Iterable[str]) -> list[Any]:
    """Return kinds of problems as cases, marked slow except `fast` and the paper's."""
    unmarked = (fast, *PAPER)
    return [kind if kind in unmarked else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


def check(result: Shrunk) -> None:
    """Assert the invariants of a state, which do not depend on dropped rows."""
    state, space = result.state, result.problem.space
    assert len(np.unique(state.archive.keys)) == len(state.archive.rows)
    assert (space.key(state.archive.rows) == state.archive.keys).all()
    assert isinstance(space, ChoiceSpace)
    assert (
        space.distance(state.archive.rows[state.archive.parent], state.archive.rows) == state.archive.distance
    ).all()
    sampled = state.archive.distance == 0
    assert (state.archive.parent[sampled] == np.flatnonzero(sampled)).all()
    assert state.archive.expanded[state.archive.parent[~sampled]].all()
    labelled = state.archive.label_round >= 0
    assert (np.isfinite(state.archive.labels) == labelled).all()
    assert (state.archive.labels[labelled] == truth(state.archive.rows[labelled])).all()
    assert np.isfinite(state.archive.scores).all()
    assert state.predictor is not None
    scores = state.predictor.score(state.archive.rows, 1).astype(np.float32)
    assert (scores == state.archive.scores).all()


# -- batches ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [*PROBLEMS, *PAPER])
@pytest.mark.parametrize("part", [24, 1_000])
def test_batches_expand_every_seed_once(bounded: Bound, kind: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(part, 10**9)
    problem = {**PROBLEMS, **PAPER}[kind]()
    per_seed = problem.params.method.neighbors
    grown: list[tuple[int, int]] = []

    generate = method.generate_neighbors

    def record(state: State, given: Problem) -> State:
        after = generate(state, given)
        grown.append((after.expanding - state.expanding, len(after.archive.rows) - len(state.archive.rows)))
        parents = after.archive.parent[len(state.archive.rows) :]
        assert set(parents.tolist()) <= set(state.seeds[state.expanding : after.expanding].tolist())
        return after

    monkeypatch.setattr(method, "generate_neighbors", record)
    result = shrink(problem)
    check(result)
    assert max(seeds for seeds, _ in grown) <= max(1, part // per_seed)
    assert all(rows <= per_seed * seeds for seeds, rows in grown)
    total = sum(seeds for seeds, _ in grown)
    expanded = int(result.state.archive.expanded.sum())
    assert total == expanded if problem.params.variant == "elite" else total >= expanded


@pytest.mark.parametrize("kind", slow_except("oracle", [*PROBLEMS, *PAPER]))
def test_batches_find_an_equally_good_space(bounded: Bound, kind: str) -> None:
    problem = {**PROBLEMS, **PAPER}[kind]()
    whole = truth(shrink(problem).subspace.members)
    bounded(500, 10**9)
    parts = truth(shrink(problem).subspace.members)
    assert abs(whole.mean() - parts.mean()) < 0.15 * truth(SPACE.sample(5_000, np.random.default_rng(0))).std()


def test_paper_variant_collects_children_of_all_batches(bounded: Bound) -> None:
    bounded(100, 10**9)
    seen: list[State] = []
    shrink(PAPER["paper oracle"](), on_iteration=seen.append)
    for state in seen[1:]:
        neighbors = np.flatnonzero(np.isin(state.archive.parent, state.seeds) & (state.archive.distance > 0))
        fresh = neighbors[neighbors >= len(seen[state.iteration - 1].archive.rows)]
        assert set(fresh.tolist()) <= set(state.children.tolist())
        assert set(state.current.tolist()) == set(state.children.tolist()) | set(state.seeds.tolist())


# -- memory ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", PROBLEMS)
def test_dropped_rows_do_not_affect_the_others(bounded: Bound, kind: str) -> None:
    bounded(400, 2_400)
    problem = PROBLEMS[kind]()
    rows: list[int] = []
    result = shrink(problem, on_iteration=lambda state: rows.append(len(state.archive.rows)))
    check(result)
    assert result.state.forgotten > 500
    assert max(rows) <= 2_400 + 400
    assert len(result.members) == 600
    assert result.state.queries == len(result.state.archive.rows) + result.state.forgotten
    if (given_labels := problem.source.labels) is not None:
        archs, values = given_labels.archs, given_labels.values
        assert (result.state.archive.rows[: len(archs)] == archs).all()
        assert (result.state.archive.labels[: len(archs)] == values).all()
    assert result.state.records[-1]["seen"] == result.state.queries


@pytest.mark.parametrize("kind", slow_except("oracle", PROBLEMS))
def test_four_times_the_target_in_memory_is_enough(bounded: Bound, kind: str) -> None:
    problem = PROBLEMS[kind]()
    bounded(400, 10**9)
    whole = truth(shrink(problem).subspace.members)
    bounded(400, 2_400)  # four times the target
    limited = truth(shrink(problem).subspace.members)
    assert limited.mean() > whole.mean() - 0.1 * truth(SPACE.sample(5_000, np.random.default_rng(0))).std()


@pytest.mark.slow
def test_nasbench101_in_little_memory(bounded: Bound) -> None:
    """Rows for three times the target suffice: ±.002 to .01 percent points over three seeds."""
    table = benchmarks.get("nasbench101")
    params = shrink_params(description.load_params(None, {}), table.name, 0, table.space.size(), table.sha256)
    problem = Problem(Source.of(table), params, threads=1)
    bounded(12_000, 40_000)
    result = shrink(problem)
    values = table.look_up(result.state.archive.keys[result.members])
    assert result.state.forgotten > 10_000
    assert values.mean() > 93.26
    assert values.max() == table.best


def test_insufficient_memory_for_the_target_is_refused(bounded: Bound) -> None:
    problem = make(scorer=truth, target=3_000)
    bounded(600, 5_000)
    with pytest.raises(UserError, match="a target of 3,000 needs 9,000 at least"):
        shrink(problem)


def test_query_budget_includes_dropped_rows(bounded: Bound) -> None:
    bounded(400, 2_400)
    result = shrink(make(scorer=truth, shrink__max_queries=3_500))
    assert result.state.queries <= 3_500


def test_failed_labels_are_not_dropped(bounded: Bound) -> None:
    requested: list[int] = []

    def oracle(archs: Archs) -> FloatArray:
        keys = SPACE.key(archs)
        requested.extend(keys.tolist())
        return np.where(keys % np.uint64(2) == 0, np.nan, truth(archs))

    bounded(300, 1_600)
    result = shrink(make(oracle=oracle, target=400, shrink__labels=600))
    assert len(requested) == len(set(requested)) <= 600  # failed labels count towards the budget
    assert (result.state.archive.label_round == FAILED).sum() == sum(key % 2 == 0 for key in set(requested))


def test_reference_sample_is_kept(bounded: Bound) -> None:
    bounded(400, 2_400)
    problem = make(labels=given(150))
    first: list[Archs] = []
    result = shrink(problem, on_iteration=lambda state: first.append(state.archive.rows[state.reference]))
    assert all((rows == first[0]).all() for rows in first)
    assert len(first[0]) == min(len(result.state.uniform), 10_000) == 150
    assert result.state.uniform[0] == 150


def test_plateau_does_not_stop_the_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties are broken by index, so the best fifth of a small space is soon expanded; the larger one has new seeds."""
    monkeypatch.setattr(strategies, "SEARCH_SIZE", 1_000)
    monkeypatch.setattr(strategies, "MAX_FIRST", 500)
    space = ChoiceSpace("flat", [4] * 12)
    problem = make(space, target=40_000, shrink__elite__diversity=0.0)
    flat = SurrogateScorer(lambda archs: (archs[:, 0] == 0).astype(np.float64))
    assert shrink(replace(problem, fitted=flat)).size == 40_000


# -- interruption ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", slow_except("labels and oracle", [*PROBLEMS, *PAPER]))
def test_resumed_shrink_gives_the_same_bytes(bounded: Bound, kind: str) -> None:
    """In batches and limited memory; the state is saved to and loaded from a file."""
    bounded(400, 2_400)
    problem = {**PROBLEMS, **PAPER}[kind]()
    saved: list[tuple[bytes, dict[str, Any]]] = []

    def save(state: State) -> None:
        arrays, about = state.to_arrays()
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        saved.append((sink.getvalue(), about))

    whole = files_of(shrink(problem, on_iteration=save))
    for data, about in (saved[0], saved[len(saved) // 2], saved[-1]):
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            state = State.from_arrays(problem.space, dict(arrays), about)
        resumed = files_of(shrink(problem, state=state))
        assert [name for name in whole if whole[name] != resumed[name]] == []


@pytest.mark.parametrize("kind", slow_except("labels and oracle", PROBLEMS))
def test_bytes_do_not_depend_on_threads(bounded: Bound, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lissnas.predictors.accuracy.CHUNK", 100)  # so that there are several chunks
    bounded(400, 2_400)
    problem = PROBLEMS[kind]()
    one, three = (files_of(shrink(replace(problem, threads=n))) for n in (1, 3))
    assert one == three


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_scores_do_not_depend_on_chunks_and_threads(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    archs, values = given(200)
    settings = description.load_params(None, {}).predictor
    model = Predictor.fit(SPACE, archs, values, settings, 0, 1)
    more = SPACE.sample(500, np.random.default_rng(5))
    expected = model.score(more, 1)
    before = model.dump()
    monkeypatch.setattr("lissnas.predictors.accuracy.CHUNK", chunk)
    for threads in (0, 1, 2, 5):
        assert (model.score(more, threads) == expected).all()
        assert model.score(more[:0], threads).shape == (0,)
    assert model.dump() == before
    assert Predictor.fit(SPACE, archs, values, settings, 0, 3).dump() == before


# -- given labels ----------------------------------------------------------------------------------
def test_given_labels_are_used_without_requests() -> None:
    problem = make(labels=given(150))
    result = shrink(problem)
    state = result.state
    assert (state.given, state.n_labels, state.rounds) == (150, 150, 1)
    assert (state.archive.label_round[150:] == -1).all()
    assert state.queries == len(state.archive.rows)
    assert len(state.uniform) == 150
    assert truth(result.subspace.members).mean() > np.quantile(
        truth(SPACE.sample(5_000, np.random.default_rng(0))), 0.9
    )


def test_given_labels_count_towards_the_label_budget() -> None:
    requested: list[int] = []

    def oracle(archs: Archs) -> FloatArray:
        requested.extend(SPACE.key(archs).tolist())
        return truth(archs)

    labels = given(60)
    result = shrink(make(labels=labels, oracle=oracle, shrink__labels=150))
    assert result.state.n_labels == 150
    assert len(requested) == len(set(requested)) == 90
    assert not set(requested) & set(SPACE.key(labels[0]).tolist())
    labelled = result.state.archive.label_round >= 0
    assert np.bincount(result.state.archive.label_round[labelled]).tolist() == [60, *[15] * 6]


@pytest.mark.parametrize("budget", [60, 100])
def test_oracle_is_not_queried_if_labels_suffice(budget: int) -> None:
    def oracle(archs: Archs) -> FloatArray:
        raise AssertionError("queried")

    assert shrink(make(labels=given(100), oracle=oracle, shrink__labels=budget)).state.n_labels == 100


@pytest.mark.parametrize(
    "missing",
    [
        0,
        1,
        5,
    ],
)
def test_labels_of_all_or_almost_all_of_a_small_space(missing: int) -> None:
    space = ChoiceSpace("small", [3] * 5)
    archs = space.enumerate()[missing:]
    values = archs.sum(axis=1) + space.key(archs) % np.uint64(7) / 10
    problem = make(space, 40, labels=(archs, values))
    result = shrink(problem)
    assert len(result.members) == 40
    assert len(result.state.archive.rows) <= space.size()
    metrics = metrics_of(result)
    assert metrics["labels"] == 243 - missing
    assert metrics["tau"] > 0.5
    assert metrics["mean_predicted"] > metrics["full_mean_predicted"]
    if not missing:
        assert result.state.queries == 243


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_given_labels_that_are_not_finite_are_refused(bad: float) -> None:
    archs, values = given(50)
    values[7] = bad
    with pytest.raises(UserError, match=f"row 7 is {bad}"):
        shrink(make(labels=(archs, values)))


def test_labels_with_ties() -> None:
    archs, values = given(200)
    problem = make(labels=(archs, np.round(values / 8)))
    result = shrink(problem)
    assert len(result.members) == 600
    metrics = metrics_of(result)
    assert -1 <= metrics["tau_low"] <= metrics["tau"] <= metrics["tau_high"] <= 1
    assert truth(result.subspace.members).mean() > truth(SPACE.sample(5_000, np.random.default_rng(0))).mean() + 2


def test_equal_predictions_are_refused() -> None:
    archs, _ = given(20)
    with pytest.raises(UserError, match="the predictor learned nothing from 20 labels: all its predictions are 0"):
        shrink(make(labels=(archs, np.where(np.arange(20) == 3, 1.0, 0.0))))


def test_full_space_is_represented_by_a_uniform_sample() -> None:
    """Also if the given labels are those of the better half of a small space."""
    space = ChoiceSpace("small", [3] * 5)
    archs = space.enumerate()
    values = archs.sum(axis=1) + space.key(archs) % np.uint64(7) / 10
    upper = values > np.median(values)
    state = shrink(make(space, 40, labels=(archs[upper], values[upper]), shrink__elite__first_size=100)).state
    reference = values[np.searchsorted(space.key(archs), state.archive.keys[state.reference])]
    assert abs(reference.mean() - values.mean()) < values.std() / 2


@pytest.mark.parametrize("seed", range(3))
def test_predictor_of_noise_is_reported_as_weak(seed: int) -> None:
    archs, values = given(100, seed)
    noise = np.random.default_rng(seed).normal(size=100)
    reported = []
    for labels in (values, noise):
        problem = make(labels=(archs, labels), shrink__elite__max_iterations=2)
        metrics = metrics_of(shrink(problem))
        reported.append(any("too weak to trust" in note for note in metrics["notes"]))
        assert reported[-1] == (metrics["tau_low"] < WEAK_TAU)
    assert reported == [False, True]


def test_out_of_fold_scores_exclude_the_fold() -> None:
    """Random labels are fitted in sample, but can't be predicted out of fold."""
    archs, _ = given(100)
    settings = description.load_params(None, {}).predictor
    noise = np.random.default_rng(0).normal(size=100)
    model = Predictor.fit(SPACE, archs, noise, settings, 0, 1)
    scores = model.out_of_fold
    assert scores is not None
    assert (scores == Predictor.fit(SPACE, archs, noise, settings, 0, 3).out_of_fold).all()
    assert np.corrcoef(model.score(archs, 1), noise)[0, 1] > 0.6
    assert abs(np.corrcoef(scores, noise)[0, 1]) < 0.35


@pytest.mark.parametrize("n", [20, 100, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_interval_of_tau_has_its_nominal_coverage(n: int, rho: float) -> None:
    rng, covered, runs = np.random.default_rng(0), 0, 400
    real = 2 / np.pi * np.arcsin(rho)
    for _ in range(runs):
        x = rng.normal(size=n)
        _, low, high = tau_interval(x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n))
        covered += low <= real <= high
    assert 0.92 <= covered / runs <= 0.985


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("sign", [1, -1, 0])
def test_interval_of_tau_of_few_values(n: int, sign: int) -> None:
    x = np.arange(n, dtype=float)
    tau, low, high = tau_interval(x, sign * x)
    assert tau == pytest.approx(sign)
    assert -1 <= low <= tau + 1e-7
    assert tau - 1e-7 <= high <= 1


# -- growth ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", slow_except("labels and oracle", PROBLEMS))
def test_space_grows_to_a_large_target(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    problem = PROBLEMS[kind]()
    problem = replace(problem, params=problem.params.model_copy(update={"target_size": 20_000}))
    direct = shrink(problem)
    monkeypatch.setattr(strategies, "SEARCH_SIZE", 1_000)
    monkeypatch.setattr(strategies, "MAX_FIRST", 500)
    grown = shrink(problem)
    sizes = [r["size"] for r in grown.state.records]
    assert all(a <= b for a, b in itertools.pairwise(sizes[1:]))
    assert sizes[0] == 500 + grown.state.given
    assert sizes[-1] == len(grown.members) == 20_000
    assert grown.state.queries < direct.state.queries
    spread = truth(SPACE.sample(5_000, np.random.default_rng(0))).std()
    assert truth(grown.subspace.members).mean() > truth(direct.subspace.members).mean() - 0.1 * spread


@pytest.mark.parametrize(
    "limit", [{"shrink__elite__max_iterations": 1, "shrink__elite__neighbors": 2}, {"shrink__max_queries": 3_000}]
)
def test_missed_target_is_reported(limit: dict[str, Any]) -> None:
    problem = make(scorer=truth, target=20_000, shrink__elite__first_size=1_000, **limit)
    result = shrink(problem)
    assert result.size < 20_000
    assert any("target" in note for note in metrics_of(result)["notes"])


@pytest.mark.parametrize("diversity", [0.0, 0.05, 1.0])
def test_members_are_the_best_of_all_rows(bounded: Bound, diversity: float) -> None:
    """The final space is selected from all rows in memory."""
    bounded(400, 2_400)
    result = shrink(make(scorer=truth, shrink__elite__diversity=diversity))
    state = result.state
    weight = state.strata.weight if state.strata is not None else np.ones(1)
    chosen = select_top(state.archive.scores, state.archive.stratum, weight, 600, diversity, strict=True)
    assert (chosen == result.members).all()
