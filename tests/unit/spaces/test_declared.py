"""User-defined spaces: rules compared with brute force, and error messages with their lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher
from scipy.stats import chisquare

from lissnas import spaces
from lissnas.core.errors import ConfigError, InvalidArchitecture, UserError
from lissnas.spaces import CellSpace, Space
from lissnas.spaces.declared import DeclaredSpace, parse_space, read_space
from lissnas.spaces.edge_cell import EdgeCellSpace
from lissnas.testing import SpaceSuite

EXAMPLE = """\
name: my_space
kind: product            # or: cell {vertices: 7, max_edges: 9, ops: [conv3x3, conv1x1, maxpool3x3], ops_on: vertices}
metric: {name: accuracy, direction: maximize}
positions:
  - {name: depth,  choices: [2, 3, 4]}
  - {name: op1,    choices: [none, skip, conv3x3]}
  - {name: op2,    choices: [none, skip, conv3x3]}
  - {name: width1, choices: [16, 32, 64]}
  - {name: width2, choices: [16, 32, 64]}
constraints:             # all must hold
  - {ordered: [width1, width2]}                  # non-decreasing, numbers
  - {forbid: {op1: none, op2: none}}             # not together
  - {if: {depth: 2}, then: {op2: [none, skip]}}  # a choice or a list of choices
  - {at_most: {cost: flops, value: 600}}
inactive:                # these positions don't matter then; one form is kept
  - {when: {depth: 2}, positions: [width2]}
equivalent:              # exchanging the groups gives the same network
  - {exchange: [[op1], [op2]]}
costs:
  flops: {base: 5, op1: {conv3x3: 90, skip: 1, none: 0}}   # or params, latency, ...
"""
HEAD = "name: s\nmetric: {name: acc, direction: maximize}\n"
NASBENCH101 = HEAD + (
    "kind: cell\ncell: {vertices: 7, max_edges: 9, ops: [conv3x3, conv1x1, maxpool3x3], ops_on: vertices}\n"
)


def product(text: str) -> DeclaredSpace:
    space = parse_space(text, "space.yaml")
    assert isinstance(space, DeclaredSpace)
    return space


# -- a slow, plain implementation of the same rules --------------------------------------------------
@dataclass
class Spec:
    """A declaration as plain data: written as YAML, and evaluated by brute force."""

    choices: list[list[str]]
    ordered: list[list[int]] = field(default_factory=list)
    forbid: list[dict[int, str]] = field(default_factory=list)
    implied: list[tuple[dict[int, str], dict[int, list[str]]]] = field(default_factory=list)
    at_most: list[str] = field(default_factory=list)
    inactive: list[tuple[dict[int, str], list[int]]] = field(default_factory=list)
    exchange: list[list[list[int]]] = field(default_factory=list)
    costs: dict[int, dict[str, str]] = field(default_factory=dict)

    def yaml(self) -> str:
        lines = [HEAD + "positions:"]
        lines += [f"  - {{name: p{i}, choices: [{', '.join(c)}]}}" for i, c in enumerate(self.choices)]
        rules = [f"  - ordered: [{', '.join(f'p{i}' for i in group)}]" for group in self.ordered]
        rules += [f"  - forbid: {self._match(match)}" for match in self.forbid]
        rules += [f"  - {{if: {self._match(a)}, then: {self._match(b)}}}" for a, b in self.implied]
        rules += [f"  - at_most: {{cost: flops, value: {value}}}" for value in self.at_most]
        lines += ["constraints:", *rules] if rules else []
        off = [
            f"  - {{when: {self._match(m)}, positions: [{', '.join(f'p{i}' for i in p)}]}}" for m, p in self.inactive
        ]
        lines += ["inactive:", *off] if off else []
        swaps = [f"  - exchange: {[[f'p{i}' for i in group] for group in groups]}" for groups in self.exchange]
        lines += ["equivalent:", *(s.replace("'", "") for s in swaps)] if swaps else []
        prices = ", ".join(f"p{i}: {self._match(price)}" for i, price in self.costs.items())
        lines += [f"costs:\n  flops: {{base: 0.25, {prices}}}"] if self.costs else []
        return "\n".join(lines) + "\n"

    @staticmethod
    def _match(match: dict[Any, Any]) -> str:
        names = {f"p{k}" if isinstance(k, int) else k: v for k, v in match.items()}
        return "{" + ", ".join(f"{k}: {v}".replace("'", "") for k, v in names.items()) + "}"

    def rows(self) -> list[tuple[int, ...]]:
        return list(itertools.product(*(range(len(c)) for c in self.choices)))

    def active(self, row: tuple[int, ...]) -> set[int]:
        """Return the active positions, by recursion over the rules that deactivate them."""

        def on(p: int) -> bool:
            return not any(
                p in off and all(on(q) and self.choices[q][row[q]] == text for q, text in when.items())
                for when, off in self.inactive
            )

        return {p for p in range(len(row)) if on(p)}

    def cost(self, row: tuple[int, ...]) -> Decimal:
        active = self.active(row)
        paid = [Decimal(price[self.choices[p][row[p]]]) for p, price in self.costs.items() if p in active]
        return Decimal("0.25") + sum(paid)

    def valid(self, row: tuple[int, ...]) -> bool:
        active = self.active(row)
        text = [c[i] for c, i in zip(self.choices, row, strict=True)]
        for group in self.ordered:
            numbers = [Decimal(text[p]) for p in group if p in active]
            if numbers != sorted(numbers):
                return False
        for match in self.forbid:
            if all(p in active and text[p] == t for p, t in match.items()):
                return False
        for when, then in self.implied:
            if all(p in active and text[p] == t for p, t in when.items()) and any(
                p in active and text[p] not in allowed for p, allowed in then.items()
            ):
                return False
        return all(self.cost(row) <= Decimal(value) for value in self.at_most)

    def classes(self) -> dict[tuple[int, ...], frozenset[tuple[int, ...]]]:
        """Return for each row the rows that are the same network: the connected components of a graph."""
        graph: nx.Graph = nx.Graph()
        graph.add_nodes_from(self.rows())
        for row in self.rows():
            active = self.active(row)
            for p in set(range(len(row))) - active:
                graph.add_edge(row, (*row[:p], 0, *row[p + 1 :]))
            for groups in self.exchange:
                for a, b in itertools.combinations(groups, 2):
                    other = list(row)
                    for p, q in zip(a, b, strict=True):
                        other[p], other[q] = row[q], row[p]
                    graph.add_edge(row, tuple(other))
        return {row: frozenset(part) for part in nx.connected_components(graph) for row in part}


def check_against_brute_force(spec: Spec, space: DeclaredSpace) -> None:
    classes = spec.classes()
    rows = spec.rows()
    valid = [row for row in rows if spec.valid(row)]
    networks = {classes[row] for row in valid}
    assert space.size() == len(networks)
    assert space.size_exact
    matrix = np.array(rows, np.int8)
    assert space.valid(matrix).tolist() == [spec.valid(row) for row in rows]
    for row in (row for row in rows if not spec.valid(row)):
        with pytest.raises(InvalidArchitecture, match="breaks the constraint of line"):
            space.key(np.array([row], np.int8))
    keys = dict(zip(valid, space.key(np.array(valid, np.int8)).tolist(), strict=True))
    by_class = {c: {keys[row] for row in c if row in keys} for c in networks}
    assert all(len(k) == 1 for k in by_class.values())
    assert len(set().union(*by_class.values())) == len(networks)
    listed = [tuple(row) for row in space.enumerate().tolist()]
    assert {classes[row] for row in listed} == networks
    assert all(spec.valid(row) for row in listed)
    if spec.costs:
        exact = [spec.cost(row) for row in listed]
        whole = [int((2 * c + 1) // 2) for c in exact]
        assert space.costs(space.enumerate())["flops"].tolist() == whole
        assert space.encode(space.enumerate())[:, -1].tolist() == [float(np.float32(c)) for c in exact]

    some = listed[:: max(1, len(listed) // 12)]
    children, parents = space.neighbors(np.array(some, np.int8))
    for i, row in enumerate(some):
        found = {classes[tuple(c)] for c in children[parents == i].tolist()}
        near = {
            c
            for c in networks
            if c != classes[row]
            and any(sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a in c for b in classes[row])
        }
        assert found == near
    for row in some[:4]:
        others = listed[:: max(1, len(listed) // 25)]
        there = space.distance(np.array([row] * len(others), np.int8), np.array(others, np.int8))
        assert there.tolist() == [
            min(sum(x != y for x, y in zip(a, b, strict=True)) for a in classes[row] for b in classes[other])
            for other in others
        ]


RULED = Spec(
    choices=[
        ["2", "3", "4"],
        ["none", "skip", "conv"],
        ["none", "skip", "conv"],
        ["16", "32"],
        ["16", "32"],
        ["a", "b"],
    ],
    ordered=[[3, 4]],
    forbid=[{1: "none", 2: "none"}],
    implied=[({0: "2"}, {2: ["none", "skip"]})],
    at_most=["150.5"],
    inactive=[({0: "2"}, [4]), ({4: "16"}, [5])],
    exchange=[[[1], [2]]],
    costs={
        1: {"none": "0", "skip": "1.5", "conv": "90"},
        2: {"none": "0", "skip": "1.5", "conv": "90"},
        4: {"16": "0.1", "32": "70"},
    },
)


def test_documented_example(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(EXAMPLE)
    space = read_space(tmp_path / "space.yaml")
    assert isinstance(space, DeclaredSpace)
    assert (space.name, space.metric_name, space.maximize, space.cost_names) == (
        "my_space",
        "accuracy",
        True,
        ("flops",),
    )
    spec = Spec(
        choices=[list(c) for c in space.choices],
        ordered=[[3, 4]],
        forbid=[{1: "none", 2: "none"}],
        implied=[({0: "2"}, {2: ["none", "skip"]})],
        inactive=[({0: "2"}, [4])],
        exchange=[[[1], [2]]],
    )
    check_against_brute_force(spec, space)
    assert space.format(space.parse(["3|skip|none|16|64"])) == ["3|none|skip|16|64"]
    # With depth 2, conv3x3 is not allowed at op2, so the canonical form has it at op1.
    canonical = space.parse(["2|conv3x3|none|64|16"])
    assert space.format(canonical) == ["2|conv3x3|none|64|16"]
    assert space.costs(canonical)["flops"].tolist() == [95]
    assert space.key(space.parse(["2|conv3x3|none|64|32"])) == space.key(canonical)
    with pytest.raises(InvalidArchitecture, match="breaks the constraint of line 13") as caught:
        space.parse(["3|skip|none|16|64", "2|none|conv3x3|64|16"])
    assert caught.value.row == 1
    with pytest.raises(InvalidArchitecture, match="breaks the constraint of line 11"):
        space.parse(["3|skip|none|64|16"])


def test_the_cell_of_nasbench201() -> None:
    ops = "[none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3]"
    text = HEAD + "positions:\n" + "".join(f"  - {{name: edge{i}, choices: {ops}}}\n" for i in range(6))
    space = product(text)
    assert (space.size(), space.size_exact, space.free) == (15_625, True, True)
    assert space.size_interval(np.random.default_rng(0)) == (15_625, 15_625, 1.0)
    _, parents = space.neighbors(space.sample(10, np.random.default_rng(0)))
    assert np.bincount(parents).tolist() == [24] * 10


def test_constraints_exchanges_and_inactive_positions_against_brute_force() -> None:
    check_against_brute_force(RULED, product(RULED.yaml()))


def test_sampling_from_the_listing_and_by_rejection_is_uniform() -> None:
    space = product(RULED.yaml())
    keys = space.key(space.enumerate())
    draws = 60 * len(keys)
    for rows in (space.sample(draws, np.random.default_rng(1)), space.reject(draws, np.random.default_rng(2))):
        counts = np.bincount(np.searchsorted(keys, space.key(rows)), minlength=len(keys))
        assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    "spec",
    [
        # two groups of two in any order, with the same rules
        Spec([["0", "1"]] * 2 + [["a", "b", "c"], ["0", "1"]] * 2 + [["x", "y"]], exchange=[[[2, 3], [4, 5]]]),
        Spec([["0", "1", "2"]] * 4, exchange=[[[0], [1], [2], [3]]]),
        # overlapping exchanges generate more than each alone
        Spec([["0", "1", "2"]] * 4, exchange=[[[0], [1]], [[1], [2]], [[0, 1], [2, 3]]]),
        Spec([["0", "1", "2"]] * 4, exchange=[[[0, 1], [2, 3]]], ordered=[[0, 1]], forbid=[{0: "0", 2: "0"}]),
        # a constraint that differs between exchanged positions
        Spec([["0", "1", "2"]] * 4, exchange=[[[0], [1], [2]]], ordered=[[1, 3]]),
        # chains of rules: the choice of an inactive position has no effect
        Spec([["0", "1"], ["0", "1", "2"], ["0", "1"], ["a", "b"]], inactive=[({1: "0"}, [2, 3]), ({0: "0"}, [1])]),
        # exchanged switches, each with a conditional position
        Spec(
            [["on", "off"], ["a", "b", "c"]] * 2,
            inactive=[({0: "off"}, [1]), ({2: "off"}, [3])],
            exchange=[[[0, 1], [2, 3]]],
        ),
    ],
)
def test_rules_against_brute_force(spec: Spec) -> None:
    check_against_brute_force(spec, product(spec.yaml()))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    n = draw(st.integers(2, 4))
    numbers = st.sampled_from([["1", "2"], ["0.5", "10", "9"], ["-1", "1e1"]])
    texts = st.sampled_from([["no", "yes"], ["0x1", "1.0", "1"], ["on", "~", "null"]])
    choices = draw(st.lists(st.one_of(numbers, texts), min_size=n, max_size=n))
    if draw(st.booleans()):
        choices[1] = choices[0]
    position = st.integers(0, n - 1)

    def match() -> dict[int, str]:
        return {p: draw(st.sampled_from(choices[p])) for p in draw(st.sets(position, min_size=1, max_size=2))}

    spec = Spec(choices)
    numeric = [p for p in range(n) if choices[p][0] in ("1", "0.5", "-1") and choices[p][-1] != "1"]
    if len(numeric) > 1 and draw(st.booleans()):
        spec.ordered = [numeric]
    for _ in range(draw(st.integers(0, 2))):
        spec.forbid.append(match())
    if draw(st.booleans()):
        spec.implied = [(match(), {p: [t] for p, t in match().items()})]
    if draw(st.booleans()):
        spec.costs = {
            p: {t: str(i * 1.5) for i, t in enumerate(choices[p])} for p in draw(st.sets(position, min_size=1))
        }
        spec.at_most = [draw(st.sampled_from(["0.25", "1.75", "3.5", "10"]))]
    for _ in range(draw(st.integers(0, 2))):
        spec.inactive.append((match(), sorted(draw(st.sets(position, min_size=1, max_size=2)))))
    if choices[0] == choices[1] and draw(st.booleans()):
        spec.exchange = [[[0], [1]]]
    return spec


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(specs())
def test_any_small_space_against_brute_force(spec: Spec) -> None:
    try:
        space = product(spec.yaml())
    except ConfigError as error:
        if "leave no network" in str(error):
            assert not any(spec.valid(row) for row in spec.rows())
        assume(False)
    check_against_brute_force(spec, space)


def test_choices_are_kept_as_typed() -> None:
    choices = ["no", "on", "1", "1.0", "0x10", "~", "null", "1e3", "2024-01-01", "0o7", ".5", "Yes"]
    space = product(
        HEAD
        + f"positions:\n  - {{name: a, choices: [{', '.join(choices)}]}}\n  - {{name: b, choices: ['1', \"no\"]}}\n"
    )
    assert space.choices == (tuple(choices), ("1", "no"))
    names = [f"{c}|no" for c in choices]
    assert space.format(space.parse(names)) == names
    assert len(set(space.key(space.parse(names)).tolist())) == len(choices)


def test_numbers_are_compared_exactly() -> None:
    """0.1 + 0.2 equals 0.3, and 9 comes before 10."""
    text = HEAD + (
        "positions:\n  - {name: a, choices: [9, 10]}\n  - {name: b, choices: [1e1, 9.5]}\n"
        "constraints:\n  - {ordered: [a, b]}\n  - {at_most: {cost: ms, value: 0.3}}\n"
        "costs:\n  ms: {a: {9: 0.1, 10: 0.2}, b: {1e1: 0.1, 9.5: 0.2}}\n"
    )
    assert sorted(product(text).format(product(text).enumerate())) == ["10|1e1", "9|1e1", "9|9.5"]
    assert product(text.replace("0.3", "0.29999999999")).size() == 1


def test_a_free_space_of_more_than_2_to_the_64_rows() -> None:
    text = HEAD + "positions:\n" + "".join(f"  - {{name: p{i}, choices: [a, b, c, d, e]}}\n" for i in range(40))
    space = product(text)
    assert (space.size(), space.size_exact, space.exact_keys) == (5**40, True, False)
    rows = space.sample(20_000, np.random.default_rng(0))
    assert len(np.unique(space.key(rows))) == len(rows)
    children, parents = space.neighbors(rows[:5])
    assert np.bincount(parents).tolist() == [160] * 5
    assert (space.distance(rows[parents], children) == 1).all()


LARGE = HEAD + (
    "positions:\n"
    + "".join(f"  - {{name: p{i}, choices: [0, 1, 2, 3]}}\n" for i in range(12))
    + "constraints:\n  - {ordered: [p0, p1, p2]}\n"
)


def test_the_size_of_a_large_space_with_rules_is_an_interval() -> None:
    space = product(LARGE)
    assert (space.size(), space.size_exact) == (4**12, False)
    low, high, confidence = space.size_interval(np.random.default_rng(0))
    exact = 20 * 4**9  # non-decreasing triples of four numbers
    assert low < exact < high
    assert high - low < 0.05 * exact
    assert confidence == 0.99
    with pytest.raises(UserError, match="too large to list"):
        space.enumerate()


def test_distinct_samples_of_a_large_space_terminate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve non-decreasing numbers leave 455 of 16 million rows, which are sampled from a list here."""
    space = product(LARGE.replace("[p0, p1, p2]", "[" + ", ".join(f"p{i}" for i in range(12)) + "]"))
    few = space.sample(3, np.random.default_rng(0))
    assert (np.diff(few, axis=1) >= 0).all()
    chosen = np.array(list(itertools.combinations_with_replacement(range(4), 12)), np.int8)
    assert len(chosen) == 455
    monkeypatch.setattr(space, "sample", lambda n, rng: chosen[rng.integers(0, 455, n)])
    assert len(np.unique(space.key(space.sample_distinct(455, np.random.default_rng(0))))) == 455
    with pytest.raises(UserError, match=r"of which 455 were found; .* further draws gave no new one"):
        space.sample_distinct(500, np.random.default_rng(0))


def test_many_activated_positions_start_at_their_first_choice() -> None:
    """One switch activates six positions of three choices: 729 fillings are too many for one edit."""
    names = ", ".join(f"p{i}" for i in range(6))
    text = HEAD + "positions:\n  - {name: s, choices: [off, on]}\n"
    text += "".join(f"  - {{name: p{i}, choices: [a, b, c]}}\n" for i in range(6))
    space = product(text + f"inactive:\n  - {{when: {{s: off}}, positions: [{names}]}}\n")
    assert not space.fills
    assert space.size() == 1 + 3**6
    off = space.parse(["off|a|a|a|a|a|a"])
    assert space.format(space.neighbors(off)[0]) == ["on|a|a|a|a|a|a"]
    on = space.parse(["on|a|b|a|a|a|c", "on|a|a|a|a|a|a"])
    assert space.distance(np.repeat(off, 2, axis=0), on).tolist() == [3, 1]
    assert space.distance(on, np.repeat(off, 2, axis=0)).tolist() == [1, 1]


def test_inactive_positions_have_no_cost_slot_or_features() -> None:
    text = EXAMPLE.replace("op1: {conv3x3", "width2: {16: 7, 32: 8, 64: 9}, op1: {conv3x3")
    space = product(text)
    rows = space.parse(["2|skip|none|16|64", "3|skip|none|16|64"])
    assert space.costs(rows)["flops"].tolist() == [5, 14]
    assert space.slots(rows)[:, 4].tolist() == [-1, 2]
    assert (space.encode(rows)[0, 12:15] == 0).all()


# -- conformance -------------------------------------------------------------------------------------
class TestRuledSpace(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        wide = replace(RULED, choices=[*RULED.choices, ["a", "b", "c", "d"], ["8", "9", "10", "11"], ["x", "y", "z"]])
        return product(wide.yaml().replace("0.25", "1"))


class TestExchanges(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return product(Spec([["0", "1", "2"]] * 7, exchange=[[[0, 1], [2, 3], [4, 5]]]).yaml())


class TestLargeRuledSpace(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return product(LARGE)


class TestHashedKeys(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return product(HEAD + "positions:\n" + "".join(f"  - {{name: p{i}, choices: [a, b, c]}}\n" for i in range(45)))


class TestSmallCell(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return parse_space(NASBENCH101.replace("vertices: 7", "vertices: 5").replace("edges: 9", "edges: 8"), "s")


class TestFiveOperations(SpaceSuite):
    """Five operations need 64-bit tables."""

    @pytest.fixture
    def space(self) -> Space:
        return five_operations()


class TestEdgeCell(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return parse_space(HEAD + "kind: cell\ncell: {vertices: 5, max_edges: 7, ops: [a, b, c], ops_on: edges}", "s")


class TestLargeEdgeCell(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return large_edge_cell()


@cache
def five_operations() -> Space:
    text = "kind: cell\ncell: {vertices: 6, max_edges: 7, ops: [a, b, c, d, e], ops_on: vertices}"
    return parse_space(HEAD + text, "s")


@cache
def large_edge_cell() -> Space:
    return EdgeCellSpace("large", "abcde", 7, 9)


# -- cells -------------------------------------------------------------------------------------------
def test_nasbench101_is_an_instance() -> None:
    space, known = parse_space(NASBENCH101, "s"), spaces.get("nasbench101")
    assert isinstance(space, CellSpace)
    assert space.size() == 423_624
    assert (space.key(space.enumerate()) == known.key(known.enumerate())).all()
    rows = known.sample(200, np.random.default_rng(0))
    assert space.format(rows) == known.format(rows)
    assert (
        space.mutate(rows, np.full(200, 2), np.random.default_rng(1))
        == known.mutate(rows, np.full(200, 2), np.random.default_rng(1))
    ).all()


def test_spaces_of_fewer_vertices_are_the_small_cells_of_nasbench101() -> None:
    known = spaces.get("nasbench101")
    names = known.format(known.enumerate())
    for vertices, edges in ((2, 1), (3, 3), (5, 8)):
        text = NASBENCH101.replace("vertices: 7", f"vertices: {vertices}").replace("edges: 9", f"edges: {edges}")
        space = parse_space(text, "s")
        small = [
            name
            for name in names
            if len(name.partition("-")[2]) <= vertices - 2 and name.partition("-")[0].count("1") <= edges
        ]
        assert sorted(space.format(space.enumerate())) == sorted(small)
    with pytest.raises(InvalidArchitecture, match="6 vertices after pruning, at most 5"):
        space.parse(["100001000100101-0000"])


def edge_graph(row: tuple[int, ...], vertices: int) -> Any:
    """Return the pruned cell as a labelled graph."""
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from((v, {"end": v if v in (0, vertices - 1) else -1}) for v in range(vertices))
    pairs = itertools.combinations(range(vertices), 2)
    graph.add_edges_from((i, j, {"op": op}) for (i, j), op in zip(pairs, row, strict=True) if op)
    last = vertices - 1
    return graph.subgraph((nx.descendants(graph, 0) | {0}) & (nx.ancestors(graph, last) | {last})).copy()


def same(a: Any, b: Any) -> bool:
    found = DiGraphMatcher(a, b, lambda x, y: x["end"] == y["end"], lambda x, y: x["op"] == y["op"])
    return bool(found.is_isomorphic())


def edge_classes(vertices: int, n_ops: int, max_edges: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield every raw row that is a valid cell, with a number that is equal for isomorphic ones."""
    known: dict[str, list[tuple[Any, int]]] = {}
    count = 0
    for row in itertools.product(range(n_ops + 1), repeat=vertices * (vertices - 1) // 2):
        graph = edge_graph(row, vertices)
        if 0 not in graph or vertices - 1 not in graph or not 0 < graph.number_of_edges() <= max_edges:
            continue
        if not nx.has_path(graph, 0, vertices - 1):
            continue
        shape = sorted((graph.in_degree(v), graph.out_degree(v)) for v in graph)
        similar = known.setdefault(f"{shape} {sorted(op for *_, op in graph.edges.data('op'))}", [])
        number = next((i for other, i in similar if same(graph, other)), None)
        if number is None:
            number, count = count, count + 1
            similar.append((graph, number))
        yield row, number


@pytest.mark.parametrize(("vertices", "n_ops", "max_edges"), [(2, 3, 1), (3, 3, 3), (4, 2, 6), (4, 3, 4), (5, 1, 7)])
def test_edge_cells_against_networkx(vertices: int, n_ops: int, max_edges: int) -> None:
    space = EdgeCellSpace("edge", "abc"[:n_ops], vertices, max_edges)
    found = dict(edge_classes(vertices, n_ops, max_edges))
    keys = space.key(np.array(list(found), np.int8))
    pairs = set(zip(found.values(), keys.tolist(), strict=True))
    assert (
        len(pairs) == len({n for n, _ in pairs}) == len({k for _, k in pairs}) == space.size() == len(space.enumerate())
    )
    every = itertools.product(range(n_ops + 1), repeat=vertices * (vertices - 1) // 2)
    for row in itertools.islice((r for r in every if r not in found), 300):
        with pytest.raises(InvalidArchitecture, match=r"no path|edges after pruning, at most"):
            space.key(np.array([row], np.int8))


@pytest.mark.parametrize(("vertices", "n_ops", "max_edges"), [(4, 2, 5), (5, 1, 7)])
def test_distances_of_edge_cells_against_brute_force(vertices: int, n_ops: int, max_edges: int) -> None:
    """The minimum Hamming distance from an architecture's forms (unused vertices without edges) to all raw rows."""
    space = EdgeCellSpace("edge", "abc"[:n_ops], vertices, max_edges)
    rows = space.enumerate()
    keys = space.key(rows)
    raw = np.array(list(itertools.product(range(n_ops + 1), repeat=space.genome_len)), np.int8)
    _, raw_keys, ok = space.canonical_forms(raw)
    raw, raw_keys = raw[ok], raw_keys[ok]
    pruned = np.array(
        [edge_graph(tuple(r), vertices).number_of_edges() == (r > 0).sum() for r in raw.tolist() for r in [np.array(r)]]
    )
    rng = np.random.default_rng(0)
    for i in rng.choice(len(rows), 25, replace=False).tolist():
        forms = raw[pruned & (raw_keys == keys[i])]
        distance = (forms[:, None] != raw[None]).sum(axis=2).min(axis=0)
        expected = {int(k): int(distance[raw_keys == k].min()) for k in keys}
        found = space.distance(np.repeat(rows[i : i + 1], len(rows), axis=0), rows)
        assert found.tolist() == [expected[int(k)] for k in keys]
        children, _ = space.neighbors(rows[i : i + 1])
        assert set(space.key(children).tolist()) == {k for k, d in expected.items() if d == 1}


def test_large_edge_cells_are_counted_without_listing() -> None:
    space = EdgeCellSpace("edge", "abcdefg", 7, 21)
    assert space.size() > 10**18
    rows = space.sample(300, np.random.default_rng(0))
    assert len(np.unique(space.key(rows))) == 300
    with pytest.raises(UserError, match="too large to list"):
        space.enumerate()


# -- error messages ----------------------------------------------------------------------------------
POSITIONS = (
    "positions:\n  - {name: a, choices: [1, 2]}\n  - {name: b, choices: [1, 2]}\n  - {name: c, choices: [x, y]}\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["line 1: expected a mapping"]),
        ("- a\n- b\n", ["line 1: expected a mapping"]),
        ("just text", ["line 1: expected a mapping"]),
        ("name: s\n", ["line 1: the key 'metric' is missing", "line 1: the key 'positions' is missing"]),
        (
            HEAD + POSITIONS + "constrains: []\n",
            ["line 7: unknown key 'constrains'. Did you mean 'constraints'?"],
        ),
        (HEAD + POSITIONS + "name: t\n", ["line 7: duplicate key 'name', first in line 1"]),
        (HEAD + POSITIONS + "  - {name: a, choices: [1, 2]}\n", ["line 7: duplicate position 'a', first in line 4"]),
        (
            HEAD + POSITIONS + "  - {name: d, choices: [1]}\n",
            ["line 7: positions.3.choices: 1 choice, at least 2 are needed; remove a position without alternatives"],
        ),
        (HEAD + POSITIONS + "  - {name: d, choices: []}\n", ["line 7: positions.3.choices: the list is empty"]),
        (HEAD + POSITIONS + "  - {name: d, choices: [1, 1]}\n", ["line 7: positions.3.choices.1: '1' is listed twice"]),
        (
            HEAD + POSITIONS + "  - {name: d, choices: [1, 'a|b']}\n",
            ["line 7: positions.3.choices.1: 'a|b' contains '|', which separates choices in names of architectures"],
        ),
        (
            HEAD + POSITIONS + "  - {name: d, choices: [1, '']}\n",
            ["line 7: positions.3.choices.1: expected a text, found nothing"],
        ),
        (
            HEAD + POSITIONS + "  - {name: d, choices: [1, [2]]}\n",
            ["line 7: positions.3.choices.1: expected a text, found a list"],
        ),
        (
            HEAD + POSITIONS + "  - {name: acc, choices: [1, 2]}\n",
            ["line 7: positions.3.name: a position can't be called 'acc', which means something else in labels"],
        ),
        (
            HEAD + POSITIONS + "  - {name: arch, choices: [1, 2]}\n",
            ["line 7: positions.3.name: a position can't be called 'arch', which means something else in labels"],
        ),
        (HEAD + POSITIONS + "  - {name: d}\n", ["line 7: positions.3: the key 'choices' is missing"]),
        (
            HEAD + POSITIONS + f"  - {{name: d, choices: {list(range(128))}}}\n",
            ["line 7: positions.3.choices: 128 choices, at most 127 are possible"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {order: [a, b]}\n",
            ["line 8: constraints.0: unknown key 'order'. Did you mean 'ordered'?"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {ordered: [a, c]}\n",
            ["line 8: constraints.0.ordered: position 'c' has the choice 'x', which is not a number"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {ordered: [a]}\n",
            ["line 8: constraints.0.ordered: expected at least 2 positions"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {forbid: {a: 3}}\n",
            ["line 8: constraints.0.forbid.a: unknown choice of a '3'"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {forbid: {d: 1}}\n",
            ["line 8: constraints.0.forbid.d: unknown position 'd'"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {if: {a: 1}}\n",
            ["found if"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {forbid: {a: 1}, ordered: [a, b]}\n",
            ["found forbid, ordered"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {at_most: {cost: flops, value: 3}}\n",
            ["line 8: constraints.0.at_most.cost: unknown cost 'flops'"],
        ),
        (
            HEAD + POSITIONS + "constraints:\n  - {forbid: {a: 1}}\n  - {forbid: {a: 2}}\n",
            ["line 8: constraints leave no network"],
        ),
        (
            HEAD + POSITIONS + "inactive:\n  - {when: {a: 1}, positions: [a]}\n",
            ["line 8: inactive: cyclic dependency of the rules of lines 8"],
        ),
        (
            HEAD + POSITIONS + "inactive:\n  - {when: {a: 1}, positions: [b]}\n  - {when: {b: 1}, positions: [a]}\n",
            ["line 8: inactive: cyclic dependency of the rules of lines 8, 9"],
        ),
        (
            HEAD
            + POSITIONS
            + "inactive:\n  - {when: {a: 1}, positions: [c]}\nequivalent:\n  - {exchange: [[a], [b]]}\n",
            ["line 10: exchange: the rules of `inactive` must stay the same"],
        ),
        (
            HEAD + POSITIONS + "equivalent:\n  - {exchange: [[a], [c]]}\n",
            ["line 8: equivalent.0.exchange: positions 'a' and 'c' don't have the same choices in the same order"],
        ),
        (
            HEAD + POSITIONS + "equivalent:\n  - {exchange: [[a]]}\n",
            ["line 8: equivalent.0.exchange: expected 2 to 12 groups of positions, found 1"],
        ),
        (
            HEAD + POSITIONS + "equivalent:\n  - {exchange: [[a], [b, c]]}\n",
            ["line 8: equivalent.0.exchange: the groups have different numbers of positions"],
        ),
        (
            HEAD + POSITIONS + "equivalent:\n  - {exchange: [[a], [a]]}\n",
            ["line 8: equivalent.0.exchange: a position is in two groups"],
        ),
        (
            HEAD + POSITIONS + "equivalent:\n  - {swap: [[a], [b]]}\n",
            ["line 8: equivalent.0: the key 'exchange' is missing", "line 8: equivalent.0: unknown key 'swap'"],
        ),
        (HEAD + POSITIONS + "costs:\n  flops: {a: {1: 5}}\n", ["line 8: costs.flops.a: no cost for '2'"]),
        (
            HEAD + POSITIONS + "costs:\n  flops: {a: {1: 5, 2: much}}\n",
            ["line 8: costs.flops.a.2: expected a number, found 'much'"],
        ),
        (
            HEAD + POSITIONS + "costs:\n  flops: {a: {1: 5, 2: -1}}\n",
            ["line 8: costs.flops.a.2: a cost can't be negative, found -1"],
        ),
        (
            HEAD + POSITIONS + "costs:\n  flops: {a: {1: 1e30, 2: 1e-30}}\n",
            ["line 8: costs.flops: more than 18 digits are needed to add these up exactly"],
        ),
        (HEAD + POSITIONS + "costs:\n  flops: {z: {1: 5}}\n", ["line 8: costs.flops.z: unknown position 'z'"]),
        (HEAD + POSITIONS + "kind: graph\n", ["line 7: kind: expected 'product' or 'cell', found the text 'graph'"]),
        (
            HEAD.replace("maximize", "up") + POSITIONS,
            ["line 2: metric.direction: expected 'maximize' or 'minimize', found the text 'up'"],
        ),
        (HEAD.replace(", direction: maximize", "") + POSITIONS, ["line 2: metric: the key 'direction' is missing"]),
        (HEAD.replace("name: s", "name: ../s") + POSITIONS, ["line 1: name: expected letters"]),
        (
            HEAD + "positions: &p\n  - {name: a, choices: [1, 2]}\nconstraints: *p\n",
            ["line 3: the anchor &p; write values out instead of anchors and aliases"],
        ),
        (HEAD + "positions: *p\n", ["line 3: the alias *p; write the value out instead"]),
        (HEAD + POSITIONS + "#" * (2 << 20), ["line 1: more than 2,097,152 characters"]),
        (
            HEAD + "positions:\n  - {name: !!python/object:os.system a, choices: [1, 2]}\n",
            ["line 4: the tag tag:yaml.org,2002:python/object:os.system"],
        ),
        (HEAD + POSITIONS + "---\nname: t\n", ["line 7: a second document; one file declares one space"]),
        (HEAD + "positions: [\n", ["not YAML"]),
        (HEAD + "positions: " + "[" * 2000, ["more than 12 lists and mappings inside each other"]),
        ("name: \x07\n", ["not YAML"]),
        (
            NASBENCH101.replace("vertices: 7", "vertices: 8"),
            ["line 4: cell.vertices: expected a whole number from 2 to 7, found '8'"],
        ),
        (
            NASBENCH101.replace("max_edges: 9", "max_edges: 22"),
            ["line 4: cell.max_edges: expected a whole number from 1 to 21, found '22'"],
        ),
        (
            NASBENCH101.replace("on: vertices", "on: nodes"),
            ["line 4: cell.ops_on: expected 'vertices' or 'edges', found the text 'nodes'"],
        ),
        (NASBENCH101.replace("conv1x1", "conv3x3"), ["line 4: cell.ops.1: 'conv3x3' is listed twice"]),
        (
            NASBENCH101.replace("[conv3x3,", "[1, 2, 3, 4, 5, 6, conv3x3,"),
            ["line 4: cell: 9 operations on vertices would need tables of 48.5 GB"],
        ),
        (
            NASBENCH101.replace("[conv3x3,", "[1, 2, 3, 4, 5, 6, conv3x3,").replace("on: vertices", "on: edges"),
            ["line 4: cell: 9 operations on the 21 edges"],
        ),
        (NASBENCH101 + POSITIONS, ["line 5: unknown key 'positions'"]),
        (HEAD + "kind: cell\n", ["line 1: the key 'cell' is missing"]),
    ],
)
def test_error_messages_have_lines(text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "space.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.source == "space.yaml"
    assert len(caught.value.problems) == len(expected), caught.value.problems
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert start in problem


def test_all_problems_are_reported_together() -> None:
    text = (
        "name: s\nkind: product\nmetric: {name: acc, direction: up}\npositions:\n  - {name: a, choices: [1, 2]}\n"
        "  - {name: a, choices: [1]}\nconstraints:\n  - {order: [a]}\n  - {forbid: {b: 1}}\nsizes: 3\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "space.yaml")
    lines = [problem.partition(":")[0] for problem in caught.value.problems]
    assert lines == ["line 3", "line 6", "line 6", "line 8", "line 9", "line 10"]


def test_an_alias_bomb_is_refused() -> None:
    bomb = (
        HEAD
        + "positions:\n  - &a [1, 2]\n"
        + "".join(f"  - &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20))
    )
    with pytest.raises(ConfigError, match="the anchor &a"):
        parse_space(bomb, "space.yaml")


def test_an_empty_space_too_large_to_count_is_refused() -> None:
    text = LARGE + "  - {forbid: {p3: [0, 1]}}\n  - {forbid: {p3: [2, 3]}}\n"
    with pytest.raises(ConfigError, match=r"line 17: constraints leave \(almost\) no network"):
        parse_space(text, "space.yaml")


def test_missing_and_badly_encoded_files(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    with pytest.raises(ConfigError, match="no such file"):
        read_space(path)
    path.write_bytes(b"name: s\nmetric: \xff\n")
    with pytest.raises(ConfigError, match="line 2: byte 16 is not UTF-8"):
        read_space(path)
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.encode())
    assert read_space(path).size() == 72


LINES = [*EXAMPLE.splitlines(), "  - {", "x: &a", "- *a", "? [a]", "!t", "name:", "costs: 3", "---", "positions: a"]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(LINES), max_size=25))
def test_any_lines_are_read_or_refused_with_a_line(lines: list[str]) -> None:
    problems: list[str] = []
    try:
        assert parse_space("\n".join(lines), "s").size() > 0
    except ConfigError as error:
        problems = error.problems
    assert all(problem.startswith("line ") for problem in problems)
