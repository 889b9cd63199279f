"""AnyNetX: sizes and samples compared with listings, costs with built and published networks, notation."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lissnas import artifacts, spaces
from lissnas.core.errors import InvalidArchitecture, UnknownName, UserError
from lissnas.spaces import AnyNetX, Space
from lissnas.spaces.anynetx import STEPS, VALUES, Described, Values, fitted, non_decreasing, stage_costs
from lissnas.testing import SpaceSuite

REGNETX_200MF = "1x24b1g8|1x56b1g8|4x152b1g8|7x368b1g8"
SMALL: dict[str, Any] = {"width": 0.25, "stem_stride": 1, "classes": 10}
PATTERN = r"[1-9]\d*x[1-9]\d*b[1-9]\d*g[1-9]\d*"
TINY = Values(depth=(1, 2, 3), width=(8, 16, 24, 32), bottleneck=(1, 2), group=(1, 8))


def anynetx(name: str) -> AnyNetX:
    space = spaces.get(name)
    assert isinstance(space, AnyNetX)
    return space


def tiny(name: str, stages: int = 2) -> AnyNetX:
    """Return the space of a design step with few values."""
    return AnyNetX(f"tiny_{name}", *STEPS[name], values=TINY, stages=stages)


# -- conformance ------------------------------------------------------------------------------------
class TestA(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("anynetx")


class TestB(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("anynetx_b")


class TestC(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("anynetx_c")


class TestD(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("anynetx_d")


class TestE(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("anynetx_e")


class TestTinyE(SpaceSuite):
    """Small enough to list: sampling is tested against the listing."""

    @pytest.fixture
    def space(self) -> Space:
        return tiny("anynetx_e", 3)


# -- sizes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "size", "genome_len"),
    [
        ("anynetx", 1_846_757_322_198_614_016, 16),
        ("anynetx_b", 68_398_419_340_689_408, 13),
        ("anynetx_c", 316_659_348_799_488, 10),
        ("anynetx_d", 13_821_510_942_720, 10),
        ("anynetx_e", 817_446_539_520, 10),
    ],
)
def test_sizes(name: str, size: int, genome_len: int) -> None:
    space = spaces.get(name)
    assert space.size() == size
    assert space.genome_len == genome_len
    assert not space.size_exact


def plain_listing(name: str, stages: int) -> set[str]:
    """Return all descriptions of a tiny space, by its definition."""
    found = set()
    for row in itertools.product(itertools.product(*TINY), repeat=stages):
        depth, width, bottleneck, group = zip(*row, strict=True)
        if (
            (name == "anynetx" or len(set(bottleneck)) == 1)
            and (name in ("anynetx", "anynetx_b") or len(set(group)) == 1)
            and (name not in ("anynetx_d", "anynetx_e") or list(width) == sorted(width))
            and (name != "anynetx_e" or list(depth) == sorted(depth))
        ):
            found.add("|".join(f"{d}x{w}b{b}g{g}" for d, w, b, g in row))
    return found


@pytest.mark.parametrize("name", STEPS)
def test_a_tiny_space_agrees_with_its_definition(name: str) -> None:
    space = tiny(name)
    expected = plain_listing(name, 2)
    assert space.size() == len(expected)
    assert set(space.format(space.enumerate())) == expected
    assert space.free == (space.size() == np.prod(space.radix))


@pytest.mark.parametrize("name", STEPS)
def test_neighbors_differ_in_one_position(name: str) -> None:
    space = tiny(name)
    rows = space.enumerate()
    for at in (0, len(rows) // 2, len(rows) - 1):
        expected = rows[(rows != rows[at]).sum(axis=1) == 1]
        found, _ = space.neighbors(rows[at : at + 1])
        assert set(space.key(found).tolist()) == set(space.key(expected).tolist())


# -- sampling ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", STEPS)
def test_samples_are_uniform(name: str) -> None:
    space = tiny(name)
    draws = 30 * space.size()
    keys = space.key(space.sample(draws, np.random.default_rng(3)))
    counts = np.bincount(np.searchsorted(space.key(space.enumerate()), keys), minlength=space.size())
    assert len(counts) == space.size()
    assert chisquare(counts).pvalue > 1e-3


def test_non_decreasing_sequences_are_equally_likely() -> None:
    rows = non_decreasing(35 * 400, 4, 4, np.random.default_rng(1))
    counts = Counter(map(tuple, rows.tolist()))
    assert set(counts) == set(itertools.combinations_with_replacement(range(4), 4))
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("name", STEPS)
def test_mean_widths_of_full_size_samples(name: str) -> None:
    """Sorted widths are subsets of 4 out of 131, minus 0 to 3: the i-th (from 0) has mean (i + 1) 132 / 5 - 1 - i."""
    space = anynetx(name)
    rows = space.sample(40_000, np.random.default_rng(2)).astype(float)
    width = rows[:, space.spans["width"]]
    expected = [(i + 1) * 132 / 5 - 1 - i for i in range(4)] if "width" in space.ordered else [63.5] * 4
    assert width.mean(axis=0) == pytest.approx(expected, abs=0.8)


@pytest.mark.parametrize("name", STEPS)
def test_mutate_succeeds_for_any_number_of_edits(name: str) -> None:
    """Even if most draws are out of order, and from rows at the end of the range."""
    space = anynetx(name)
    rows = space.sample(100, np.random.default_rng(5))
    rows[:, space.spans["width"]][0] = 127
    rows[:, space.spans["depth"]][0] = 0
    for edits in range(1, space.max_edits + 1):
        found = space.mutate(rows, np.full(len(rows), edits), np.random.default_rng(edits))
        space.key(found)
        changed = (found != rows).sum(axis=1)
        assert set(changed.tolist()) <= {0, edits}
        assert (changed == edits).mean() >= 0.99


def test_single_edits_are_uniform_over_neighbors() -> None:
    space = tiny("anynetx_e", 3)
    for row in space.sample(3, np.random.default_rng(8)):
        neighbors, _ = space.neighbors(row[None])
        draws = 200 * len(neighbors)
        found = space.mutate(np.repeat(row[None], draws, axis=0), np.ones(draws, np.int64), np.random.default_rng(9))
        counts = Counter(space.key(found).tolist())
        assert set(counts) == set(space.key(neighbors).tolist())
        assert chisquare(list(counts.values())).pvalue > 1e-3


# -- stages as built --------------------------------------------------------------------------------
def plain_fit(width: int, bottleneck: int, group: int) -> tuple[int, int, int]:
    """Return width, inner channels and group width by RegNet's rule, for one stage."""
    inner = int(max(1, width * (1 / bottleneck)))
    group = min(group, inner)
    inner = round(inner / group) * group
    return int(inner * bottleneck), inner, group


def test_every_stage_is_fitted_as_in_regnet() -> None:
    grid = np.array(list(itertools.product(VALUES.width, VALUES.bottleneck, VALUES.group)))
    built = fitted(Described(np.ones((len(grid), 1), np.int64), *(column[:, None] for column in grid.T)))
    found = np.column_stack([built.width, built.inner, built.group])
    assert [tuple(row) for row in found.tolist()] == [plain_fit(*row) for row in grid.tolist()]
    assert (built.inner % built.group == 0).all()
    # The figures of A in the docstring: distinct stages for each depth, and the share built without rounding.
    assert len(np.unique(found, axis=0)) == 1496
    as_described = ((built.width[:, 0] == grid[:, 0]) & (built.group[:, 0] == grid[:, 2])).mean()
    assert as_described**4 == pytest.approx(0.17, abs=0.005)


def test_descriptions_of_one_network_have_equal_features_and_costs() -> None:
    space = spaces.get("anynetx")
    rows = space.parse(["1x8b1g32|" + "2x64b1g8|" * 2 + "1x64b1g1", "1x8b1g8|" + "2x64b1g8|" * 2 + "1x64b1g1"])
    assert space.key(rows)[0] != space.key(rows)[1]
    assert (space.encode(rows)[0] == space.encode(rows)[1]).all()
    assert all(cost[0] == cost[1] for cost in space.costs(rows).values())


def test_distinct_networks_have_distinct_features() -> None:
    space = anynetx("anynetx")
    rows = space.sample(20_000, np.random.default_rng(0))
    built = np.concatenate([*fitted(space.described(rows))], axis=1)
    assert len(np.unique(space.encode(rows), axis=0)) == len(np.unique(built, axis=0))


def test_costs_of_regnetx_200mf_are_the_published_ones() -> None:
    space = spaces.get("anynetx_c")
    costs = space.costs(space.parse([REGNETX_200MF]))
    assert costs["flops"][0] == pytest.approx(200e6, rel=0.01)
    assert costs["params"][0] == 2_684_792  # published: "2.7 M"; the exact number of the released weights


def test_costs_by_hand() -> None:
    """Depths 2, 1, 1, 1, all widths 8; bottleneck 2 gives 4 inner channels in 2 groups of 2."""
    space = spaces.get("anynetx")
    rows = space.parse(["2x8b2g2|" + "|".join(["1x8b2g2"] * 3)])
    stem = 3 * 9 * 32
    enter, first = 32 * 4, 9 * 2 * 4 + 4 * 8 + 32 * 8  # 1x1; 3x3 in groups, 1x1, shortcut
    later = 8 * 4 + 9 * 2 * 4 + 4 * 8
    enter2, first2 = 8 * 4, 9 * 2 * 4 + 4 * 8 + 8 * 8
    flops = (
        stem * 112**2
        + enter * 112**2
        + (first + later) * 56**2
        + enter2 * (56**2 + 28**2 + 14**2)
        + first2 * (28**2 + 14**2 + 7**2)
        + 8 * 1000
    )
    norms = 2 * (32 + (4 + 4 + 8 + 8) + (4 + 4 + 8) + 3 * (4 + 4 + 8 + 8))
    params = stem + enter + first + later + 3 * (enter2 + first2) + norms + 9 * 1000
    costs = space.costs(rows)
    assert (costs["flops"][0], costs["params"][0]) == (flops, params)


def test_stage_costs_grow_with_depth() -> None:
    one, two, four = (
        stage_costs(fitted(Described(*(np.full((1, 4), v) for v in (depth, 64, 1, 8))))) for depth in (1, 2, 4)
    )
    for a, b, c in zip(one, two, four, strict=True):
        assert (a < b).all()
        assert (c - b == 2 * (b - a)).all()


# -- notation ---------------------------------------------------------------------------------------
def test_notation() -> None:
    space = spaces.get("anynetx")
    (row,) = space.parse(["2x64b1g16|5x160b2g8|1x8b4g1|16x1024b1g32"])
    assert row.tolist() == [1, 4, 0, 15, 7, 19, 0, 127, 0, 1, 2, 0, 4, 3, 0, 5]
    assert space.parse([REGNETX_200MF])[0].tolist()[8:] == [0] * 4 + [3] * 4


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("anynetx", "2x64b1g16|2x64b1g16", "expected 4 stages.*found 2"),
        ("anynetx", "1x8b1g1|" * 4, "expected 4 stages.*found 5"),
        ("anynetx", "1x8b1g1|1x8b1g1|1x8b1g1|1x9b1g1", "stage 3 is '1x9b1g1'.*steps of 8"),
        ("anynetx", "1x8b1g1|17x8b1g1|1x8b1g1|1x8b1g1", "stage 1 is '17x8b1g1'.*depth 1 to 16"),
        ("anynetx", "1x8b3g1|1x8b1g1|1x8b1g1|1x8b1g1", "stage 0 is '1x8b3g1'"),
        ("anynetx", "1x8b1g64|1x8b1g1|1x8b1g1|1x8b1g1", "stage 0"),
        ("anynetx", "01x8b1g1|1x8b1g1|1x8b1g1|1x8b1g1", "stage 0"),
        ("anynetx", "1x8b1g1 |1x8b1g1|1x8b1g1|1x8b1g1", "stage 0"),
        ("anynetx_b", "1x8b1g1|1x8b2g1|1x8b1g1|1x8b1g1", "share one bottleneck"),
        ("anynetx_c", "1x8b1g1|1x8b1g2|1x8b1g1|1x8b1g1", "share one group"),
        ("anynetx_d", "1x8b1g1|1x16b1g1|1x8b1g1|1x8b1g1", "width decreases"),
        ("anynetx_e", "2x8b1g1|1x8b1g1|1x8b1g1|1x8b1g1", "depth decreases"),
    ],
)
def test_bad_notation(name: str, text: str, reason: str) -> None:
    good = "1x8b1g1|1x8b1g1|1x8b1g1|1x8b1g1"
    with pytest.raises(InvalidArchitecture, match=reason) as caught:
        spaces.get(name).parse([good, good, text, text])
    assert caught.value.row == 2


STAGE_TEXT = st.builds(
    "{}x{}b{}g{}".format,
    st.integers(0, 18),
    st.integers(0, 130).map(lambda i: 8 * i),
    *([st.sampled_from([1, 2, 4, 8])] * 2),
)
NAMES = st.lists(STAGE_TEXT, min_size=3, max_size=5).map("|".join) | STAGE_TEXT.map(lambda text: "|".join([text] * 4))


def test_the_first_bad_row_is_reported_for_any_problem() -> None:
    good, down, mixed, typo = (
        "|".join(four)
        for four in (
            ["1x8b1g1"] * 4,
            ["1x16b1g1", *["1x8b1g1"] * 3],
            ["1x8b1g2", *["1x8b1g1"] * 3],
            ["1x8b1g3"] * 4,
        )
    )
    for wrong in itertools.permutations([down, mixed, typo]):
        with pytest.raises(InvalidArchitecture) as caught:
            spaces.get("anynetx_d").parse([good, *wrong])
        assert caught.value.row == 1
        with pytest.raises(InvalidArchitecture) as alone:
            spaces.get("anynetx_d").parse([wrong[0]])
        assert caught.value.reason == alone.value.reason


@settings(max_examples=300)
@given(st.sampled_from(sorted(STEPS)), NAMES | st.text(alphabet="0123456789xbg|", max_size=40))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    """A text is read if and only if a plain implementation of the rules allows it."""
    space = anynetx(name)
    stages = [tuple(map(int, re.split("[xbg]", part))) for part in text.split("|") if re.fullmatch(PATTERN, part)]
    good = len(stages) == 4 == text.count("|") + 1 and all(
        v in choices for stage in stages for v, choices in zip(stage, VALUES, strict=True)
    )
    for parameter, values in zip(VALUES._fields, zip(*stages, strict=True), strict=False):
        good = good and (parameter not in space.shared or len(set(values)) == 1)
        good = good and (parameter not in space.ordered or list(values) == sorted(values))
    if good:
        assert space.format(space.parse([text])) == [text]
    else:
        with pytest.raises(InvalidArchitecture):
            space.parse([text])


def test_rows_out_of_order_are_refused() -> None:
    space = spaces.get("anynetx_d")
    rows = space.sample(3, np.random.default_rng(0))
    rows[1, 4:8] = [3, 2, 1, 0]
    with pytest.raises(InvalidArchitecture, match="not a network of anynetx_d") as caught:
        space.key(rows)
    assert caught.value.row == 1


def test_each_step_is_a_subset_of_the_previous_one() -> None:
    names = list(STEPS)
    for wider, narrower in itertools.pairwise(names):
        rows = spaces.get(narrower).sample(50, np.random.default_rng(0))
        text = spaces.get(narrower).format(rows)
        assert spaces.get(wider).format(spaces.get(wider).parse(text)) == text


def test_spaces_do_not_import_torch() -> None:
    code = "import sys, lissnas.spaces as s; s.get('anynetx').size(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- networks ---------------------------------------------------------------------------------------
@pytest.fixture
def torch() -> Iterator[Any]:
    module = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")
    before = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(before)


def counted(torch: Any, network: Any, side: int) -> tuple[int, int]:
    """Return multiply-adds of convolutions and classifier, by hooks, and parameters, on the meta device."""
    flops = 0

    def count(module: Any, _: Any, out: Any) -> None:
        nonlocal flops
        flops += module.weight.numel() * out[0, 0].numel()

    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return flops, sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", STEPS)
def test_costs_agree_with_built_networks(torch: Any, name: str) -> None:
    from lissnas import nets

    space = spaces.get(name)
    rows = space.sample(10, np.random.default_rng(4))
    costs = space.costs(rows)
    for i, row in enumerate(rows):
        with torch.device("meta"):
            network = nets.network(name, row)
        assert counted(torch, network, 224) == (costs["flops"][i], costs["params"][i])


def test_regnetx_200mf_has_the_published_layers(torch: Any) -> None:
    """A stem of stride 2, four strides of 2, and shortcut convolutions in the first block of each stage only."""
    from lissnas import nets

    with torch.device("meta"):
        network: Any = nets.network("anynetx", spaces.get("anynetx").parse([REGNETX_200MF])[0])
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 13 + 4
    assert [c.out_channels // c.groups for c in convolutions if c.kernel_size == (3, 3)][1:] == [8] * 13
    assert sum(c.stride == (2, 2) for c in convolutions) == 1 + 4 + 4
    assert network.body.stem[0].out_channels == 32


@pytest.mark.parametrize(("name", "side"), [("anynetx", 16), ("anynetx_e", 16), ("anynetx_c", 32)])
def test_small_images_train(torch: Any, name: str, side: int) -> None:
    from lissnas import nets

    for i, row in enumerate(spaces.get(name).sample(3, np.random.default_rng(6))):
        network: Any = nets.network(name, row, seed=i, **SMALL).train()
        logits = network(torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(i)))
        assert logits.shape == (4, 10)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3]))
        loss.backward()
        assert torch.isfinite(loss)
        grads = [p.grad for p in network.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads)
        assert any(g.abs().max() > 0 for g in grads)


def test_small_images_are_reduced_to_one_pixel(torch: Any) -> None:
    from lissnas import nets

    row = spaces.get("anynetx").parse([REGNETX_200MF])[0]
    body: Any = nets.network("anynetx", row, **SMALL).eval().body
    assert body.blocks(body.stem(torch.zeros(1, 3, 16, 16))).shape == (1, 96, 1, 1)
    body = nets.network("anynetx", row).eval().body
    assert body.blocks(body.stem(torch.zeros(1, 3, 224, 224))).shape == (1, 368, 7, 7)


def test_width_scales_descriptions_before_they_are_fitted(torch: Any) -> None:
    """A quarter of 24, 56, 152, 368 in multiples of 8 is 8, 16, 40, 96, which groups of 8 divide."""
    from lissnas import nets

    row = spaces.get("anynetx").parse([REGNETX_200MF])[0]
    network: Any = nets.network("anynetx", row, **SMALL)
    blocks = list(network.body.blocks)
    assert [blocks[i].body[-2].out_channels for i in (0, 1, 2, 6)] == [8, 16, 40, 96]
    assert [blocks[i].body[3].groups for i in (0, 1, 2, 6)] == [1, 2, 5, 12]
    assert network.body.stem[0].out_channels == 8


def test_weights_are_a_function_of_the_seed(torch: Any) -> None:
    from lissnas import nets

    row = spaces.get("anynetx").parse([REGNETX_200MF])[0]
    state = torch.get_rng_state()
    a, b, c = (nets.network("anynetx", row, seed=seed, **SMALL).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_initialization_is_that_of_regnet(torch: Any) -> None:
    """Weights are normal with variance 2 / (kernel pixels x outputs), for any number of groups."""
    from lissnas import nets

    network: Any = nets.network("anynetx", spaces.get("anynetx").parse([REGNETX_200MF])[0])
    wide = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.numel() > 10_000]
    assert len(wide) > 10
    for c in wide:
        fan_out = c.out_channels * c.kernel_size[0] ** 2
        assert float(c.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert float(network.body.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)


def test_supernets_are_refused(torch: Any) -> None:
    from lissnas import nets

    for name in STEPS:
        with pytest.raises(UserError, match=f"no supernet of {name} exists"):
            nets.supernet(name)
        with pytest.raises(UserError, match=f"no supernet of {name} exists"):
            nets.supernet(name, spaces.get(name).sample(2, np.random.default_rng(0)), **SMALL)
        assert nets.published_scale(name) == nets.Scale(1.0, 2, 1000)
    with pytest.raises(UnknownName, match="anynetx_e"):
        nets.published_scale("anynetx_f")


def test_a_network_refuses_another_architecture(torch: Any) -> None:
    from lissnas import nets

    space = spaces.get("anynetx")
    a, b = space.sample(2, np.random.default_rng(0))
    network = nets.network("anynetx", a, **SMALL)
    with pytest.raises(UserError, match="the only one built of anynetx"):
        network.body(torch.zeros(2, 3, 16, 16), b)
    with pytest.raises(InvalidArchitecture, match="out of range"):
        nets.network("anynetx", [16] * 16)


def test_a_network_can_be_saved_and_loaded(torch: Any, tmp_path: Path) -> None:
    from lissnas import nets
    from lissnas.nets import files

    row = spaces.get("anynetx_e").parse([REGNETX_200MF])[0]
    network = nets.network("anynetx_e", row, seed=5, **SMALL)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    network.train()(x)  # changes the running statistics
    about = files.describe_network(network, 16, {})
    assert about["arch"] == REGNETX_200MF
    artifacts.publish(
        tmp_path / "net", {files.WEIGHTS: files.weights(network), files.ABOUT: json.dumps(about).encode()}
    )
    loaded = nets.load(tmp_path / "net")
    assert loaded.path == network.path
    assert torch.equal(loaded(x), network.eval()(x))
