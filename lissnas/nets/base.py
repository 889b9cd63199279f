"""Base classes of supernets and stand-alone networks."""

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
    """The size of a network: `width` multiplies all channels, `stem_stride` is the total stride of the stem."""

    width: float
    stem_stride: int
    classes: int

    def channels(self, published: int) -> int:
        """Return the scaled number of channels: a multiple of 8, at least 8; the published number at width 1."""
        return published if self.width == 1 else max(8, 8 * round(published * self.width / 8))


class Supernet(nn.Module):
    """All networks of a space, or of a subset, with shared weights.

    `forward(x, path)` runs the network of `path`, a row of the space, and only its operations. Images can
    have any size: global average pooling precedes `classifier`.
    """

    shared_affine: ClassVar[bool] = True
    """Whether norms of the supernet have weights and biases in the literature of the space."""
    classifier: nn.Linear

    def __init__(self, space: Space, scale: Scale) -> None:
        super().__init__()
        self.space_name = space.name
        self.genome_len = space.genome_len
        self.scale = scale

    def forward(self, x: Tensor, path: Iterable[int]) -> Tensor:
        """Return logits, `(n, classes)`, of images `(n, 3, height, width)`; raises UserError for an invalid path."""
        row = self.checked(path)
        logits: Tensor = self.classifier(self.features(x, row))
        return logits

    def checked(self, path: Iterable[int]) -> tuple[int, ...]:
        """Return a path as a tuple; raises UserError for a wrong length."""
        row = tuple(int(choice) for choice in path)
        if len(row) != self.genome_len:
            raise UserError(f"path: expected {self.genome_len} numbers for {self.space_name}, found {len(row)}")
        return row

    def select_trainable(self, step: int) -> None:
        """Enable gradients for the weights that a step trains; by default, all are trained."""

    @abstractmethod
    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the features for the classifier, `(n, channels)`."""


class Network(nn.Module):
    """A stand-alone network: a supernet of a single architecture, with its path."""

    def __init__(self, body: Supernet, path: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, `(n, classes)`, of images `(n, 3, height, width)`."""
        logits: Tensor = self.body(x, self.path)
        return logits


def used_choices(space: Space, archs: Archs) -> BoolArray:
    """Return a mask `(n_slots, max choices)` of the choices that any of the architectures makes (`Space.slots`)."""
    used = np.zeros((len(space.slot_choices), max(space.slot_choices)), bool)
    for row, column in zip(used, space.slots(archs).T, strict=True):
        row[np.unique(column[column >= 0])] = True
    return used


def pick(operations: nn.ModuleDict, choice: int, where: str) -> nn.Module:
    """Return the operation of a choice; raises UserError if it was not built."""
    try:
        return operations[str(choice)]
    except KeyError:
        built = ", ".join(operations) or "none"
        raise UserError(f"{where} has no choice {choice}; built choices: {built}") from None
