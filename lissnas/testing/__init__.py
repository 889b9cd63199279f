"""Conformance suites that the spaces, shrinkers, searchers and benchmarks of a user inherit."""

from __future__ import annotations

from lissnas.oracles.synthetic import SyntheticOracle
from lissnas.testing.benchmark_suite import BenchmarkSuite
from lissnas.testing.searcher_suite import SearcherSuite
from lissnas.testing.shrinker_suite import ShrinkerSuite
from lissnas.testing.space_suite import SpaceSuite

__all__ = ["BenchmarkSuite", "SearcherSuite", "ShrinkerSuite", "SpaceSuite", "SyntheticOracle"]
