"""Conformance suites that the spaces and shrinkers of a user inherit."""

from __future__ import annotations

from lissnas.testing.suites import ShrinkerSuite, SpaceSuite, SyntheticOracle

__all__ = ["ShrinkerSuite", "SpaceSuite", "SyntheticOracle"]
