"""A network on its own: built, and trained from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from lissnas import spaces
from lissnas.artifacts import Checkpoint
from lissnas.config import TrainingConfig
from lissnas.nets.anynetx import XBlock
from lissnas.nets.base import Network
from lissnas.nets.blocks import BatchNorm, MobileBlock
from lissnas.nets.build import network
from lissnas.nets.images import Data
from lissnas.nets.training import Progress, train


def train_alone(
    space_name: str,
    arch: str,
    data: Data,
    recipe: TrainingConfig,
    *,
    width: float,
    stem_stride: int | None,
    seed: int,
    checkpoint: Checkpoint | None,
    device: torch.device,
    as_shortcuts: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Network:
    """Return the network of an architecture, by its name, trained by a recipe; from the checkpoint if there is one.

    With `as_shortcuts` its residual blocks begin as their shortcuts (`begin_as_shortcuts`). The first weights and
    all draws are functions of `seed`. Raises UserError, InvalidArchitecture, NotFinite.
    """
    row = spaces.get(space_name).parse([arch])[0].tolist()
    model = network(space_name, row, width=width, stem_stride=stem_stride, classes=data.classes, seed=seed)
    if as_shortcuts:
        begin_as_shortcuts(model)
    train(model, data, recipe, seed, None, checkpoint, on_progress, device)
    return model


def begin_as_shortcuts(model: nn.Module) -> None:
    """Set the last norm of every residual branch to zero, so that the blocks pass on what they get (1706.02677, 5.1).

    Deep networks that are trained for a few hundred steps learn much more that way.
    """
    for block in model.modules():
        if isinstance(block, XBlock) or (isinstance(block, MobileBlock) and block.shortcut):
            last = block.body[-1]
            assert isinstance(last, BatchNorm)
            nn.init.zeros_(last.weight)
