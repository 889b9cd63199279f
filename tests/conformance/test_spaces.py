from __future__ import annotations

import pytest

from lissnas import spaces
from lissnas.spaces import Space
from lissnas.testing import SpaceSuite


class TestNASBench101(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("nasbench101")


class TestTransNASMicro(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("transnas_micro")


class TestTransNASMacro(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("transnas_macro")


class TestTransNAS(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("transnas")


class TestNASBenchMacro(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("nas_bench_macro")


class TestShuffleNetV2(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("shufflenetv2")


class TestFairNAS(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("fairnas")


class TestMobileNet(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("mobilenet")


class TestFreeProduct(SpaceSuite):
    """A product without rules or costs, too large to list."""

    @pytest.fixture
    def space(self) -> Space:
        return spaces.ChoiceSpace("four_to_twenty", [4] * 20)


def test_every_registered_space_has_a_conformance_test() -> None:
    here = {"nasbench101", "transnas_micro", "transnas_macro", "transnas", "nas_bench_macro"}
    here |= {"shufflenetv2", "fairnas", "mobilenet"}
    elsewhere = {"ofa_mobilenetv3", "nasbench301", "nasbench201"}  # unit/test_huge_spaces.py, unit/test_official.py
    elsewhere |= {"gpt_s", "gpt_m", "gpt_l", "accel_nasbench"}  # unit/test_gpt.py, unit/test_accel_nasbench.py
    elsewhere |= {"anynetx", *(f"anynetx_{stage}" for stage in "bcde")}  # unit/test_anynetx.py
    assert set(spaces.names()) == here | elsewhere
