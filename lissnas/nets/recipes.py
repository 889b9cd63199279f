"""How weights are stepped: decay groups, the schedule of the learning rate, ghost batch norm."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, PolynomialLR, SequentialLR

from lissnas.config import TrainingConfig
from lissnas.nets.blocks import BatchNorm


def optimizer(model: nn.Module, settings: TrainingConfig) -> SGD:
    """Return SGD with Nesterov momentum; norms and biases do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = settings.momentum > 0
    return SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=nesterov)


def scheduler(stepped: SGD, settings: TrainingConfig) -> LRScheduler:
    """Return a schedule of the rate by step: linear warm-up, then linear or cosine down to zero."""
    warmup, rest = settings.warmup, max(1, settings.steps - settings.warmup)
    falls: LRScheduler
    if settings.schedule == "cosine":
        falls = CosineAnnealingLR(stepped, rest)
    else:
        falls = PolynomialLR(stepped, rest, power=1.0)
    if not warmup:
        return falls
    return SequentialLR(stepped, [LinearLR(stepped, 1 / warmup, 1.0, warmup - 1), falls], [warmup])


def use_ghost_batches(model: nn.Module, ghost: int) -> None:
    """Let every batch norm of a model work on parts of `ghost` images; 0: on all of a process."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.ghost = ghost
