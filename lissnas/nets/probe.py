"""Accuracy of networks on images, and while they train, without an effect on the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lissnas.artifacts.recorder import Recorder
from lissnas.config import TrainingConfig
from lissnas.nets.base import Network, Supernet
from lissnas.nets.images import Batch, Data
from lissnas.nets.training import Progress
from lissnas.spaces import Archs

IMAGES = 64
"""Images for the accuracy, and for the batch norms of a path."""
MAX_SHARE = 0.01
"""The share of the run time that may go into probes."""


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the accuracy of a model on batches, in percent."""
    model.eval()
    hits = n = 0
    for x, y in batches:
        hits += int((model(x).argmax(dim=1) == y).sum())
        n += len(y)
    return 100 * hits / n


@torch.inference_mode()
def recalibrate(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace the running statistics of a network by their plain average over `batches` (Guo et al., 2020)."""
    with torch.random.fork_rng(devices=[]):  # dropout draws random numbers, which don't affect statistics
        update_bn(batches, network)
    network.eval()


def recorded(
    watch: Callable[[Progress], None],
    record: Recorder,
    model: nn.Module,
    data: Data,
    recipe: TrainingConfig,
    paths: Archs | Sequence[None] = (None,),
) -> Callable[[Progress], None]:
    """Return a callback of a training that calls `watch`, and records loss, rate, epoch and the accuracy of `paths`.

    Accuracy is the mean over the paths of a supernet, in percent, whenever it is cheap for the time since the last one.
    """
    due = time.monotonic()

    def observe(progress: Progress) -> None:
        nonlocal due
        watch(progress)
        if not record.active:
            return
        epoch = progress.step * recipe.batch_size / data.n_train
        values = {"loss": progress.loss, "rate": progress.rate, "epoch": epoch}
        started = time.monotonic()
        if data.n_of("validation") and (started >= due or progress.step == progress.steps):
            values["accuracy"] = probe(model, data, paths)
            due = started + (time.monotonic() - started) / MAX_SHARE
        record.metrics(values, progress.step)

    return observe


def probe(model: nn.Module, data: Data, paths: Archs | Sequence[None]) -> float:
    """Return the mean accuracy of a model, or of paths of a supernet after recalibration, in percent.

    Weights, statistics of the batch norms, modes and random numbers stay as they are.
    """
    device = next(model.parameters()).device
    held_out = [(x.to(device), y.to(device)) for x, y in data.batches("validation", IMAGES, IMAGES)]
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    found = []
    for path in paths:
        if path is not None and isinstance(model, Supernet):
            network = Network(model, tuple(path))
            recalibrate(network, [data.plain("train", 0, IMAGES)[0].to(device)])
            found.append(accuracy(network, held_out))
        else:
            found.append(accuracy(model, held_out))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    for module, mode in modes.items():
        module.training = mode
    return float(np.mean(found))
