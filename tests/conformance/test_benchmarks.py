from __future__ import annotations

from dataclasses import replace

import pytest

from lissnas import benchmarks
from lissnas.benchmarks import Benchmark
from lissnas.testing import BenchmarkSuite


class TestPackaged(BenchmarkSuite):
    @pytest.fixture(params=benchmarks.names())
    def table(self, request: pytest.FixtureRequest) -> Benchmark:
        return benchmarks.get(request.param)


def test_suite_refuses_a_table_with_a_gap() -> None:
    table = benchmarks.get("nas_bench_macro")
    gap = replace(table, keys=table.keys[1:], values=table.values[1:])
    with pytest.raises(AssertionError):
        BenchmarkSuite().test_table_covers_the_space(gap)
