"""The training loop of supernets (along sampled paths) and of stand-alone networks.

A step depends only on the weights, the seed and its number: images, augmentation, paths and dropout use random
streams derived from them. A run resumed from a checkpoint therefore reaches the same weights as an
uninterrupted one, and several processes share the batches of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, PolynomialLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lissnas.artifacts import Checkpoint
from lissnas.config import TorchConfig, TrainingConfig
from lissnas.core.errors import LissnasError, UserError
from lissnas.core.rng import stream
from lissnas.nets import parallel
from lissnas.nets.base import Supernet
from lissnas.nets.blocks import BatchNorm
from lissnas.nets.images import Data
from lissnas.nets.samplers import Sampler


class NotFinite(LissnasError):
    """The loss or a weight became NaN or infinite; the last checkpoint is still finite."""


@dataclass(frozen=True)
class Progress:
    """A progress report: step, number of steps, mean loss since the last report, learning rate."""

    step: int
    steps: int
    loss: float
    rate: float


def compute_on(settings: TorchConfig) -> torch.device:
    """Set the number of threads and return the device; raises UserError if it is unavailable."""
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    return device_of(settings.device)


def device_of(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if available. Raises UserError if the device is unavailable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device: cuda was requested, but torch finds no GPU; use cpu or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"device: unknown {name!r} ({str(error).splitlines()[0][:80]}); expected cpu, cuda or auto"
        ) from None


def train(
    model: nn.Module,
    data: Data,
    settings: TrainingConfig,
    seed: int,
    sampler: Sampler | None = None,
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    device: torch.device | None = None,
    history: list[Progress] | None = None,
) -> nn.Module:
    """Train a model in place, from the checkpoint if it exists; return it, with the averaged weights if `ema` is set.

    With a `sampler`, the model is a supernet, and the gradients along all paths of a step are summed. `history` is
    filled with all reports, including those before an interruption. Under `torchrun`, each process computes its part
    of each batch, and gradients are averaged. Raises NotFinite, UserError, and DamagedFile for a damaged checkpoint.
    """
    device = device or torch.device("cpu")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    check_batches(settings, data, world)
    model.to(device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    use_ghost_batches(model, settings.ghost_batch)
    state = _State(model, settings)
    history = [] if history is None else history
    first, losses, history[:] = state.restore(checkpoint)
    model.train()
    batches = _prefetched(data, range(first, settings.steps), settings.batch_size, rank, world)
    for step, (images, labels) in zip(range(first, settings.steps), batches, strict=True):
        images, labels = images.to(device), labels.to(device)
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if isinstance(model, Supernet):
            model.select_trainable(step)
        paths = [None] if sampler is None else list(sampler(step))
        state.optimizer.zero_grad()
        for place, path in enumerate(paths):
            torch.manual_seed(int(stream(seed, "dropout", step, place, rank).integers(1 << 62)))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision):
                logits = model(images) if path is None else model(images, path)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
            mean = loss.detach().clone()
            if world > 1:  # all processes see the mean, so all stop if one is not finite
                parallel.average([mean])
            losses.append(float(mean))
            if not np.isfinite(losses[-1]):
                where = "" if path is None else f" on path {''.join(map(str, path))}"
                raise NotFinite(f"step {step}{where}: the loss is {losses[-1]}; lower the rate or clip gradients")
            loss.backward()
        if world > 1:
            # Parameters off the paths have no gradient in any process; DDP would wait for them.
            parallel.average([p.grad for p in model.parameters() if p.grad is not None])
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        rate, done = state.step(), step + 1
        if done % settings.report_every == 0 or done == settings.steps:
            history.append(Progress(done, settings.steps, float(np.mean(losses)), rate))
            on_progress(history[-1])
            losses.clear()
        keep = done % settings.checkpoint_every == 0
        if keep or done == settings.steps:
            _check_weights(model, step)
        # The last step is saved too: in a stage of several trainings, finished ones are not repeated.
        if checkpoint is not None and rank == 0 and (keep or done == settings.steps):
            state.save(checkpoint, done, losses, history)
    if state.average is not None:
        model.load_state_dict(state.average.module.state_dict())
    return model.requires_grad_(True).eval()


def optimizer(model: nn.Module, settings: TrainingConfig) -> SGD:
    """Return SGD with Nesterov momentum; weight decay excludes norms and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = settings.momentum > 0
    return SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=nesterov)


def scheduler(sgd: SGD, settings: TrainingConfig) -> LRScheduler:
    """Return a learning-rate schedule by step: linear warm-up, then linear or cosine decay to zero."""
    warmup, rest = settings.warmup, max(1, settings.steps - settings.warmup)
    decay: LRScheduler
    decay = CosineAnnealingLR(sgd, rest) if settings.schedule == "cosine" else PolynomialLR(sgd, rest, power=1.0)
    if not warmup:
        return decay
    return SequentialLR(sgd, [LinearLR(sgd, 1 / warmup, 1.0, warmup - 1), decay], [warmup])


def use_ghost_batches(model: nn.Module, ghost: int) -> None:
    """Set the ghost batch size of all batch norms of a model, in images; 0: all images of a process."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.ghost = ghost


def check_batches(settings: TrainingConfig, data: Data, world: int = 1) -> None:
    """Raise UserError if the batch size doesn't fit the images, the processes or the ghost batches."""
    size, ghost = settings.batch_size, settings.ghost_batch
    if data.n_train < size:
        raise UserError(f"batch_size: {size} images are more than the {data.n_train:,} to train on; lower it")
    if size % world:
        raise UserError(f"batch_size: {size} images can't be divided evenly among {world} processes")
    if ghost and size // world % ghost:
        raise UserError(f"ghost_batch: the {size // world} images of a process can't be divided into parts of {ghost}")


def _prefetched(data: Data, steps: Iterable[int], size: int, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batch of each step; another thread prepares it during the previous step."""
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[tuple[Tensor, Tensor]] | None = None
        for step in steps:
            following = pool.submit(data.train_batch, step, size, rank, world)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def _check_weights(model: nn.Module, step: int) -> None:
    """Raise NotFinite if a weight is not finite, so that checkpoints are always finite."""
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise NotFinite(f"step {step}: {name} is not finite; lower the rate or clip gradients")


class _State:
    """The state of a training: model, optimizer, schedule, and moving average if `ema` is set."""

    def __init__(self, model: nn.Module, settings: TrainingConfig) -> None:
        self.optimizer = optimizer(model, settings)
        self.scheduler = scheduler(self.optimizer, settings)
        self.average: AveragedModel | None = None
        if settings.ema:
            # The running statistics are averaged with the weights.
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
        self.model = model
        self.modules = {"model": model} if self.average is None else {"model": model, "average": self.average}

    def step(self) -> float:
        """Update the weights; return the learning rate of the step."""
        (rate, *_) = self.scheduler.get_last_lr()
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return float(rate)

    def save(self, checkpoint: Checkpoint, step: int, losses: list[float], history: list[Progress]) -> None:
        """Save the state after a step, the losses since the last report, and all reports."""
        arrays = {f"{part}.{k}": v for part, module in self.modules.items() for k, v in module.state_dict().items()}
        state = self.optimizer.state_dict()
        for i, values in state["state"].items():
            arrays |= {f"optimizer.{i}.{name}": value for name, value in values.items() if value is not None}
        about = {
            "step": step,
            "losses": losses,
            "reports": [vars(r) for r in history],
            "groups": state["param_groups"],
            "schedule": self.scheduler.state_dict(),
        }
        checkpoint.save({name: v.detach().cpu().numpy() for name, v in arrays.items()}, about)

    def restore(self, checkpoint: Checkpoint | None) -> tuple[int, list[float], list[Progress]]:
        """Load the last checkpoint; return the next step, the losses since the last report, and all reports."""
        saved = None if checkpoint is None else checkpoint.load()
        if saved is None or "schedule" not in saved[1]:  # or written by a version without torch schedulers
            return 0, [], []
        arrays, about = saved
        parts: dict[str, dict[str, Any]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, value in arrays.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = torch.from_numpy(np.array(value))
        for part, module in self.modules.items():
            module.load_state_dict(parts[part])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, _, key = name.partition(".")
            state.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": about["groups"]})
        self.scheduler.load_state_dict(about["schedule"])
        return int(about["step"]), list(about["losses"]), [Progress(**r) for r in about["reports"]]
