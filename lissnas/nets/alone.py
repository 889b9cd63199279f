"""A network on its own: built, and trained from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lissnas import spaces
from lissnas.config import TrainingConfig
from lissnas.nets.base import Network
from lissnas.nets.build import network
from lissnas.nets.images import Data
from lissnas.nets.training import Progress, train
from lissnas.store import Checkpoint


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
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Network:
    """Return the network of an architecture, by its name, trained by a recipe; from the checkpoint if there is one.

    The first weights and all draws are functions of `seed`. Raises UserError, InvalidArchitecture, NotFinite.
    """
    row = spaces.get(space_name).parse([arch])[0].tolist()
    model = network(space_name, row, width=width, stem_stride=stem_stride, classes=data.classes, seed=seed)
    train(model, data, recipe, seed, None, checkpoint, on_progress, device)
    return model
