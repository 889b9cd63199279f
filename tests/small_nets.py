"""Small networks, images and recipes for trainings of about a second."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from lissnas import benchmarks, config, spaces
from lissnas.config import Params, TrainingConfig
from lissnas.nets.base import Network, Supernet
from lissnas.nets.images import Augmentation, MemoryData
from lissnas.nets.kshot import KShotSupernet
from lissnas.nets.training import Progress
from lissnas.spaces import Archs

SMALL: dict[str, Any] = {"width": 0.25, "stem_stride": 1, "classes": 10}
MACRO = spaces.get("nas_bench_macro")


@cache
def packaged_params() -> Params:
    return config.load(None, {}, benchmarks.names())


def recipe(**changes: Any) -> TrainingConfig:
    small = {
        "steps": 6,
        "batch_size": 8,
        "rate": 0.05,
        "warmup": 1,
        "curriculum": 0.0,
        "padding": 1,
        "checkpoint_every": 2,
        "report_every": 1,
    }
    return TrainingConfig.model_validate({**packaged_params().recipes["cpu"].model_dump(), **small, **changes})


def noise(n: int = 32, validation: int = 24, classes: int = 10, how: Augmentation | None = None) -> MemoryData:
    """Return random images of 8 pixels, for tests that don't measure learning."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"train": n, "validation": validation, "test": 8}
    pixels = {k: torch.randint(0, 256, (m, 3, 8, 8), generator=generator).to(torch.uint8) for k, m in sizes.items()}
    labels = {k: torch.randint(0, classes, (m,), generator=generator) for k, m in sizes.items()}
    return MemoryData(pixels, labels, classes, 0, how or Augmentation(1, True, 0))


def members(name: str = "nas_bench_macro", n: int = 4, seed: int = 0) -> Archs:
    return spaces.get(name).sample_distinct(n, np.random.default_rng(seed))


def images(n: int, side: int = 16, seed: int = 0) -> Any:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def equal(a: Any, b: Any) -> bool:
    """Return whether two models have bit-identical weights, statistics and counters."""
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Interrupted(Exception):
    """Raised to interrupt a training."""


def stop_at(step: int) -> Any:
    def watch(progress: Progress) -> None:
        if progress.step == step:
            raise Interrupted

    return watch


class Changed(MemoryData):
    """Images changed by a function of step, rank and images."""

    def __init__(self, data: MemoryData, change: Any) -> None:
        super().__init__(data.pixels, data.labels, data.classes, 0, data.augmentation)
        self.change = change

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
        x, y = super().train_batch(step, size, rank, world)
        return self.change(step, rank, x), y


def plain_state(supernet: Supernet, path: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return the weights (mixed for `path`) and statistics of a supernet by name."""
    if not isinstance(supernet, KShotSupernet):
        return dict(supernet.state_dict())
    supernet.simplex(path)
    state: dict[str, torch.Tensor] = dict(supernet.supernet.named_buffers())
    for name, module in supernet.supernet.named_modules():
        for own in getattr(module, "parametrizations", {}):
            state[f"{name}.{own}"] = getattr(module, own).detach()
    return state


def copy_weights(supernet: Supernet, network: Network) -> None:
    """Copy the weights and statistics of a network's path from a supernet, leading channels of wider operations.

    Norms without weights in the supernet get ones and zeros.
    """
    assert supernet.scale == network.body.scale
    shared = plain_state(supernet, network.path)
    with torch.no_grad():
        for name, own in network.body.state_dict().items():
            if name in shared:
                own.copy_(shared[name][tuple(slice(n) for n in own.shape)])
            else:
                norm, _, part = name.rpartition(".")
                assert f"{norm}.running_mean" in shared
                own.fill_({"weight": 1.0, "bias": 0.0}[part])
