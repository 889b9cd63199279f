"""The decoders of HW-GPT-Bench: sizes, edits, costs, notation, and the published predictor of perplexity."""

from __future__ import annotations

import itertools
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare
from threadpoolctl import threadpool_limits

from lissnas import spaces
from lissnas.benchmarks import surrogates, tables
from lissnas.core.errors import DamagedFile, InvalidArchitecture
from lissnas.oracles.direction import is_minimized
from lissnas.oracles.label_table import metric_of, read_labels
from lissnas.shrinkers.problem import packaged
from lissnas.spaces import GPT, Archs, Space
from lissnas.spaces.balls import Balls
from lissnas.spaces.declared import parse_space
from lissnas.spaces.gpt import SCALES, Values
from lissnas.testing import SpaceSuite

TINY = GPT("tiny", Values((64, 128), (1, 2, 3), (2, 4), (1, 12, 2)))
"""Few enough networks to list: 2 x 2 x (6 + 36 + 216)."""
NAMES = [*SCALES]
GPT_S = GPT("gpt_s", SCALES["gpt_s"])
SMALLEST = "embed-192|layers-10|bias-False|r" + "-2" * 10 + "|h" + "-4" * 10
LARGEST = "embed-768|layers-12|bias-True|r" + "-4" * 12 + "|h" + "-12" * 12


class TestGPTS(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("gpt_s")


class TestGPTL(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("gpt_l")


class TestTiny(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return TINY


def gpt(name: str) -> GPT:
    space = spaces.get(name)
    assert isinstance(space, GPT)
    return space


# -- size and samples ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("gpt_s", 12, 1_903_784_282_946),
        ("gpt_m", 24, 537_684_912_592_251_733_153_026),
        ("gpt_l", 36, 151_858_100_636_256_657_146_478_033_822_541_506),
    ],
)
def test_size(name: str, layers: int, size: int) -> None:
    space = spaces.get(name)
    assert space.size() == size == 6 * sum(9**n for n in (layers - 2, layers - 1, layers))
    assert type(space.size()) is int
    assert space.size_exact
    assert space.genome_len == 3 + 2 * layers


def every_name() -> set[str]:
    """Return the names of all tiny networks, from loops over their decisions."""
    names = set()
    for embed, layers, bias in itertools.product((64, 128), (1, 2, 3), ("True", "False")):
        for ratio in itertools.product("24", repeat=layers):
            for heads in itertools.product(("1", "12", "2"), repeat=layers):
                names.add(f"embed-{embed}|layers-{layers}|bias-{bias}|r-{'-'.join(ratio)}|h-{'-'.join(heads)}")
    return names


def test_tiny_space_is_listed_exactly() -> None:
    names = every_name()
    assert len(names) == 4 * (6 + 36 + 216) == TINY.size()
    assert set(TINY.format(TINY.enumerate())) == names
    allowed = np.indices((2, 3, 2, *[2] * 3, *[3] * 3)).reshape(9, -1).T.astype(np.int8)
    assert len(np.unique(TINY.canonicalize(allowed), axis=0)) == TINY.size()


def test_sample_is_uniform_over_networks_not_rows() -> None:
    keys = TINY.key(TINY.enumerate())
    index = np.searchsorted(keys, TINY.key(TINY.sample(100_000, np.random.default_rng(0))))
    assert chisquare(np.bincount(index, minlength=len(keys))).pvalue > 1e-4


def test_share_of_each_number_of_layers() -> None:
    layers = np.bincount(GPT_S.sample(91_000, np.random.default_rng(1))[:, 1])
    assert chisquare(layers, [1_000, 9_000, 81_000]).pvalue > 1e-4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_products_agree_with_a_listing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = TINY.possible() & (rng.random((9, 3)) < 0.8)
    slots = TINY.slots(TINY.enumerate())
    inside = ((slots < 0) | allowed[np.arange(9), slots]).all(axis=1)
    assert TINY.count_product(allowed) == inside.sum()
    if inside.any():
        rows = TINY.sample_product(allowed, 4_000, rng)
        members = TINY.key(TINY.enumerate()[inside])
        drawn = np.searchsorted(members, TINY.key(rows))
        assert (members[drawn] == TINY.key(rows)).all()
        assert chisquare(np.bincount(drawn, minlength=len(members))).pvalue > 1e-6


# -- edits -----------------------------------------------------------------------------------------
def brute_distance(a: NDArray[np.int8], b: NDArray[np.int8], layers: tuple[int, ...]) -> int:
    """Return the minimum number of differing digits over all choices at inactive positions."""
    n, most = min(layers[a[1]], layers[b[1]]), layers[-1]
    common = [0, 1, 2, *range(3, 3 + n), *range(3 + most, 3 + most + n)]
    return int(sum(a[p] != b[p] for p in common))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_mutations_are_at_the_requested_distance(name: str, seed: int, edits: int) -> None:
    space, rng = gpt(name), np.random.default_rng(seed)
    rows = space.sample(20, rng)
    there = space.mutate(rows, np.full(20, edits), rng)
    distances = space.distance(rows, there)
    expected = [brute_distance(a, b, space.values.layers) for a, b in zip(rows, there, strict=True)]
    assert distances.tolist() == expected
    assert set(expected) <= {edits, 0}
    assert expected.count(edits) > 15
    assert (space.canonicalize(there) == there).all()


def test_distance_agrees_with_all_forms() -> None:
    rows = TINY.sample(400, np.random.default_rng(2))
    a, b = TINY.variants(rows[:200]), TINY.variants(rows[200:])
    brute = (a[:, :, None] != b[:, None]).sum(axis=3).min(axis=(1, 2))
    assert (TINY.distance(rows[:200], rows[200:]) == brute).all()


def test_neighbors_are_all_networks_at_distance_one() -> None:
    everything = TINY.enumerate()
    rows = TINY.sample(30, np.random.default_rng(3))
    neighbors, parents = TINY.neighbors(rows)
    for i, row in enumerate(rows):
        near = TINY.distance(np.repeat(row[None], len(everything), axis=0), everything) == 1
        assert set(TINY.key(everything[near]).tolist()) == set(TINY.key(neighbors[parents == i]).tolist())


def test_number_of_neighbors() -> None:
    """Width 2, biases 1, two other choices for each ratio and number of heads, and the fillings of added layers."""
    for layers, added in ((10, 9 + 81), (11, 1 + 9), (12, 1 + 1)):
        row = GPT_S.parse([f"embed-384|layers-{layers}|bias-True|r{'-3' * layers}|h{'-8' * layers}"])
        assert len(GPT_S.neighbors(row)[0]) == 2 + 1 + 4 * layers + added


def test_distances_agree_with_the_declared_space(tmp_path: Path) -> None:
    declared = parse_space(
        "name: tiny\nmetric: {name: perplexity, direction: minimize}\npositions:\n"
        + "".join(
            f"  - {{name: {p}, choices: {c}}}\n"
            for p, c in [
                ("embed", "[64, 128]"),
                ("layers", "[1, 2, 3]"),
                ("bias", '["True", "False"]'),
                *((f"r{i}", "[2, 4]") for i in (1, 2, 3)),
                *((f"h{i}", "[1, 12, 2]") for i in (1, 2, 3)),
            ]
        )
        + "inactive:\n  - {when: {layers: 1}, positions: [r2, h2, r3, h3]}\n"
        "  - {when: {layers: 2}, positions: [r3, h3]}\n",
        "tiny.yaml",
    )
    assert declared.size() == TINY.size()
    rows = TINY.sample(50, np.random.default_rng(4))
    ours, theirs = TINY.neighbors(rows), declared.neighbors(rows)
    assert (ours[0] == theirs[0]).all()
    assert (ours[1] == theirs[1]).all()


def test_balls_count_networks_once() -> None:
    balls = Balls(TINY, TINY.parse(["embed-64|layers-1|bias-True|r-2|h-12"]), np.array([1]))
    everything = TINY.enumerate()
    near = TINY.distance(np.repeat(balls.centres, len(everything), axis=0), everything) <= 1
    assert (balls.contains(everything) == near).all()
    assert balls.size.value == near.sum()


# -- costs and features ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_costs_agree_with_the_published_formulas(name: str) -> None:
    space = gpt(name)
    rows = space.sample(10_000, np.random.default_rng(5))
    rows[:3_000] = space.canonicalize(
        np.random.default_rng(6).integers(0, space.radix, (3_000, space.genome_len), np.int8)
    )
    costs = space.costs(rows)
    for i, text in enumerate(space.format(rows)):
        embed, layers, bias, ratio, heads = (part.split("-")[1:] for part in text.split("|"))
        d, n, b = int(embed[0]), int(layers[0]), int(bias[0] == "True")
        params = 2 * 50_254 * d + 2 * d
        assert len(ratio) == len(heads) == n
        for r, inner in zip(map(int, ratio), (64 * int(h) for h in heads), strict=True):
            params += d * 3 * inner + inner * d + 2 * d * d * r + 4 * d + b * (3 * inner + d + r * d + d)
        assert costs["params"][i] == params
        assert costs["flops"][i] == 2 * params * 1_024 + 2 * n * 4 * d * 1_024**2


def test_costs_of_the_smallest_and_largest_network() -> None:
    costs = GPT_S.costs(GPT_S.parse([SMALLEST, LARGEST]))
    assert costs["params"].tolist() == [22_746_240, 162_246_144]


def test_features_are_the_active_choices_and_their_aggregates() -> None:
    name = "embed-384|layers-10|bias-False|r-2-2-2-2-3-3-4-4-4-4|h-12-12-4-4-8-8-8-8-4-4"
    (found,) = GPT_S.encode(GPT_S.parse([name]))
    hot, rest = found[:80], found[80:]
    assert hot.sum() == 3 + 2 * 10
    assert hot[:8].tolist() == [0, 1, 0, 1, 0, 0, 0, 1]
    assert (hot[8 + 30 : 8 + 36] == 0).all()
    assert (hot[8 + 36 + 30 :] == 0).all()
    ratio, heads = [30, 3, 2, 4], [72, 7.2, 8, 6]  # sum, mean, mean of the first and of the last four layers
    assert rest[:9].tolist() == pytest.approx([*ratio, *heads, 10])
    params = GPT_S.costs(GPT_S.parse([name]))["params"][0]
    assert 2.0 ** rest[10] == pytest.approx(params, rel=1e-5)


def test_inactive_digits_change_nothing() -> None:
    rng = np.random.default_rng(7)
    raw = rng.integers(0, GPT_S.radix, (500, 27), np.int8)
    rows = GPT_S.canonicalize(raw)
    assert (rows != raw).any()
    assert (GPT_S.key(raw) == GPT_S.key(rows)).all()
    assert (GPT_S.encode(raw) == GPT_S.encode(rows)).all()
    assert GPT_S.format(raw) == GPT_S.format(rows)
    assert (surrogates.gpt_perplexity("gpt_s", raw) == surrogates.gpt_perplexity("gpt_s", rows)).all()
    for cost, values in GPT_S.costs(raw).items():
        assert (values == GPT_S.costs(rows)[cost]).all()


# -- notation --------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*NAMES, "tiny"]), st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_parse_inverts_format(name: str, seed: int, n: int) -> None:
    space = TINY if name == "tiny" else gpt(name)
    rows = space.sample(n, np.random.default_rng(seed))
    assert (space.parse(space.format(rows)) == rows).all()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("embed-192|", "", r"expected embed-\.\.\.\|layers-\.\.\.\|bias-\.\.\.\|r-\.\.\.\|h-\.\.\., found"),
        ("embed-192", "embed-193", "embed: expected 192, 384, 768, found '193'"),
        ("embed-192", "embed", "embed: expected 1 value, found 0"),
        ("embed-192", "embed-192-384", "embed: expected 1 value, found 2"),
        ("layers-10", "layers-13", "layers: expected 10, 11, 12, found '13'"),
        ("layers-10", "layers-11", "r: expected 11 values, one for each layer, found 10"),
        ("bias-False", "bias-false", "bias: expected True, False, found 'false'"),
        ("r-2", "r-12", "r: expected 2, 3, 4, found '12'"),
        ("r-2", "r--2", "r: expected 2, 3, 4, found ''"),
        ("r-2", "r-\0", "r: expected 2, 3, 4"),
        ("h-4", "h", "h: expected 10 values, one for each layer, found 9"),
        ("h-4", "h-4-4", "h: expected 10 values, one for each layer, found 11"),
        ("h-4", "h-04", "h: expected 4, 8, 12, found '04'"),
        ("h-4", "h-4 ", "h: expected 4, 8, 12, found '4 '"),
        ("h-4", "h-٤", "h: expected 4, 8, 12"),
    ],
)
def test_invalid_names_are_refused(old: str, new: str, reason: str) -> None:
    with pytest.raises(InvalidArchitecture, match=rf"row 2.*{reason}"):
        GPT_S.parse([LARGEST, SMALLEST, SMALLEST.replace(old, new, 1), "worse"])


# -- the predictor of perplexity -------------------------------------------------------------------
def direct(name: str, rows: Archs) -> NDArray[np.float64]:
    """Evaluate the packaged weights in 64 bits, with inputs made by loops in the published order."""
    space = gpt(name)
    v, inputs = space.values, np.zeros((len(rows), 8 + 6 * space.max_layers))
    for i, text in enumerate(space.format(rows)):
        embed, layers, bias, ratio, heads = (part.split("-")[1:] for part in text.split("|"))
        inputs[i, v.embed.index(int(embed[0]))] = 1
        inputs[i, 3 + v.layers.index(int(layers[0]))] = 1
        for layer, (r, h) in enumerate(zip(ratio, heads, strict=True)):
            inputs[i, 6 + 3 * layer + v.ratio.index(int(r))] = 1
            inputs[i, 6 + 3 * space.max_layers + 3 * layer + v.heads.index(int(h))] = 1
        inputs[i, -2 if bias == ["True"] else -1] = 1
    file = np.load(BytesIO(tables.read_bytes(f"hw{name}_perplexity.npz")))
    for i in range(1, 6):
        inputs = inputs @ file[f"fc{i}_weight"].astype(np.float64).T + file[f"fc{i}_bias"]
        inputs = np.maximum(inputs, 0) if i < 5 else inputs
    return inputs[:, 0]


@pytest.mark.parametrize("name", NAMES)
def test_perplexity_agrees_with_a_direct_evaluation(name: str) -> None:
    rows = spaces.get(name).sample(1_000, np.random.default_rng(8))
    found = surrogates.gpt_perplexity(name, rows)
    assert found.dtype == np.float64
    assert np.allclose(found, direct(name, rows), rtol=1e-5, atol=0)


def test_perplexity_of_each_width() -> None:
    """The published weights have these means over rows (uniform in the number of layers)."""
    raw = np.random.default_rng(9).integers(0, GPT_S.radix, (20_000, 27), np.int8)
    found = surrogates.gpt_perplexity("gpt_s", raw)
    means = [found[raw[:, 0] == width].mean() for width in range(3)]
    assert means == pytest.approx([40.8, 32.1, 24.4], abs=0.05)


@pytest.mark.slow
def test_last_digits_do_not_depend_on_threads() -> None:
    rows = spaces.get("gpt_m").sample(10_000, np.random.default_rng(10))
    whole = surrogates.gpt_perplexity("gpt_m", rows)
    with threadpool_limits(1):
        assert (surrogates.gpt_perplexity("gpt_m", rows) == whole).all()
    assert surrogates.gpt_perplexity("gpt_m", rows[:0]).shape == (0,)


def test_damaged_weights_and_invalid_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = GPT_S.parse([SMALLEST])
    rows[0, 5] = 3
    with pytest.raises(InvalidArchitecture):
        surrogates.gpt_perplexity("gpt_s", rows)
    surrogates._gpt_layers.cache_clear()
    monkeypatch.setitem(tables.CHECKSUMS, "hwgpt_s_perplexity.npz", "0" * 64)
    with pytest.raises(DamagedFile):
        surrogates.gpt_perplexity("gpt_s", GPT_S.parse([SMALLEST]))
    surrogates._gpt_layers.cache_clear()


def test_packaged_source_negates_perplexity() -> None:
    source = packaged(spaces.get("gpt_s"))
    rows = GPT_S.parse([SMALLEST, LARGEST])
    assert source.scorer is not None
    assert (source.scorer.score(rows) == -surrogates.gpt_perplexity("gpt_s", rows)).all()
    assert (source.evaluate(rows) == source.scorer.score(rows)).all()
    assert "not of trained networks" in source.notes[0]
    assert source.minimize


def test_labels_of_perplexity_are_negated(tmp_path: Path) -> None:
    space = spaces.get("gpt_s")
    assert metric_of(space) == "perplexity"
    assert is_minimized(space, "perplexity")
    assert not is_minimized(space, "accuracy")
    file = tmp_path / "labels.csv"
    names = space.format(space.sample(30, np.random.default_rng(11)))
    file.write_text("arch,perplexity\n" + "".join(f"{name},{20 + i}\n" for i, name in enumerate(names)))
    labels = read_labels(file, space)
    assert labels.negated
    assert sorted(labels.values) == [-float(20 + i) for i in reversed(range(30))]
