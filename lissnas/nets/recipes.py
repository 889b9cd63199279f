"""How weights are stepped: schedules, decay groups, ghost batch norm, a moving average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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


class GhostBatchNorm(BatchNorm):
    """Batch norm whose statistics are those of parts of `ghost` images (Hoffer et al., 2017)."""

    ghost: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each part by its own statistics while training, the whole by the running ones else."""
        if not self.training or len(x) <= self.ghost:
            return super().forward(x)
        return torch.cat([BatchNorm.forward(self, part) for part in x.split(self.ghost)])


def use_ghost_batches(model: nn.Module, ghost: int) -> None:
    """Turn every batch norm of a model into one on parts of `ghost` images; 0 leaves them."""
    for module in model.modules():
        if ghost and isinstance(module, BatchNorm):
            module.__class__ = GhostBatchNorm
            module.ghost = ghost  # type: ignore[assignment]


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
