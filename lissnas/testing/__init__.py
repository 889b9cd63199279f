"""Conformance suites that the spaces and shrinkers of a user inherit."""

from __future__ import annotations
