"""Rules of the method and of spaces, each by itself, against what is worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from lissnas import spaces
from lissnas.errors import ConfigError, InvalidArchitecture
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers import selection
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.selection import Strata, target_size
from lissnas.shrinkers.state import REFERENCE, Problem, State, memory_for, rows_in_memory
from lissnas.spaces import AnyNetX, ChoiceSpace, declared_exchanges
from lissnas.spaces.base import IntArray
from lissnas.spaces.cell import adjacency
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, convolution
from lissnas.spaces.declared import DeclaredSpace, parse_space

Make = Callable[..., Problem]


# -- the method -------------------------------------------------------------------------------------
def test_memory_of_rows() -> None:
    """Three copies of a genome and 40 bytes each, 400 MiB of libraries; .05 GiB to spare."""
    assert memory_for(10**6, 26) == pytest.approx((3 * 66e6 + 400 * 2**20) / 2**30 + 0.05)
    assert rows_in_memory(0.3, 26) == 0
    for rows in (10**5, 10**7):
        assert rows < rows_in_memory(memory_for(rows, 26), 26) < rows + 300_000


def test_records_are_of_the_truth_where_it_is_known(make_problem: Make) -> None:
    problem = make_problem(shrink__elite__max_iterations=1)
    truth = problem.truth
    assert truth is not None
    known = shrink(problem).state
    values = truth(known.rows[known.current])
    assert known.records[-1]["mean_true"] == pytest.approx(values.mean())
    assert known.records[-1]["max_true"] == values.max()
    unknown = shrink(replace(problem, truth=None)).state
    assert "mean_true" not in unknown.records[-1]
    assert unknown.records[-1]["mean_predicted"] == known.records[-1]["mean_predicted"]


def test_a_space_that_begins_above_its_target_shrinks_by_the_rate(make_problem: Make) -> None:
    state = shrink(make_problem(shrink__elite__first_size=1_000, shrink__target_size=400)).state
    sizes = [record["size"] for record in state.records]
    assert sizes[0] > 400
    assert all(now == max(400, math.ceil(0.8 * before)) for before, now in itertools.pairwise(sizes)), sizes
    assert sizes[-1] == 400


def test_all_may_be_contenders() -> None:
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    assert selection._contenders(scores, 4).all()
    assert selection._contenders(scores, 2).tolist() == [True, False, True, False]
    assert selection._contenders(scores, 3).all()  # two are as good as the last


@pytest.mark.parametrize(("positions", "size"), [(4, 64), (5, 100), (6, 184), (8, 2949), (10, 10_000)])
def test_the_target_by_rule(positions: int, size: int, make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 labels that are predicted rightly 18 hold nine tenths of the best 20: a share of .045."""
    space = ChoiceSpace("made_up", [4] * positions)
    archs = np.zeros((400, positions), np.int8)
    values = np.random.default_rng(0).permutation(400).astype(np.float64)
    monkeypatch.setattr(selection, "out_of_fold", lambda *_: values)
    settings = make_problem().params.predictor
    assert target_size(space, archs, values, settings, 0, np.random.default_rng(0), 1) == (size, 0.045)
    monkeypatch.setattr(selection, "out_of_fold", lambda *_: -values)
    _, share = target_size(space, archs, values, settings, 0, np.random.default_rng(0), 1)
    assert share > selection.USELESS > 0.8


def test_strata_without_costs_are_the_nearest_centres_of_scaled_features() -> None:
    space = ChoiceSpace("made_up", [4, 4, 2])
    archs = space.enumerate()
    features = space.encode(archs).astype(np.float64)
    scale = np.arange(1.0, features.shape[1] + 1)
    centres = (features / scale)[[0, 7, 15, 22, 31]] + np.random.default_rng(0).normal(0, 0.05, (5, len(scale)))
    found = Strata(np.full(5, 0.2), centres=centres, scale=scale).of_each(space, archs)
    away = ((features / scale)[:, None] - centres) ** 2
    assert (found == away.sum(axis=2).argmin(axis=1)).all()
    assert len(np.unique(found)) == 5


@pytest.mark.parametrize(("given", "from_given"), [(8, 0), (500, 200 * 500 // 524), (1_024, REFERENCE)])
def test_given_labels_stand_for_the_full_space_by_their_share(given: int, from_given: int, make_problem: Make) -> None:
    space = ChoiceSpace("made_up", [4] * 5)
    state = replace(State.empty(space), given=given, n_first=given + 200)
    reference = method._reference(state, replace(make_problem(), space=space))
    assert (reference < given).sum() == min(from_given, given)
    assert (reference >= given).sum() == 200


# -- spaces -----------------------------------------------------------------------------------------
def test_edits_that_the_paper_counts() -> None:
    assert spaces.get("nasbench101").max_edits == 21 + 5
    assert all(spaces.get(name).size_exact for name in ("nasbench101", "nas_bench_macro", "transnas_micro"))


def test_edits_of_operations_keep_the_edges() -> None:
    space = spaces.get("nasbench101")
    rng = np.random.default_rng(0)
    archs = space.sample(300, rng)
    edited = space.mutate(archs, np.ones(300, np.int64), rng, "operation")
    changed = space.key(edited) != space.key(archs)
    assert changed.mean() > 0.9
    assert (edited[:, :21].sum(axis=1) == archs[:, :21].sum(axis=1)).all()
    edges = space.mutate(archs, np.ones(300, np.int64), rng, "edge")
    assert (edges[:, :21].sum(axis=1) != archs[:, :21].sum(axis=1)).mean() > 0.9


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("121-0", "an edge is "), ("111-3", "an operation is "), ("121-3", "an edge is "), ("11-0", "expected <bits>")],
)
def test_what_is_wrong_with_a_cell_is_named(bad: str, reason: str) -> None:
    space = spaces.get("nasbench101")
    assert space.parse(["111-0"]).shape == (1, 26)
    with pytest.raises(InvalidArchitecture, match=f"{reason}.*, found '{bad}'"):
        space.parse(["111-0", bad])


def test_what_an_anynetx_is_described_by() -> None:
    space = spaces.get("anynetx")
    assert isinstance(space, AnyNetX)
    stages = np.array([[1, 24, 1, 8], [2, 56, 2, 4], [4, 152, 4, 2], [7, 368, 1, 8]])
    text = "|".join(f"{depth}x{width}b{ratio}g{group}" for depth, width, ratio, group in stages)
    features = space.encode(space.parse([text]))[0]
    assert features[:4].tolist() == stages[:, 0].tolist()
    assert features[4] == 14
    assert features[5:9].tolist() == stages[:, 2].tolist()
    assert features[9:13] == pytest.approx(np.log2(stages[:, 1]), rel=1e-6)


def test_what_a_convolution_costs() -> None:
    assert convolution(3, 8, 16, 10).tolist() == [9 * 8 * 16 * 100, 9 * 8 * 16 + 32]
    assert convolution(5, 8, 16, 10, groups=4).tolist() == [25 * 2 * 16 * 100, 25 * 2 * 16 + 32]


class Bare(ChainSpace):
    """A chain whose choices cost nothing."""

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        return np.zeros(2, np.int64)


def test_what_all_networks_of_a_chain_cost() -> None:
    """A stem of 3x3 to 4 channels on 4x4, a 1x1 convolution to 16 on 2x2, ten classes with a bias."""
    skeleton = Skeleton(8, 10, stem=4, stem_stride=2, stages=(Stage(8, 2, 2), Stage(8, 3, 1)), last=16)
    assert skeleton.spans == [slice(0, 2), slice(2, 5)]
    space = Bare("bare", [2] * 5, skeleton, "")
    costs = space.costs(space.sample(3, np.random.default_rng(0)))
    assert costs["flops"].tolist() == [27 * 4 * 16 + 8 * 16 * 4 + 160] * 3
    assert costs["params"].tolist() == [27 * 4 + 8 + 8 * 16 + 32 + 170] * 3
    small = Bare("small", [2] * 5, replace(skeleton, bias=False), "")
    assert small.costs(small.sample(1, np.random.default_rng(0)))["params"].tolist() == [27 * 4 + 8 + 8 * 16 + 32 + 160]


def test_paths_of_cells_against_walking_them() -> None:
    space = spaces.get("nasbench101")
    archs = space.sample(60, np.random.default_rng(0))
    edges = adjacency(archs)
    features = space.encode(archs)
    # Before them edges and operations, and the shape; after them the types of edges.
    paths, uses = np.split(features[:, 21 + 15 + 7 + 9 : -(9 + 6)], [7], axis=1)

    def walk(i: int, at: int, passed: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if at == 6:
            yield passed
        for to in np.flatnonzero(edges[i, at]).tolist():
            yield from walk(i, to, (*passed, to) if to < 6 else passed)

    for i in range(len(archs)):
        found = list(walk(i, 0, ()))
        assert paths[i].tolist() == [*(sum(len(p) + 1 == n for p in found) for n in range(1, 7)), len(found)]
        of = archs[i, 21:]
        for op in range(3):
            used = [sum(of[v - 1] == op for v in p) for p in found]
            assert uses[i, 6 * op : 6 * op + 6].tolist() == [used.count(n) for n in range(6)]


def test_keys_are_exact_as_far_as_64_bits_go() -> None:
    assert ChoiceSpace("made_up", [2] * 64).exact_keys
    assert not ChoiceSpace("made_up", [2] * 63 + [3]).exact_keys


# -- declared spaces ----------------------------------------------------------------------------------
TWINS = """\
name: twins
metric: {name: acc, direction: maximize}
positions:
  - {name: a, choices: [x, y, z]}
  - {name: b, choices: [x, y, z]}
  - {name: c, choices: [w, x]}
"""


def test_the_kind_of_a_declaration_may_stand_anywhere() -> None:
    text = "cell: {vertices: 4, max_edges: 5, ops: [conv, pool], ops_on: vertices}\nname: cells\nkind: cell\n"
    space = parse_space(text + "metric: {name: acc, direction: maximize}\n", "space.yaml")
    assert space.max_edits == 4 * 3 // 2 + 2
    assert parse_space(f"constraints:\n  - {{forbid: {{a: x, b: y}}}}\n{TWINS}", "space.yaml").size() == 16


@pytest.mark.parametrize("rule", ["change", "swap"])
def test_a_rule_that_there_is_not_is_named(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"{rule}.*exchange"):
        parse_space(f"{TWINS}equivalent:\n  - {{{rule}: [[a], [b]]}}\n", "space.yaml")


def test_features_count_the_texts_that_positions_share() -> None:
    space = parse_space(TWINS, "space.yaml")
    features = space.encode(space.parse(["x|y|x", "z|z|w"]))
    assert features[:, 8:].tolist() == [[2, 1, 0], [0, 0, 2]]  # of x, y and z, behind eight choices


def test_distances_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space(f"{TWINS}equivalent:\n  - {{exchange: [[a], [b]]}}\n", "space.yaml")
    assert isinstance(space, DeclaredSpace)
    rng = np.random.default_rng(0)
    a, b = space.sample(30, rng), space.sample(30, rng)
    whole = space.distance(a, b)
    monkeypatch.setattr(declared_exchanges, "SUBSETS", 16)
    assert (space.distance(a, b) == whole).all()


def test_constraints_that_tell_many_exchanged_positions_apart_are_refused() -> None:
    names = "abcdefgh"
    positions = "".join(f"  - {{name: {n}, choices: [x, y]}}\n" for n in names)
    text = f"name: many\nmetric: {{name: acc, direction: maximize}}\npositions:\n{positions}"
    text += f"equivalent:\n  - {{exchange: [{', '.join(f'[{n}]' for n in names)}]}}\n"
    assert parse_space(text, "space.yaml").size() == 9
    with pytest.raises(ConfigError, match="more than 5,040 forms"):
        parse_space(f"{text}constraints:\n  - {{forbid: {{a: x, b: y}}}}\n", "space.yaml")
