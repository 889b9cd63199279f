"""Conformance suites for user-defined spaces and shrinkers."""

from __future__ import annotations

from lissnas.testing.shrinker_suite import ShrinkerSuite, SyntheticOracle
from lissnas.testing.space_suite import SpaceSuite

__all__ = ["ShrinkerSuite", "SpaceSuite", "SyntheticOracle"]
