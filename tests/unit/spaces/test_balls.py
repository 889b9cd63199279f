"""Unions of balls, compared with their listings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lissnas import spaces
from lissnas.core.errors import UserError
from lissnas.spaces import ChoiceSpace, Space
from lissnas.spaces import balls as module
from lissnas.spaces.balls import Balls, ball_volume, distances
from lissnas.spaces.base import BoolArray
from lissnas.spaces.declared import parse_space
from lissnas.spaces.subspace import Subspace

POSITIONS = """
name: own
metric: {name: acc, direction: maximize}
positions:
  - {name: depth, choices: [1, 2, 3]}
  - {name: a, choices: [x, y, z]}
  - {name: b, choices: [x, y, z]}
  - {name: c, choices: [x, y, z]}
  - {name: width, choices: [8, 16, 32, 64]}
  - {name: last, choices: [x, y]}
"""
ORDERS = "equivalent:\n  - {exchange: [[a], [b], [c]]}\n"
ASYMMETRIC = "constraints:\n  - {forbid: {a: x, width: 64}}\n  - {if: {depth: 1}, then: {last: x}}\n"
INACTIVE = "inactive:\n  - {when: {depth: 1}, positions: [width]}\n"


def custom(*parts: str) -> Callable[[], Space]:
    return lambda: parse_space("".join((POSITIONS, *parts)), "custom.yaml")


SMALL: dict[str, Callable[[], Space]] = {
    "constraints": custom(ASYMMETRIC),
    "orders": custom(ORDERS),
    "orders and asymmetric constraints": custom(ASYMMETRIC, ORDERS),
    "inactive": custom(INACTIVE),
    "constraints, inactive and orders": custom(
        "constraints:\n  - {if: {depth: 1}, then: {last: x}}\n", INACTIVE, ORDERS
    ),
    "free": lambda: ChoiceSpace("free", [3, 4, 2, 5, 3, 2]),
    "nas_bench_macro": lambda: spaces.get("nas_bench_macro"),
    "transnas_macro": lambda: spaces.get("transnas_macro"),
}


@pytest.fixture(params=list(SMALL))
def union(request: pytest.FixtureRequest) -> Balls:
    space = SMALL[request.param]()
    assert isinstance(space, ChoiceSpace)
    centres = space.sample_distinct(7, np.random.default_rng(0))
    return Balls(space, centres, np.array([2, 1, 2, 0, 1, 2, 2]))


def listed(union: Balls) -> BoolArray:
    """Return a mask of the networks within the radius of a centre, from their distances to each centre."""
    every = union.space.enumerate()
    distance = [union.space.distance(every, np.repeat(c[None], len(every), axis=0)) for c in union.centres]
    return np.asarray((np.stack(distance, axis=1) <= union.radii).any(axis=1))


def test_membership_agrees_with_the_listing(union: Balls) -> None:
    assert (union.contains(union.space.enumerate()) == listed(union)).all()


def test_size_and_its_interval_agree_with_the_listing(union: Balls, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = int(listed(union).sum())
    assert union.size == (exact, exact, exact)
    monkeypatch.setattr(module, "LISTABLE", 0)
    estimate = Balls(union.space, union.centres, union.radii).size
    assert not estimate.exact
    assert estimate.low <= exact <= estimate.high
    assert abs(estimate.value / exact - 1) < 0.01


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_sampling_is_uniform_over_the_union(union: Balls, seed: int) -> None:
    space, draws = union.space, 100_000
    members = np.sort(space.key(space.enumerate()[listed(union)]))
    keys = space.key(union.sample(draws, np.random.default_rng(seed)))
    assert np.isin(keys, members).all()
    count = np.bincount(np.searchsorted(members, keys), minlength=len(members))
    assert chisquare(count).pvalue > 1e-4


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 5))
@settings(max_examples=60)
def test_ball_volume_agrees_with_the_listing(radix: list[int], radius: int) -> None:
    space = ChoiceSpace("small", radix)
    rows = space.enumerate()
    near = (rows != rows[len(rows) // 2]).sum(axis=1) <= radius
    assert ball_volume(space, radius) == near.sum()
    one = Balls(space, rows[len(rows) // 2][None], np.array([radius]))
    assert one.size.value == near.sum() == one.volume
    assert (one.contains(rows) == near).all()


def test_published_ball_volumes() -> None:
    """Hamming balls of the paper's spaces (FACTS: A4, A5, F1)."""
    shuffle, fairnas, anynet = (spaces.get(n) for n in ("shufflenetv2", "fairnas", "anynetx"))
    assert isinstance(shuffle, ChoiceSpace)
    assert isinstance(fairnas, ChoiceSpace)
    assert isinstance(anynet, ChoiceSpace)
    assert [ball_volume(shuffle, r) for r in (1, 2, 3)] == [61, 1_771, 32_551]
    assert [ball_volume(fairnas, r) for r in (1, 2)] == [96, 4_371]
    assert ball_volume(anynet, 3) == pytest.approx(1.86e7, rel=0.01)


def test_disjoint_balls_of_a_huge_space_have_an_exact_size() -> None:
    space = ChoiceSpace("huge", [4] * 20)
    centres = np.array([[0] * 20, [3] * 20], np.int8)
    union = Balls(space, centres, np.array([3, 3]))
    assert union.size.exact
    assert union.size.value == 2 * 32_551
    rows = union.sample(2_000, np.random.default_rng(0))
    assert (distances(rows, centres).min(axis=1) <= 3).all()
    first = (distances(rows, centres)[:, 0] <= 3).mean()
    assert 0.4 < first < 0.6


def test_describe_gives_an_interval_for_overlapping_balls() -> None:
    space = ChoiceSpace("huge", [4] * 20)
    near = np.zeros((2, 20), np.int8)
    near[1, 0] = 1
    subspace = Subspace(space, balls=Balls(space, near, np.array([2, 2])))
    about = subspace.describe()
    assert about["kind"] == "balls"
    assert about["size_exact"] is False
    # Two balls of radius 2 at distance 1 share all rows with at most one edit outside the position they differ in.
    both = 4 * (1 + 19 * 3) + 0
    assert about["size_low"] <= 2 * 1_771 - both <= about["size_high"]
    with pytest.raises(UserError, match="not listed"):
        _ = subspace.members


@pytest.mark.parametrize(("centres", "radii"), [(0, 0), (2, 1), (1, -1)])
def test_bad_balls_are_refused(centres: int, radii: int) -> None:
    space = ChoiceSpace("huge", [4] * 20)
    given_radii = np.full(max(radii, 1), radii) if radii < 0 else np.ones(radii, np.int64)
    with pytest.raises(UserError, match="balls"):
        Balls(space, np.zeros((centres, 20), np.int8), given_radii)
