"""Conformance tests that any benchmark inherits, including a user's (requires pytest).

class TestMyBenchmark(BenchmarkSuite):
    @pytest.fixture
    def table(self):
        return my_benchmark()
"""

from __future__ import annotations

import numpy as np
import pytest

from lissnas.benchmarks import Benchmark
from lissnas.core.errors import UserError


class BenchmarkSuite:
    """Properties of every complete table of a space; override the `table` fixture."""

    @pytest.fixture
    def table(self) -> Benchmark:
        """Return the benchmark under test."""
        raise NotImplementedError("override the fixture `table`")

    def test_table_covers_the_space(self, table: Benchmark) -> None:
        """Every architecture of the space has one finite value; keys ascend."""
        assert table.keys.dtype == np.uint64
        assert (table.keys[1:] > table.keys[:-1]).all()
        assert table.keys.shape == table.values.shape == (table.space.size(),)
        assert (table.keys == table.space.key(table.space.enumerate())).all()
        assert np.isfinite(table.values).all()

    def test_values_are_looked_up_by_architecture(self, table: Benchmark) -> None:
        """Rows in any order, repeated or not, get their own values."""
        rng = np.random.default_rng(0)
        at = rng.integers(0, len(table.keys), 500)
        assert (table(table.space.enumerate()[at]) == table.values[at]).all()

    def test_metric_and_licence_are_named(self, table: Benchmark) -> None:
        """The metric is a phrase for axes and tables; the licence says who may use the values."""
        assert table.name
        assert table.metric.strip()
        assert table.licence.strip()
        assert table.point > 0

    def test_values_differ(self, table: Benchmark) -> None:
        """The best value ranks first, and is not that of every architecture."""
        assert table.rank_of(table.best) == 1
        assert table.values.min() < table.best

    def test_unknown_key_is_refused(self, table: Benchmark) -> None:
        """A key that the table lacks raises UserError with the benchmark's name."""
        missing = np.setdiff1d(np.arange(len(table.keys) + 1, dtype=np.uint64), table.keys)[:1]
        with pytest.raises(UserError, match=table.name):
            table.look_up(missing)
