"""Evaluate paths of a supernet: accuracy on validation images, after recalibration of the batch norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lissnas import artifacts
from lissnas.config import Params, SearchConfig
from lissnas.config.resolve import image_parameters, recipe_of
from lissnas.core.errors import UserError
from lissnas.nets import images
from lissnas.nets.base import Network, Supernet
from lissnas.nets.files import load_supernet, supernet_manifest
from lissnas.nets.images import Batch, Data
from lissnas.nets.probe import accuracy, recalibrate
from lissnas.nets.training import compute_on
from lissnas.oracles.base import Oracle
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared


@dataclass(frozen=True)
class SupernetOracle:
    """An oracle that evaluates architectures with a supernet; accuracies in percent.

    All candidates use the same recalibration and validation batches. If `recalibration_batches` is 0, norms use
    the running statistics of the training, which mix all paths.
    """

    supernet: Supernet
    calibration: Sequence[Tensor]
    batches: Sequence[Batch]

    @classmethod
    def of(
        cls, supernet: Supernet, data: Data, settings: SearchConfig, device: torch.device | None = None
    ) -> SupernetOracle:
        """Return an oracle with prepared batches; raises UserError if there are no validation images."""
        device, size = device or torch.device("cpu"), settings.batch_size

        def ready(images: Tensor) -> Tensor:
            return images.to(device, memory_format=torch.channels_last)

        if data.classes != supernet.scale.classes:
            raise UserError(f"images: {data.classes} classes don't fit a supernet of {supernet.scale.classes} classes")
        validation = [(ready(x), y.to(device)) for x, y in data.batches("validation", size, settings.images)]
        if not validation:
            raise UserError("validation: no images are held out for evaluation; raise images.validation")
        calibration = [
            ready(data.plain("train", first * size, size)[0]) for first in range(settings.recalibration_batches)
        ]
        supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(supernet, calibration, validation)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` accuracies in percent."""
        return np.array([self.accuracy(path) for path in archs])

    def accuracy(self, path: Sequence[int]) -> float:
        """Return the accuracy of a path, in percent."""
        network = Network(self.supernet, tuple(path))
        if self.calibration:
            recalibrate(network, self.calibration)
        return accuracy(network, self.batches)


def supernet_oracle(params: Params, space: Space, members: Archs | None, folder: Path) -> tuple[Oracle, str]:
    """Return an oracle of `members` (None: the whole space) from a trained supernet, and its digest.

    Recalibration follows the section `search`. The digest covers the supernet's files and the images, not those
    settings. Raises UserError, DamagedFile.
    """

    @cache  # loaded on the first query: a finished search needs no oracle
    def oracle() -> SupernetOracle:
        data = images.load(params.images, recipe_of(params, params.supernet.recipe, "supernet.recipe"))
        model, device = load_supernet(folder, members), compute_on(params.torch)
        return SupernetOracle.of(model, data, params.search, device)

    manifest, about = supernet_manifest(folder)
    if about["space"] != space.name or isinstance(space, Declared):
        raise UserError(f"the supernet in {folder} is of {about['space']}; it can't evaluate networks of {space.name}")
    digest = artifacts.digest({"supernet": manifest, "images": image_parameters(params)})
    return (lambda archs: oracle()(archs)), digest
