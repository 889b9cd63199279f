"""Search spaces and their registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from lissnas.core.errors import UnknownName
from lissnas.spaces.accel_nasbench import AccelNASBench
from lissnas.spaces.anynetx import STEPS, AnyNetX
from lissnas.spaces.base import Archs, BoolArray, FloatArray, IntArray, Keys, Space
from lissnas.spaces.cell import CellSpace
from lissnas.spaces.chain import ChainSpace
from lissnas.spaces.choices import ChoiceSpace
from lissnas.spaces.fairnas import FairNAS
from lissnas.spaces.gpt import GPT, SCALES
from lissnas.spaces.mobilenet import MobileNet
from lissnas.spaces.nas_bench_macro import NASBenchMacro
from lissnas.spaces.nasbench101 import NASBench101
from lissnas.spaces.nasbench201 import NASBench201
from lissnas.spaces.nasbench301 import NASBench301
from lissnas.spaces.ofa_mobilenetv3 import OFAMobileNetV3
from lissnas.spaces.shufflenetv2 import ShuffleNetV2
from lissnas.spaces.transnas import TransNAS, TransNASMacro, TransNASMicro

__all__ = [
    "GPT",
    "AccelNASBench",
    "AnyNetX",
    "Archs",
    "BoolArray",
    "CellSpace",
    "ChainSpace",
    "ChoiceSpace",
    "FloatArray",
    "IntArray",
    "Keys",
    "NASBench101",
    "NASBench301",
    "OFAMobileNetV3",
    "Space",
    "get",
    "names",
]

_REGISTRY: dict[str, Callable[[], Space]] = {
    "nasbench101": NASBench101,
    "nasbench201": NASBench201,
    "transnas_micro": TransNASMicro,
    "transnas_macro": TransNASMacro,
    "transnas": TransNAS,
    "nas_bench_macro": NASBenchMacro,
    "shufflenetv2": ShuffleNetV2,
    "fairnas": FairNAS,
    "mobilenet": MobileNet,
    "ofa_mobilenetv3": OFAMobileNetV3,
    "nasbench301": NASBench301,
    **{name: partial(AnyNetX, name, *rules) for name, rules in STEPS.items()},
    **{name: partial(GPT, name, values) for name, values in SCALES.items()},
    "accel_nasbench": AccelNASBench,
}


def names() -> list[str]:
    """Return the names of all spaces."""
    return list(_REGISTRY)


@cache
def get(name: str) -> Space:
    """Return the space called `name`, the same object on each call; raises UnknownName."""
    if name not in _REGISTRY:
        raise UnknownName("space", name, _REGISTRY)
    return _REGISTRY[name]()
