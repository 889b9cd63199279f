"""What a supernet and a stand-alone network are, whatever their space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from lissnas.core.errors import UserError
from lissnas.spaces import Archs, Space
from lissnas.spaces.base import BoolArray


@dataclass(frozen=True)
class Scale:
    """How large a network is made; `width` multiplies all channels, `stem_stride` is the stem's in all."""

    width: float
    stem_stride: int
    classes: int

    def channels(self, published: int) -> int:
        """Return scaled channels: a multiple of 8, at least 8, at full width the published number."""
        return published if self.width == 1 else max(8, 8 * round(published * self.width / 8))


class Supernet(nn.Module):
    """All networks of a space, or of a part of it, in one set of weights.

    `forward(x, path)` runs one of them: `path` is a row of the space. Nothing but the operations of
    that path is touched. Image sides may be any; pooling over all pixels comes before `classifier`.
    """

    shared_affine: ClassVar[bool] = True
    """Whether norms have weights and biases when networks share them, in the literature of the space."""
    classifier: nn.Linear

    def __init__(self, space: Space, scale: Scale) -> None:
        super().__init__()
        self.space_name = space.name
        self.genome_len = space.genome_len
        self.scale = scale

    def forward(self, x: Tensor, path: Iterable[int]) -> Tensor:
        """Return logits, `(n, classes)`, of images `(n, 3, height, width)`; raises UserError for a bad path."""
        row = self.checked(path)
        logits: Tensor = self.classifier(self.features(x, row))
        return logits

    def checked(self, path: Iterable[int]) -> tuple[int, ...]:
        """Return a path as numbers; raises UserError for one of another length."""
        row = tuple(int(choice) for choice in path)
        if len(row) != self.genome_len:
            raise UserError(f"path: expected {self.genome_len} numbers for {self.space_name}, found {len(row)}")
        return row

    def take_turn(self, step: int) -> None:
        """Choose which weights a step trains, where not all are trained together."""

    @abstractmethod
    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return what the classifier sees, `(n, channels)`."""


class Network(nn.Module):
    """One architecture on its own: the supernet of a set that holds nothing else."""

    def __init__(self, body: Supernet, path: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, `(n, classes)`, of images `(n, 3, height, width)`."""
        logits: Tensor = self.body(x, self.path)
        return logits


def used_choices(space: Space, archs: Archs) -> BoolArray:
    """Return `(n_slots, most choices)`: which choices any of the architectures makes (`Space.slots`)."""
    used = np.zeros((len(space.slot_choices), max(space.slot_choices)), bool)
    for row, column in zip(used, space.slots(archs).T, strict=True):
        row[np.unique(column[column >= 0])] = True
    return used


def pick(operations: nn.ModuleDict, choice: int, where: str) -> nn.Module:
    """Return the operation of a choice; raises UserError when no network that was asked for has it."""
    try:
        return operations[str(choice)]
    except KeyError:
        built = ", ".join(operations) or "none"
        raise UserError(f"{where} has no choice {choice}: built are {built}") from None
