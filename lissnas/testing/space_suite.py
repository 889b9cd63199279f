"""Conformance tests for spaces, to be inherited (requires pytest).

class TestMySpace(SpaceSuite):
    @pytest.fixture
    def space(self):
        return MySpace()
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from lissnas.core.errors import InvalidArchitecture, UserError
from lissnas.spaces import Archs, Space
from lissnas.spaces.base import LISTABLE

N = 300
"""Architectures in the sample of most tests."""


class SpaceSuite:
    """Tests of the requirements for every space; override the `space` fixture."""

    @pytest.fixture
    def space(self) -> Space:
        """Return the space under test."""
        raise NotImplementedError("override the fixture `space`")

    @pytest.fixture
    def archs(self, space: Space) -> Archs:
        """Return a uniform sample of the space."""
        return space.sample(N, np.random.default_rng(0))

    def test_samples_are_canonical_rows(self, space: Space, archs: Archs) -> None:
        """Rows are int8 of length `genome_len`, and equal keys imply equal rows."""
        assert archs.shape == (N, space.genome_len)
        assert archs.dtype == np.int8
        keys = space.key(archs)
        assert keys.shape == (N,)
        assert keys.dtype == np.uint64
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        assert (archs[first[inverse]] == archs).all()
        assert len(np.unique(archs, axis=0)) == len(first)

    def test_same_seed_gives_the_same_sample(self, space: Space) -> None:
        """Sampling is deterministic for a seed."""
        a, b = (space.sample(50, np.random.default_rng(7)) for _ in range(2))
        assert (a == b).all()

    def test_sampling_is_uniform_over_distinct_architectures(self, space: Space) -> None:
        """A chi-squared test over buckets of the enumeration does not reject."""
        if space.size() > LISTABLE:
            pytest.skip("too large to list")
        keys = space.key(space.enumerate())
        draws = 40 * 200
        index = np.searchsorted(keys, space.key(space.sample(draws, np.random.default_rng(1))))
        buckets = min(200, len(keys))
        bucket_of = np.arange(len(keys)) * buckets // len(keys)
        share = np.bincount(bucket_of) / len(keys)
        assert chisquare(np.bincount(bucket_of[index], minlength=buckets), share * draws).pvalue > 1e-4

    def test_enumeration_lists_each_architecture_once(self, space: Space) -> None:
        """There are `size()` of them, in ascending order of keys."""
        if space.size() > LISTABLE:
            with pytest.raises(UserError):
                space.enumerate()
            return
        keys = space.key(space.enumerate())
        assert len(keys) == space.size()
        assert (keys[1:] > keys[:-1]).all()

    def test_distinct_samples(self, space: Space, archs: Archs) -> None:
        """They are distinct, exclude the keys in `without`, and are limited by the size of the space."""
        without = np.unique(space.key(archs))
        more = space.key(space.sample_distinct(100, np.random.default_rng(2), without=without))
        assert len(np.unique(more)) == 100
        assert not np.isin(more, without).any()
        with pytest.raises(UserError, match="requested"):
            space.sample_distinct(space.size() + 1, np.random.default_rng(2))

    def test_parse_inverts_format(self, space: Space, archs: Archs) -> None:
        """Parsing formatted architectures gives the same canonical rows."""
        names = space.format(archs)
        assert all(isinstance(name, str) for name in names)
        assert (space.parse(names) == archs).all()

    @pytest.mark.parametrize("bad", ["", "?", "9" * 40, "64-", "é", "-1", " "])
    def test_malformed_notation_is_refused(self, space: Space, archs: Archs, bad: str) -> None:
        """The error names the first malformed row, counted from 0, and a reason."""
        good = space.format(archs[:3])
        with pytest.raises(InvalidArchitecture) as caught:
            space.parse([*good, bad, *good, bad])
        assert caught.value.row == 3
        assert caught.value.reason

    def test_neighbors_are_distinct_and_grouped(self, space: Space, archs: Archs) -> None:
        """They are sorted by parent, canonical, distinct for each parent, and different from it."""
        rows, parents = space.neighbors(archs[:60])
        keys = space.key(rows)
        assert (np.diff(parents) >= 0).all()
        assert (keys != space.key(archs[:60])[parents]).all()
        assert len({*zip(parents.tolist(), keys.tolist(), strict=True)}) == len(rows)
        assert (space.parse(space.format(rows)) == rows).all()

    def test_one_edit_gives_a_neighbor(self, space: Space, archs: Archs) -> None:
        """Every architecture at exactly one edit, of any kind, is among the neighbors."""
        rows, parents = space.neighbors(archs)
        all_pairs = {*zip(parents.tolist(), space.key(rows).tolist(), strict=True)}
        parent_keys = space.key(archs)
        for kind in (None, *space.kinds):
            keys = space.key(space.mutate(archs, np.ones(N, np.int64), np.random.default_rng(3), kind))
            changed = np.flatnonzero(keys != parent_keys)
            assert len(changed) > N // 2
            assert {(int(i), int(keys[i])) for i in changed} <= all_pairs

    def test_random_edits_reach_every_neighbor(self, space: Space, archs: Archs) -> None:
        """With many draws, single edits give all neighbors and no other architecture."""
        one = archs[:1]
        rows, _ = space.neighbors(one)
        many = space.mutate(np.repeat(one, 6000, axis=0), np.ones(6000, np.int64), np.random.default_rng(4))
        assert set(space.key(many).tolist()) == set(space.key(rows).tolist())

    def test_edit_distance_is_exact(self, space: Space, archs: Archs) -> None:
        """Two edits give neither the parent nor its neighbors; zero edits give the parent."""
        parent_keys = space.key(archs)
        keys = space.key(space.mutate(archs, np.full(N, 2), np.random.default_rng(5)))
        rows, parents = space.neighbors(archs)
        neighbors = {*zip(parents.tolist(), space.key(rows).tolist(), strict=True)}
        changed = np.flatnonzero(keys != parent_keys)
        assert len(changed) > N // 2
        assert not {(int(i), int(keys[i])) for i in changed} & neighbors
        assert (space.mutate(archs, np.zeros(N, np.int64), np.random.default_rng(6)) == archs).all()

    def test_unknown_kind_of_edit_is_refused(self, space: Space, archs: Archs) -> None:
        """The error names it."""
        with pytest.raises(UserError, match="sideways"):
            space.mutate(archs, np.ones(N, np.int64), np.random.default_rng(0), "sideways")

    def test_encoding(self, space: Space, archs: Archs) -> None:
        """Features are finite float32 of width `n_features`, a function of the architecture."""
        features = space.encode(archs)
        assert features.shape == (N, space.n_features)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        order = np.random.default_rng(0).permutation(N)
        assert (space.encode(archs[order]) == features[order]).all()

    def test_costs(self, space: Space, archs: Archs) -> None:
        """Costs are positive int64, one array per name in `cost_names`."""
        costs = space.costs(archs)
        assert tuple(costs) == space.cost_names
        for values in costs.values():
            assert values.shape == (N,)
            assert values.dtype == np.int64
            assert (values > 0).all()

    def test_empty_input(self, space: Space) -> None:
        """Empty input gives empty output."""
        none = np.empty((0, space.genome_len), np.int8)
        assert space.key(none).shape == (0,)
        assert space.encode(none).shape == (0, space.n_features)
        assert space.format(none) == []
        assert space.parse([]).shape == none.shape
        assert space.neighbors(none)[0].shape == none.shape
        assert space.mutate(none, np.empty(0, np.int64), np.random.default_rng(0)).shape == none.shape

    def test_wrong_shapes_are_refused(self, space: Space) -> None:
        """The error has the expected and the actual shape."""
        with pytest.raises(UserError, match="expected a matrix of shape"):
            space.key(np.zeros((2, space.genome_len + 1), np.int8))

    def test_rows_out_of_range_are_refused(self, space: Space, archs: Archs) -> None:
        """The error names the row."""
        rows = archs[:4].copy()
        rows[2] = 99
        with pytest.raises(InvalidArchitecture) as caught:
            space.key(rows)
        assert caught.value.row == 2
