"""Studies: suggestions, stored state, invalid input, and the gain over uniform labels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lissnas import benchmarks, spaces
from lissnas.benchmarks import Benchmark
from lissnas.config import Goal, Params
from lissnas.core.errors import ConfigError, InvalidArchitecture, UserError
from lissnas.core.rng import stream
from lissnas.oracles.label_table import Labels
from lissnas.shrinkers import labelling
from lissnas.shrinkers.labelling import (
    INFORMATIVE,
    LIKELY_BEST,
    SEARCH,
    UNIFORM,
    Batch,
    Policy,
    no_labels,
    shrink_by_labels,
    suggest,
)
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import parse_space
from lissnas.study import Study

MACRO = benchmarks.get("nas_bench_macro")
SMALL = parse_space(
    """\
name: small
metric: {name: ms, direction: minimize}
positions:
  - {name: a, choices: [1, 2, 3, 4]}
  - {name: b, choices: [1, 2, 3, 4]}
  - {name: c, choices: [1, 2, 3, 4]}
equivalent:
  - {exchange: [[a], [b]]}
""",
    "space.yaml",
)
"""40 networks without costs; the metric is minimized."""


def labelled(space: Space, rows: Archs, values: FloatArray) -> Labels:
    order = np.argsort(space.key(rows))
    return Labels(rows[order], values[order], np.ones(len(rows), np.int64), "value", {})


def ms(names: list[str]) -> list[float]:
    return [float(sum(int(x) ** 2 for x in name.split("|"))) for name in names]


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(predictor__trees=30)


@pytest.fixture(scope="module")
def first() -> Labels:
    rows = MACRO.space.sample_distinct(60, stream(0, "first"))
    return labelled(MACRO.space, rows, MACRO(rows))


# -- suggestions -------------------------------------------------------------------------------------
def test_few_labels_give_uniform_suggestions(quick: Params) -> None:
    space = MACRO.space
    quick = quick.model_copy(update={"benchmarks": {}})  # else the budget is 300
    rows = space.sample_distinct(39, stream(1, "few"))
    few = labelled(space, rows, MACRO(rows))
    assert set(suggest(space, None, 10, quick).kinds) == {UNIFORM}
    assert set(suggest(space, few, 1_000, quick, goal="space").kinds) == {UNIFORM}  # uniform share: a quarter
    assert UNIFORM not in suggest(space, few, 30, quick, goal="space").kinds
    assert set(suggest(space, few, 10, quick).kinds) == {UNIFORM}  # 40 labels
    assert set(suggest(space, few, 10, quick, goal="network").kinds) == {SEARCH}  # 20 labels
    nineteen = labelled(space, rows[:19], MACRO(rows[:19]))
    same = labelled(space, rows, np.full(39, 90.0))
    goals: tuple[Goal, ...] = ("space", "network", "both")
    for goal in goals:
        assert set(suggest(space, nineteen, 1, quick, goal=goal).kinds) == {UNIFORM}
        assert set(suggest(space, same, 5, quick, goal=goal).kinds) == {UNIFORM}


def test_label_budget_sets_the_uniform_share(make_params: Callable[..., Params], first: Labels) -> None:
    space = spaces.get("transnas_micro")
    table = benchmarks.get("transnas_micro/jigsaw")
    rows = space.sample_distinct(60, stream(0, "first"))
    for budget, uniform in ((241, True), (240, False)):
        params = make_params(shrink__labels=budget, predictor__trees=30)
        batch = suggest(space, labelled(space, rows, table(rows)), 5, params, goal="space")
        assert (set(batch.kinds) == {UNIFORM}) == uniform
    few = labelled(space, rows[:30], table(rows[:30]))
    for budget, uniform in ((301, True), (300, False)):  # a tenth
        batch = suggest(space, few, 5, make_params(shrink__labels=budget, predictor__trees=30))
        assert (set(batch.kinds) == {UNIFORM}) == uniform


def test_batch_mixes_new_networks_of_the_shrunk_space(make_params: Callable[..., Params], first: Labels) -> None:
    space, params = MACRO.space, make_params(shrink__labels=60)
    batch = suggest(space, first, 50, params, goal="space")
    keys = space.key(batch.archs)
    assert len(np.unique(keys)) == len(batch) == 50
    assert not np.isin(keys, space.key(first.archs)).any()
    assert batch.names == space.format(batch.archs)
    assert [batch.kinds.count(kind) for kind in (LIKELY_BEST, INFORMATIVE, UNIFORM)] == [10, 40, 0]
    assert batch.describe() == "50 networks: 10 likely best, 40 informative"
    result = shrink_by_labels(space, first, params, 0)
    kinds = np.array(batch.kinds)
    inside = result.subspace.contains(batch.archs)
    assert inside[kinds == LIKELY_BEST].all()
    assert 10 < inside[kinds == INFORMATIVE].sum() < 35  # from a space twice as large, without labelled networks
    assert result.state.predictor is not None
    scores = result.state.predictor.score(batch.archs)
    assert scores[kinds == LIKELY_BEST].mean() > scores[kinds == INFORMATIVE].mean()
    assert MACRO(batch.archs).mean() > MACRO.values.mean() + 0.5 * MACRO.values.std()
    # Stratified: at least as many strata as random members of the same space.
    assert result.state.strata is not None
    filled = len(np.unique(result.state.strata.of_each(space, batch.archs)))
    sampled = [result.subspace.sample(50, np.random.default_rng(i)) for i in range(9)]
    usual = [len(np.unique(result.state.strata.of_each(space, rows))) for rows in sampled]
    assert filled >= np.median(usual)


def test_suggestions_depend_only_on_labels_and_seed(quick: Params, first: Labels) -> None:
    space = MACRO.space
    quick = quick.model_copy(update={"benchmarks": {}})
    for goal, kind in (("space", LIKELY_BEST), ("both", SEARCH)):
        a, b = (suggest(space, first, 20, quick, seed=3, threads=t, goal=goal) for t in (1, 2))  # type: ignore[arg-type]
        assert (a.archs.tobytes(), a.kinds) == (b.archs.tobytes(), b.kinds)
        assert kind in a.kinds
    assert suggest(space, first, 20, quick, seed=4).names != a.names
    others = {suggest(space, None, 20, quick, seed=s).archs.tobytes() for s in range(3)}
    assert len(others) == 3


def test_batches_of_one_give_the_same_mix(quick: Params, tmp_path: Path) -> None:
    rows = MACRO.space.sample_distinct(60, stream(0, "first"))
    for goal, expected in (("space", {LIKELY_BEST: 4, INFORMATIVE: 16}), ("both", {SEARCH: 10, INFORMATIVE: 10})):
        params = quick.model_copy(update={"benchmarks": {}})
        study = Study.open(tmp_path / goal, MACRO.space, params=params, goal=goal)  # type: ignore[arg-type]
        study.tell(rows, MACRO(rows))
        assert Counter(study.ask(1).kinds[0] for _ in range(20)) == expected
        assert len(set(study.pending)) == 20


# -- stored state ------------------------------------------------------------------------------------
def test_ask_and_tell_until_all_networks_are_labelled(quick: Params, tmp_path: Path) -> None:
    study = Study.open(tmp_path / "s", SMALL, params=quick)
    requested: list[str] = []
    with pytest.raises(UserError, match="no network of small has a value yet"):
        study.best  # noqa: B018
    with pytest.raises(UserError, match="0 networks of small have a label, at least 20 are needed"):
        study.shrunk()
    while len(requested) < SMALL.size():
        batch = study.ask(6)
        assert study.pending == sorted(batch.names, key=study.pending.index)
        assert not set(batch.names) & set(requested)
        requested += batch.names
        study.tell(batch.names, ms(batch.names))
        assert study.pending == []
    assert len(batch) == 4
    with pytest.raises(UserError, match=r"every network of small is labelled$"):
        study.ask(1)
    assert study.best[2:] == ("1|1|1", 3.0)
    assert study.best.name in ("1|1|1", "1|1|2", "1|2|1")
    assert 3 <= study.best.value < 10
    assert study.labels.negated
    assert study.labels.values.max() == -3
    best = study.shrunk()
    assert best.size() == 10
    assert best.contains(SMALL.parse(["1|1|1"])).all()


def test_ask_is_refused_while_the_remaining_networks_are_pending(quick: Params, tmp_path: Path) -> None:
    study = Study.open(tmp_path / "s", SMALL, params=quick)
    batch = study.ask(100)
    assert len(batch) == 40
    study.tell(batch.names[:3], [1.0, 2.0, np.nan])
    with pytest.raises(UserError, match=r"or requested \(37 wait for a label, 1 failed\)"):
        study.ask(1)
    header, *lines = study.path.read_text().splitlines()
    study.path.write_text("\n".join([header, *(line for line in lines if line.endswith(("ok", "failed")))]) + "\n")
    assert sorted(study.ask(100).names) == sorted(batch.names[3:])


def test_reopened_study_resumes(quick: Params, tmp_path: Path) -> None:
    def run(folder: Path, reopen: bool) -> list[list[str]]:
        names = []
        study = Study.open(folder, MACRO.space, 5, quick)
        for n in (30, 7, 5):
            study = Study.open(folder, MACRO.space, 5, quick) if reopen else study
            batch = study.ask(n)
            names.append(batch.names)
            study = Study.open(folder, MACRO.space, 5, quick) if reopen else study
            study.tell(batch.archs[2:], MACRO(batch.archs[2:]))
        assert study.pending == [name for part in names for name in part[:2]]
        return names

    assert run(tmp_path / "a", False) == run(tmp_path / "b", True)
    assert (tmp_path / "a" / "labels.csv").read_bytes() == (tmp_path / "b" / "labels.csv").read_bytes()


def test_order_of_rows_does_not_change_suggestions(quick: Params, tmp_path: Path) -> None:
    study = Study.open(tmp_path / "a", MACRO.space, params=quick.model_copy(update={"benchmarks": {}}))
    rows = MACRO.space.sample_distinct(40, stream(0, "first"))
    study.tell(rows, MACRO(rows))
    header, *lines = (tmp_path / "a" / "labels.csv").read_text().splitlines()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "labels.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    other = Study.open(tmp_path / "b", MACRO.space, params=quick.model_copy(update={"benchmarks": {}}))
    a, b = study.ask(10), other.ask(10)
    assert a.names == b.names
    assert SEARCH in a.kinds


def test_space_is_shrunk_again_when_labels_grew_by_a_quarter(quick: Params, first: Labels) -> None:
    policy = Policy(MACRO.space, quick.model_copy(update={"benchmarks": {}}), "both")
    sizes = []

    def stop(labels: Labels, size: int | None = None) -> Shrunk:
        sizes.append(len(labels.values))
        raise LookupError

    policy.shrunk = stop  # type: ignore[method-assign]
    ordered = replace(first, order=np.arange(60))
    for n in (40, 49, 50, 60):
        with pytest.raises(LookupError):
            policy.next(replace(ordered.first(n), order=np.arange(n)), 10)
    with pytest.raises(LookupError):
        policy.next(first, 10)  # in an unknown order: all of them
    assert sizes == [40, 40, 50, 50, 60]


def test_search_avoids_failures_and_pending(quick: Params, first: Labels) -> None:
    """A search proposes fewer networks like those that failed, and never those that wait for a label."""
    space = MACRO.space
    every = space.enumerate()
    deep = every[(every == 2).sum(axis=1) >= 5]
    failed = deep[np.random.default_rng(0).permutation(len(deep))[:40]]
    few = replace(first, unlabelled={"failed": failed, "empty": deep[:5]})
    policy = Policy(space, quick.model_copy(update={"benchmarks": {}}), "network")
    before, after = (policy.next(labels, 40).archs for labels in (first, few))
    assert (after == 2).sum(axis=1).mean() < (before == 2).sum(axis=1).mean()
    assert not np.isin(space.key(after), space.key(np.concatenate([failed, deep[:5]]))).any()


def test_best_is_not_the_luckiest_label(quick: Params, tmp_path: Path) -> None:
    """One noisy label above all others does not make a network the best, if many labels contradict it."""
    study = Study.open(tmp_path, MACRO.space, params=quick)
    rows = MACRO.space.sample_distinct(300, stream(0, "first"))
    values = MACRO(rows)
    at = int(np.argmin(values))
    values[at] = values.max() + 1
    study.tell(rows, values)
    best = study.best
    assert (best.measured_name, best.measured) == (MACRO.space.format(rows[at : at + 1])[0], values[at])
    assert best.name != best.measured_name
    assert MACRO(MACRO.space.parse([best.name]))[0] > np.quantile(MACRO.values, 0.95)


KILLED = """
import os, signal, sys
from pathlib import Path
from lissnas import spaces
from lissnas.study import Study
study = Study.open(Path("s"), spaces.get("nas_bench_macro"))
batch = study.ask(3)
print(*batch.names, flush=True)
if sys.argv[1] == "writing":  # the new file is complete but not renamed yet
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    study.tell(batch.names, [1.0, 2.0, 3.0])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["between", "writing"])
def test_study_killed_after_ask_resumes(tmp_path: Path, when: str) -> None:
    command = [sys.executable, "-c", KILLED, when]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ}, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = done.stdout.split()
    study = Study.open(tmp_path / "s", MACRO.space)
    assert study.pending == names
    assert len(names) == 3
    assert not set(study.ask(50).names) & set(names)
    study.tell(names, [1.0, 2.0, 3.0])
    assert study.best[2:] == (names[2], 3.0)


def test_user_columns_and_rows_are_preserved(quick: Params, tmp_path: Path) -> None:
    """Extra columns, the order of columns, a pending row, and equivalent forms of a network."""
    (tmp_path / "labels.csv").write_text('note,c,ms,a,b\n"mine, yes",1,7.50,2,1\n,4,,4,3\n')
    study = Study.open(tmp_path, SMALL, params=quick)
    assert study.best == ("1|2|1", 7.5, "1|2|1", 7.5)
    assert study.pending == ["3|4|4"]
    batch = study.ask(2)
    study.tell(["2|1|1", "4|3|4", batch.names[0]], [8.5, 4.0, np.nan])
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[:3] == ["note,c,ms,a,b,status", '"mine, yes",1,7.50,2,1,', ",4,,4,3,"]
    assert lines[5:7] == [",1,8.5,1,2,ok", ",4,4.0,3,4,ok"]
    assert lines[7].endswith(",failed")
    assert study.best == ("3|4|4", 4.0, "3|4|4", 4.0)
    assert study.labels.values.tolist() == [-8.0, -4.0]
    assert study.pending == batch.names[1:]


# -- tell --------------------------------------------------------------------------------------------
def test_failures_are_excluded_and_repeats_averaged(quick: Params, tmp_path: Path) -> None:
    study = Study.open(tmp_path, SMALL, params=quick)
    a, b, c = study.ask(3).names
    study.tell([a, a, b], [1.0, 4.0, float("nan")])
    assert study.best == (a, 2.5, a, 2.5)
    assert study.pending == [c]
    assert not {a, b, c} & set(study.ask(37).names)
    study.tell([b], [0.5])  # a second training worked
    assert study.best == (b, 0.5, b, 0.5)
    with pytest.raises(UserError, match="has both a value and NaN"):
        study.tell([a], [np.nan])


@pytest.mark.parametrize(
    ("archs", "values", "part"),
    [
        (["1|1|1"], [1.0, 2.0], r"expected 1, one per network, got an array of shape \(2,\)"),
        (["1|1|1", "2|1|1"], [[1.0, 2.0]], r"expected 2, one per network"),
        (["1|1|1"], [np.inf], "inf for 1|1|1 is not finite"),
        (["1|1|2", "1|1|9"], [1.0, 2.0], r"row 1 \(counted from 0\): unknown choice of c '9'"),
        (["1|1"], [1.0], "expected 3 choices"),
        ("1|1|1", [1.0] * 5, "expected a list of names"),
        ([1, 1, 1], [1.0], "expected a list of names"),
        (np.zeros((1, 3)), [1.0], "got one of float64"),
        (np.full((1, 3), 9, np.int8), [1.0], "out of range"),
        (np.zeros((1, 2), np.int8), [1.0], "expected a matrix of shape"),
        (["1|2|1", "2|1|1"], [1.0, np.nan], "has both a value and NaN"),
    ],
)
def test_tell_refuses_invalid_input(
    tmp_path: Path, quick: Params, archs: Archs, values: list[float], part: str
) -> None:
    study = Study.open(tmp_path, SMALL, params=quick)
    study.ask(2)
    before = study.path.read_bytes()
    with pytest.raises(UserError, match=part) as caught:
        study.tell(archs, values)
    assert caught.value.exit_code == 2
    assert study.path.read_bytes() == before


def test_invalid_arguments_are_refused(tmp_path: Path, quick: Params) -> None:
    with pytest.raises(UserError, match="at least one network, got 0"):
        Study.open(tmp_path, SMALL, params=quick).ask(0)
    with pytest.raises(UserError, match="seed: -1 is not in 0"):
        Study.open(tmp_path, SMALL, -1, quick).ask(1)
    assert not (tmp_path / "labels.csv").exists()
    Study.open(tmp_path, SMALL, params=quick).ask(1)
    with pytest.raises(ConfigError, match=r"labels\.csv:1: the column 'arch' is missing"):
        Study.open(tmp_path, MACRO.space, params=quick)
    with pytest.raises(InvalidArchitecture):
        Study.open(tmp_path, SMALL, params=quick).tell([""], [1.0])


Round: TypeAlias = tuple[int, int, bool]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=8))
def test_no_network_is_suggested_twice(
    tmp_path_factory: pytest.TempPathFactory, quick: Params, rounds: list[Round]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    requested: set[str] = set()
    n_told = 0
    for n, tell, fails in rounds:
        study = Study.open(folder, SMALL, params=quick)
        names = study.ask(min(n, 40 - len(requested))).names if len(requested) < 40 else []
        assert not requested & {*names}
        requested |= {*names}
        study.tell(names[:tell], [np.nan] * len(names[:tell]) if fails else ms(names[:tell]))
        n_told += len(names[:tell])
        assert len(study.pending) == len(requested) - n_told


# -- gain over uniform -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "target"),
    [("nas_bench_macro", 450), pytest.param("transnas/class_scene", 1000, marks=pytest.mark.slow)],
)
def test_three_rounds_beat_uniform_labels(
    make_params: Callable[..., Params], tmp_path: Path, name: str, target: int
) -> None:
    """Compare, for equal labels and size, the mean of the shrunk space and the best labelled network.

    The means of 150 labels differ only by noise (ten seeds: -.001 and .002 standard deviations of the full
    space; .004 on NAS-Bench-101), hence the tolerance. The best labelled network is better for each seed.
    """
    table = benchmarks.get(name)
    params = make_params(shrink__target_size=target).model_copy(update={"benchmarks": {}})
    gains, bests = [], []
    for seed in range(3):
        study = Study.open(tmp_path / str(seed), table.space, seed, params)
        for _ in range(3):
            batch = study.ask(50)
            study.tell(batch.archs, table(batch.archs))
        rows = table.space.sample_distinct(150, stream(seed, "uniform"))
        uniform = shrink_by_labels(table.space, labelled(table.space, rows, table(rows)), params, seed).subspace
        gains.append((mean(table, study.shrunk().members) - mean(table, uniform.members)) / table.values.std())
        bests.append(study.best.measured - table(rows).max())
    assert np.mean(gains) > -0.015
    assert min(bests) > 0


def mean(table: Benchmark, archs: Archs) -> float:
    assert len(archs) > 100
    return float(table(archs).mean())


def test_empty_batch_and_labels() -> None:
    batch = Batch(np.empty((0, 3), np.int8), [], [])
    assert (len(batch), len(no_labels(SMALL).values), no_labels(SMALL).metric) == (0, 0, "ms")


def test_suggestions_for_a_huge_space_use_a_smaller_target(
    make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target of a million, or a union of balls, would take minutes for 50 suggestions."""
    targets: list[int | None] = []

    def stop(problem: Problem) -> None:
        targets.append(problem.params.target_size)
        raise LookupError

    monkeypatch.setattr(labelling, "shrink", stop)
    for name in ("fairnas", "anynetx", "nas_bench_macro"):
        space = spaces.get(name)
        rows = space.sample_distinct(150, np.random.default_rng(0))
        with pytest.raises(LookupError):
            suggest(space, labelled(space, rows, rows.sum(axis=1).astype(np.float64)), 10, make_params())
    assert targets == [labelling.MAX_SUGGEST_SIZE, labelling.MAX_SUGGEST_SIZE, 450]


@pytest.mark.parametrize("metric", ["arch", "status", "a"])
def test_metric_with_a_reserved_name_is_refused(tmp_path: Path, metric: str) -> None:
    space = parse_space(
        "name: s\nmetric: {name: m, direction: maximize}\npositions:\n  - {name: a, choices: [1, 2]}\n", "s.yaml"
    )
    with pytest.raises(UserError, match=f"metric: '{metric}' is a reserved column"):
        Study.open(tmp_path, space, metric=metric)
    with pytest.raises(UserError, match=f"metric: '{metric}' is a reserved column"):
        no_labels(space, metric)
