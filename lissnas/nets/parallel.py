"""Data-parallel training under `torchrun`: one process leads, the others join its trainings.

The leader runs the command as a single process would: it checks, locks and publishes. A follower only waits
for the number of a training and computes its part, so existing results and errors need no synchronisation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

STOP = -1
"""Number that the leader announces after the last training."""


def leads() -> bool:
    """Return whether this process publishes results: it is alone or the first of its group."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group of `torchrun`, if any, for the duration of the block; NCCL on GPUs, else gloo."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        if leads():
            announce(STOP)
    finally:
        dist.destroy_process_group()


def announce(training: int) -> None:
    """Announce the number of the next training to the followers, if any."""
    if dist.is_initialized() and leads():
        dist.broadcast(_number(training), src=0)


def announced() -> Iterator[int]:
    """Yield the numbers of trainings that the leader announces, until it stops."""
    while True:
        number = _number(STOP)
        dist.broadcast(number, src=0)
        if int(number) == STOP:
            return
        yield int(number)


def average(values: list[torch.Tensor]) -> None:
    """Replace tensors by their means over all processes, in one all-reduce."""
    flat = torch.cat([v.detach().reshape(-1) for v in values])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for v in values:
        v.detach().copy_(flat[at : at + v.numel()].view_as(v))
        at += v.numel()


def _number(value: int) -> torch.Tensor:
    return torch.tensor(value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
