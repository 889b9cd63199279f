"""Rules of the method and of spaces, each by itself, against what is worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from lissnas import spaces
from lissnas.core.errors import ConfigError, InvalidArchitecture, UserError
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers import selection
from lissnas.shrinkers.archive import Archive
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.memory_budget import memory_needed, rows_in_memory
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import Strata, target_size
from lissnas.shrinkers.state import REFERENCE, State
from lissnas.spaces import AnyNetX, ChoiceSpace, cell, choices
from lissnas.spaces.base import IntArray
from lissnas.spaces.cell import adjacency
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, convolution
from lissnas.spaces.choices import row_hash
from lissnas.spaces.declared import DeclaredSpace, parse_space
from lissnas.spaces.declared import exchanges as declared_exchanges
from lissnas.spaces.declared import product as declared_product
from lissnas.spaces.edge_cell import EdgeCellSpace
from tests.problems import with_source

Make = Callable[..., Problem]


# -- the method -------------------------------------------------------------------------------------
def test_memory_of_rows() -> None:
    """Three copies of a genome and 40 bytes each, 400 MiB of libraries; .05 GiB to spare."""
    assert memory_needed(10**6, 26) == pytest.approx((3 * 66e6 + 400 * 2**20) / 2**30 + 0.05)
    assert rows_in_memory(0.3, 26) == 0
    for rows in (10**5, 10**7):
        assert rows < rows_in_memory(memory_needed(rows, 26), 26) < rows + 300_000


def test_records_are_of_the_truth_where_it_is_known(make_problem: Make) -> None:
    problem = make_problem(shrink__elite__max_iterations=1)
    truth = problem.truth
    assert truth is not None
    known = shrink(problem).state
    values = truth(known.archive.rows[known.current])
    assert known.records[-1]["mean_true"] == pytest.approx(values.mean())
    assert known.records[-1]["max_true"] == values.max()
    unknown = shrink(with_source(problem, truth=None)).state
    assert "mean_true" not in unknown.records[-1]
    assert unknown.records[-1]["mean_predicted"] == known.records[-1]["mean_predicted"]


def test_a_space_that_begins_above_its_target_shrinks_by_the_rate(make_problem: Make) -> None:
    state = shrink(make_problem(shrink__elite__first_size=1_000, shrink__target_size=400)).state
    sizes = [record["size"] for record in state.records]
    assert sizes[0] > 400
    assert all(now == max(400, math.ceil(0.8 * before)) for before, now in itertools.pairwise(sizes)), sizes
    assert sizes[-1] == 400


def test_all_may_be_candidates() -> None:
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    assert selection._candidates(scores, 4).all()
    assert selection._candidates(scores, 2).tolist() == [True, False, True, False]
    assert selection._candidates(scores, 3).all()  # two are as good as the last


@pytest.mark.parametrize(("positions", "size"), [(4, 64), (5, 100), (6, 184), (8, 2949), (10, 10_000)])
def test_the_target_by_rule(positions: int, size: int) -> None:
    """Of 400 labels that are predicted rightly 18 hold nine tenths of the best 20: a share of .045."""
    space = ChoiceSpace("made_up", [4] * positions)
    values = np.random.default_rng(0).permutation(400).astype(np.float64)
    assert target_size(space, values, values) == (size, 0.045)
    _, share = target_size(space, -values, values)
    assert share > selection.MAX_USEFUL_SHARE > 0.8


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
    state = replace(State(Archive.empty(space)), given=given, n_first=given + 200)
    reference = method._reference(state, with_source(make_problem(), space=space))
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


def test_hashes_of_rows_are_the_same_on_every_machine() -> None:
    def plain(row: list[int]) -> int:
        key, mask = 0x9E3779B97F4A7C15, 2**64 - 1
        for digit in row:
            key = (key ^ digit) * 0xBF58476D1CE4E5B9 & mask
            key = (key ^ key >> 29) * 0x94D049BB133111EB & mask
            key ^= key >> 32
        return key

    rows = np.random.default_rng(0).integers(0, 127, (4, 3, 5)).astype(np.int8)
    assert row_hash(rows).tolist() == [[plain(row) for row in forms] for forms in rows.tolist()]


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


def test_many_rows_are_changed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space(f"{TWINS}equivalent:\n  - {{exchange: [[a], [b]]}}\n", "space.yaml")
    assert isinstance(space, DeclaredSpace)
    rng = np.random.default_rng(0)
    archs, edits = space.sample(100, rng), np.arange(100) % 3
    monkeypatch.setattr(choices, "MUTATE_CHUNK", 7)
    for n in (6, 7, 8, 14, 100):
        assert (space.distance(archs[:n], space.mutate(archs[:n], edits[:n], rng)) == edits[:n]).all()


def test_what_seldom_turns_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 27,000 rows is a network: the first thousand draws have none."""
    positions = "".join(f"  - {{name: {n}, choices: [{', '.join(map(str, range(30)))}]}}\n" for n in "abc")
    text = f"name: rare\nmetric: {{name: acc, direction: maximize}}\npositions:\n{positions}"
    text += "costs:\n  sum:\n" + "".join(f"    {n}: {{{', '.join(f'{i}: {i}' for i in range(30))}}}\n" for n in "abc")
    space = parse_space(f"{text}constraints:\n  - {{at_most: {{cost: sum, value: 0}}}}\n", "space.yaml")
    assert isinstance(space, DeclaredSpace)
    assert space.size() == 1
    first = space._uniform(1024, np.random.default_rng(0))
    assert not space._is_canonical(first).any()
    assert (space.reject(3, np.random.default_rng(0)) == 0).all()
    monkeypatch.setattr(declared_product, "SAMPLE_TRIES", 1_000)
    with pytest.raises(UserError, match="no network among 1,024 uniform rows"):
        space.reject(3, np.random.default_rng(0))


def test_exchanges_that_make_too_many_forms_are_refused_at_the_very_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neighbouring swaps of three positions make 1, 3, 5 and in the end 6 forms."""
    swaps = "  - {exchange: [[a], [b]]}\n  - {exchange: [[b], [c]]}\n"
    text = f"{TWINS.replace('[w, x]', '[x, y, z]')}equivalent:\n{swaps}"
    assert parse_space(text, "space.yaml").size() == 10
    monkeypatch.setattr(declared_exchanges, "MOST_FORMS", 6)
    assert parse_space(text, "space.yaml").size() == 10
    for most in (5, 3):
        monkeypatch.setattr(declared_exchanges, "MOST_FORMS", most)
        with pytest.raises(ConfigError, match=f"more than {most} forms"):
            parse_space(text, "space.yaml")


def test_mistakes_behind_a_position_without_a_name_are_named_too() -> None:
    text = TWINS.replace("  - {name: a,", "  - {") + "  - {name: b, choices: [x, y]}\n"
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "space.yaml")
    assert [problem.partition(",")[0] for problem in caught.value.problems] == [
        "line 4: positions.0: the key 'name' is missing",
        "line 7: duplicate position 'b'",
    ]


def test_the_line_of_what_is_not_yaml() -> None:
    with pytest.raises(ConfigError, match="line 7: not YAML"):
        parse_space(f"{TWINS}  - {{name: d, choices: [x]}}]\n", "space.yaml")


# -- declared cells -----------------------------------------------------------------------------------
CELLS = "name: cells\nmetric: {name: acc, direction: maximize}\nkind: cell\n"


def test_cells_listed_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{CELLS}cell: {{vertices: 5, max_edges: 8, ops: [conv, pool], ops_on: vertices}}\n"
    whole = parse_space(text, "space.yaml").enumerate()
    monkeypatch.setattr(cell, "CHUNK", 5 * 2**5)
    assert (parse_space(text, "space.yaml").enumerate() == whole).all()


def test_five_operations_on_five_vertices_do_not_fit_32_bits() -> None:
    text = f"{CELLS}cell: {{vertices: 7, max_edges: 7, ops: [a, b, c, d, e], ops_on: vertices}}\n"
    space = parse_space(text, "space.yaml")
    chain = ["100000" + "10000" + "1000" + "100" + "11" + "1" + f"-{ops}" for ops in ("44444", "44440", "01234")]
    assert space.format(space.parse(chain)) == chain


def edge_cells() -> EdgeCellSpace:
    return EdgeCellSpace("cells", ("conv", "pool"), 4, 6)


@pytest.mark.parametrize("digit", [-1, 3])
def test_an_edge_that_there_is_not_is_named(digit: int) -> None:
    rows = np.ones((2, 6), np.int8)
    rows[1, 2] = digit
    with pytest.raises(InvalidArchitecture, match="an edge is not 0 to 2") as caught:
        edge_cells().key(rows)
    assert caught.value.row == 1
    with pytest.raises(InvalidArchitecture, match=r"an edge is not 0 \(none\), 1 conv, 2 pool"):
        edge_cells().parse(["113000"])


def test_more_operations_than_a_cell_has_edges_are_not_changed() -> None:
    """Vertices 1 and 2 on the way from 0 to 3: of three edges three can have another operation, not four."""
    space = edge_cells()
    path = space.parse(["100102"])
    many = np.repeat(path, 50, axis=0)
    three = space.mutate(many, np.full(50, 3), np.random.default_rng(0), "operation")
    assert (space.distance(many, three) == 3).all()
    assert ((three > 0).sum(axis=1) == 3).all()
    assert (space.mutate(many, np.full(50, 4), np.random.default_rng(0), "operation") == many).all()


def test_other_operations_are_drawn_alike_often() -> None:
    space = EdgeCellSpace("cells", "abcde", 2, 1)
    rows = np.full((4_000, 1), 1, np.int8)
    found = space.mutate(rows, np.ones(4_000, np.int64), np.random.default_rng(0), "operation")
    _, counts = np.unique(found, return_counts=True)
    assert len(counts) == 4
    assert chisquare(counts).pvalue > 1e-3
