"""Rules of the method and of spaces, compared with results computed by hand."""

from __future__ import annotations

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
    """Three copies of a genome and 40 bytes each, 400 MiB for libraries, and 0.05 GiB of margin."""
    assert memory_needed(10**6, 26) == pytest.approx((3 * 66e6 + 400 * 2**20) / 2**30 + 0.05)
    assert rows_in_memory(0.3, 26) == 0
    for rows in (10**5, 10**7):
        assert rows < rows_in_memory(memory_needed(rows, 26), 26) < rows + 300_000


def test_records_have_true_values_if_they_are_known(make_problem: Make) -> None:
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


def test_a_first_sample_above_the_target_is_cut_to_it(make_problem: Make) -> None:
    state = shrink(make_problem(shrink__elite__first_size=1_000, shrink__target_size=400)).state
    sizes = [record["size"] for record in state.records]
    assert sizes[0] > 400
    assert set(sizes[1:]) == {400}


def test_candidates_may_be_all_scores() -> None:
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    assert selection._candidates(scores, 4).all()
    assert selection._candidates(scores, 2).tolist() == [True, False, True, False]
    assert selection._candidates(scores, 3).all()  # two tie for the last place


@pytest.mark.parametrize(("positions", "size"), [(4, 64), (5, 100), (6, 184), (8, 2949), (10, 10_000)])
def test_default_target_size(positions: int, size: int) -> None:
    """Of 400 correctly predicted labels, the top 18 contain nine tenths of the best 20: a share of 0.045."""
    space = ChoiceSpace("made_up", [4] * positions)
    values = np.random.default_rng(0).permutation(400).astype(np.float64)
    assert target_size(space, values, values) == (size, 0.045)
    _, share = target_size(space, -values, values)
    assert share > selection.MAX_USEFUL_SHARE > 0.8


def test_strata_without_costs_are_nearest_centres_of_scaled_features() -> None:
    space = ChoiceSpace("made_up", [4, 4, 2])
    archs = space.enumerate()
    features = space.encode(archs).astype(np.float64)
    scale = np.arange(1.0, features.shape[1] + 1)
    centres = (features / scale)[[0, 7, 15, 22, 31]] + np.random.default_rng(0).normal(0, 0.05, (5, len(scale)))
    found = Strata(np.full(5, 0.2), centres=centres, scale=scale).of_each(space, archs)
    squared = ((features / scale)[:, None] - centres) ** 2
    assert (found == squared.sum(axis=2).argmin(axis=1)).all()
    assert len(np.unique(found)) == 5


@pytest.mark.parametrize(("given", "from_given"), [(8, 0), (500, 200 * 500 // 524), (1_024, REFERENCE)])
def test_reference_has_given_labels_by_their_share(given: int, from_given: int, make_problem: Make) -> None:
    space = ChoiceSpace("made_up", [4] * 5)
    state = replace(State(Archive.empty(space)), given=given, n_first=given + 200)
    reference = method._reference(state, with_source(make_problem(), space=space))
    assert (reference < given).sum() == min(from_given, given)
    assert (reference >= given).sum() == 200


# -- spaces -----------------------------------------------------------------------------------------
def test_max_edits_of_nasbench101_is_that_of_the_paper() -> None:
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
def test_malformed_cells_are_quoted_in_the_error(bad: str, reason: str) -> None:
    space = spaces.get("nasbench101")
    assert space.parse(["111-0"]).shape == (1, 26)
    with pytest.raises(InvalidArchitecture, match=f"{reason}.*, found '{bad}'"):
        space.parse(["111-0", bad])


def test_features_of_anynetx() -> None:
    space = spaces.get("anynetx")
    assert isinstance(space, AnyNetX)
    stages = np.array([[1, 24, 1, 8], [2, 56, 2, 4], [4, 152, 4, 2], [7, 368, 1, 8]])
    text = "|".join(f"{depth}x{width}b{ratio}g{group}" for depth, width, ratio, group in stages)
    features = space.encode(space.parse([text]))[0]
    assert features[:4].tolist() == stages[:, 0].tolist()
    assert features[4] == 14
    assert features[5:9].tolist() == stages[:, 2].tolist()
    assert features[9:13] == pytest.approx(np.log2(stages[:, 1]), rel=1e-6)


def test_costs_of_a_convolution() -> None:
    assert convolution(3, 8, 16, 10).tolist() == [9 * 8 * 16 * 100, 9 * 8 * 16 + 32]
    assert convolution(5, 8, 16, 10, groups=4).tolist() == [25 * 2 * 16 * 100, 25 * 2 * 16 + 32]


class Bare(ChainSpace):
    """A chain whose choices cost nothing."""

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        return np.zeros(2, np.int64)


def test_costs_of_the_fixed_part_of_a_chain() -> None:
    """A 3x3 stem to 4 channels on 4x4 pixels, a 1x1 convolution to 16 channels on 2x2, ten classes with a bias."""
    skeleton = Skeleton(8, 10, stem=4, stem_stride=2, stages=(Stage(8, 2, 2), Stage(8, 3, 1)), last=16)
    assert skeleton.spans == [slice(0, 2), slice(2, 5)]
    space = Bare("bare", [2] * 5, skeleton, "")
    costs = space.costs(space.sample(3, np.random.default_rng(0)))
    assert costs["flops"].tolist() == [27 * 4 * 16 + 8 * 16 * 4 + 160] * 3
    assert costs["params"].tolist() == [27 * 4 + 8 + 8 * 16 + 32 + 170] * 3
    small = Bare("small", [2] * 5, replace(skeleton, bias=False), "")
    assert small.costs(small.sample(1, np.random.default_rng(0)))["params"].tolist() == [27 * 4 + 8 + 8 * 16 + 32 + 160]


def test_path_features_of_cells_agree_with_listing_the_paths() -> None:
    space = spaces.get("nasbench101")
    archs = space.sample(60, np.random.default_rng(0))
    edges = adjacency(archs)
    features = space.encode(archs)
    # Edges, operations and shape come before them, the types of edges after them.
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


def test_keys_are_exact_up_to_64_bits() -> None:
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


def test_keys_of_a_declaration_can_be_in_any_order() -> None:
    text = "cell: {vertices: 4, max_edges: 5, ops: [conv, pool], ops_on: vertices}\nname: cells\nkind: cell\n"
    space = parse_space(text + "metric: {name: acc, direction: maximize}\n", "space.yaml")
    assert space.max_edits == 4 * 3 // 2 + 2
    assert parse_space(f"constraints:\n  - {{forbid: {{a: x, b: y}}}}\n{TWINS}", "space.yaml").size() == 16


@pytest.mark.parametrize("rule", ["change", "swap"])
def test_unknown_rules_are_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"{rule}.*exchange"):
        parse_space(f"{TWINS}equivalent:\n  - {{{rule}: [[a], [b]]}}\n", "space.yaml")


def test_features_count_choices_that_positions_share() -> None:
    space = parse_space(TWINS, "space.yaml")
    features = space.encode(space.parse(["x|y|x", "z|z|w"]))
    assert features[:, 8:].tolist() == [[2, 1, 0], [0, 0, 2]]  # of x, y and z, after eight one-hot columns


def test_distances_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space(f"{TWINS}equivalent:\n  - {{exchange: [[a], [b]]}}\n", "space.yaml")
    assert isinstance(space, DeclaredSpace)
    rng = np.random.default_rng(0)
    a, b = space.sample(30, rng), space.sample(30, rng)
    whole = space.distance(a, b)
    monkeypatch.setattr(declared_exchanges, "SUBSETS", 16)
    assert (space.distance(a, b) == whole).all()


def test_constraints_that_differ_between_many_exchanged_positions_are_refused() -> None:
    names = "abcdefgh"
    positions = "".join(f"  - {{name: {n}, choices: [x, y]}}\n" for n in names)
    text = f"name: many\nmetric: {{name: acc, direction: maximize}}\npositions:\n{positions}"
    text += f"equivalent:\n  - {{exchange: [{', '.join(f'[{n}]' for n in names)}]}}\n"
    assert parse_space(text, "space.yaml").size() == 9
    with pytest.raises(ConfigError, match="more than 5,040 forms"):
        parse_space(f"{text}constraints:\n  - {{forbid: {{a: x, b: y}}}}\n", "space.yaml")


def test_many_rows_are_mutated_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space(f"{TWINS}equivalent:\n  - {{exchange: [[a], [b]]}}\n", "space.yaml")
    assert isinstance(space, DeclaredSpace)
    rng = np.random.default_rng(0)
    archs, edits = space.sample(100, rng), np.arange(100) % 3
    monkeypatch.setattr(choices, "MUTATE_CHUNK", 7)
    for n in (6, 7, 8, 14, 100):
        assert (space.distance(archs[:n], space.mutate(archs[:n], edits[:n], rng)) == edits[:n]).all()


def test_rejection_sampling_finds_rare_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 27,000 rows is a network; the first thousand draws don't contain it."""
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
    with pytest.raises(UserError, match="no network, none among 1,024 uniform rows"):
        space.reject(3, np.random.default_rng(0))


def test_exchanges_above_the_maximum_number_of_forms_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two overlapping swaps of three positions generate 1, 3, 5 and finally 6 forms."""
    swaps = "  - {exchange: [[a], [b]]}\n  - {exchange: [[b], [c]]}\n"
    text = f"{TWINS.replace('[w, x]', '[x, y, z]')}equivalent:\n{swaps}"
    assert parse_space(text, "space.yaml").size() == 10
    monkeypatch.setattr(declared_exchanges, "MAX_FORMS", 6)
    assert parse_space(text, "space.yaml").size() == 10
    for maximum in (5, 3):
        monkeypatch.setattr(declared_exchanges, "MAX_FORMS", maximum)
        with pytest.raises(ConfigError, match=f"more than {maximum} forms"):
            parse_space(text, "space.yaml")


def test_problems_after_a_position_without_a_name_are_reported() -> None:
    text = TWINS.replace("  - {name: a,", "  - {") + "  - {name: b, choices: [x, y]}\n"
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "space.yaml")
    assert [problem.partition(",")[0] for problem in caught.value.problems] == [
        "line 4: positions.0: the key 'name' is missing",
        "line 7: duplicate position 'b'",
    ]


def test_yaml_syntax_errors_have_a_line() -> None:
    with pytest.raises(ConfigError, match="line 7: not YAML"):
        parse_space(f"{TWINS}  - {{name: d, choices: [x]}}]\n", "space.yaml")


# -- declared cells -----------------------------------------------------------------------------------
CELLS = "name: cells\nmetric: {name: acc, direction: maximize}\nkind: cell\n"


def test_listing_cells_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_edges_out_of_range_are_refused(digit: int) -> None:
    rows = np.ones((2, 6), np.int8)
    rows[1, 2] = digit
    with pytest.raises(InvalidArchitecture, match="an edge is not 0 to 2") as caught:
        edge_cells().key(rows)
    assert caught.value.row == 1
    with pytest.raises(InvalidArchitecture, match=r"an edge is not 0 \(none\), 1 conv, 2 pool"):
        edge_cells().parse(["113000"])


def test_cells_with_fewer_edges_than_operation_edits_are_unchanged() -> None:
    """The path 0, 1, 2, 3 has three edges: three operations can be changed, four can't."""
    space = edge_cells()
    path = space.parse(["100102"])
    many = np.repeat(path, 50, axis=0)
    three = space.mutate(many, np.full(50, 3), np.random.default_rng(0), "operation")
    assert (space.distance(many, three) == 3).all()
    assert ((three > 0).sum(axis=1) == 3).all()
    assert (space.mutate(many, np.full(50, 4), np.random.default_rng(0), "operation") == many).all()


def test_other_operations_are_drawn_uniformly() -> None:
    space = EdgeCellSpace("cells", "abcde", 2, 1)
    rows = np.full((4_000, 1), 1, np.int8)
    found = space.mutate(rows, np.ones(4_000, np.int64), np.random.default_rng(0), "operation")
    _, counts = np.unique(found, return_counts=True)
    assert len(counts) == 4
    assert chisquare(counts).pvalue > 1e-3
