"""How weights are stepped: schedules, decay groups, ghost batch norm, a moving average."""

from __future__ import annotations

import math

import torch
from torch import nn

from lissnas.config import TrainingConfig
from lissnas.nets.blocks import BatchNorm


def learning_rate(settings: TrainingConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then linear or cosine down to zero."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    if settings.schedule == "cosine":
        return settings.rate * 0.5 * (1 + math.cos(math.pi * done))
    return settings.rate * (1 - done)


def optimizer(model: nn.Module, settings: TrainingConfig) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; norms and biases do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=nesterov)


def use_ghost_batches(model: nn.Module, ghost: int) -> None:
    """Let every batch norm of a model work on parts of `ghost` images; 0: on all of a process."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.ghost = ghost


class MovingAverage:
    """An exponential moving average of a model's weights; counts and other buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step towards the model's weights."""
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value.detach(), 1 - self.decay)
            else:
                self.state[name].copy_(value)
