"""How good a path of a supernet is: its accuracy on held-out images, its batch norms recalibrated first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lissnas import artifacts
from lissnas.config import Params, SearchConfig
from lissnas.config.resolve import image_parameters, recipe_of
from lissnas.core.errors import UserError
from lissnas.nets import images
from lissnas.nets.base import Network, Supernet
from lissnas.nets.files import load_supernet, supernet_manifest
from lissnas.nets.images import Batch, Data
from lissnas.nets.training import compute_on
from lissnas.oracles.base import Oracle
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared


@dataclass(frozen=True)
class SupernetOracle:
    """Asks a supernet about architectures, of a search or of a shrinker: an oracle, accuracies in percent.

    The batches for recalibration and validation are made once and used for every candidate. With
    `recalibration_batches` 0 the running statistics of training are used as they are, which are those of
    all paths mixed.
    """

    supernet: Supernet
    calibration: Sequence[Tensor]
    batches: Sequence[Batch]

    @classmethod
    def of(
        cls, supernet: Supernet, data: Data, settings: SearchConfig, device: torch.device | None = None
    ) -> SupernetOracle:
        """Prepare the batches; raises UserError when there are no validation images."""
        device, size = device or torch.device("cpu"), settings.batch_size

        def ready(images: Tensor) -> Tensor:
            return images.to(device, memory_format=torch.channels_last)

        if data.classes != supernet.scale.classes:
            raise UserError(f"images of {data.classes} classes can't judge a supernet of {supernet.scale.classes}")
        validation = [(ready(x), y.to(device)) for x, y in data.batches("validation", size, settings.images)]
        if not validation:
            raise UserError("validation: no images are set apart to judge on")
        calibration = [
            ready(data.plain("train", first * size, size)[0]) for first in range(settings.recalibration_batches)
        ]
        supernet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(supernet, calibration, validation)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` accuracies in percent."""
        return np.array([self.accuracy(path) for path in archs])

    def accuracy(self, path: Sequence[int]) -> float:
        """Return one path's accuracy in percent."""
        network = Network(self.supernet, tuple(path))
        if self.calibration:
            recalibrate(network, self.calibration)
        return accuracy(network, self.batches)


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the accuracy of a model that takes images alone, in percent."""
    model.eval()
    hits = n = 0
    for x, y in batches:
        hits += int((model(x).argmax(dim=1) == y).sum())
        n += len(y)
    return 100 * hits / n


@torch.inference_mode()
def recalibrate(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace a network's running statistics by the plain average over `batches` (Guo et al., 2020)."""
    with torch.random.fork_rng(devices=[]):  # dropout before the classifier draws, and changes no statistics
        update_bn(batches, network)
    network.eval()


def supernet_judge(params: Params, space: Space, members: Archs | None, folder: Path) -> tuple[Oracle, str]:
    """Return a trained supernet as an oracle of `members`, of the whole space if None, and a digest of it.

    Its accuracies are recalibrated, by the settings of `search`; of the digest are its files and the images, not
    those settings. Raises UserError, DamagedFile.
    """

    @cache  # made when it is first asked: a search that is there already asks nobody
    def oracle() -> SupernetOracle:
        data = images.load(params.images, recipe_of(params, params.supernet.recipe, "supernet.recipe"))
        model, device = load_supernet(folder, members), compute_on(params.torch)
        return SupernetOracle.of(model, data, params.search, device)

    manifest, about = supernet_manifest(folder)
    if about["space"] != space.name or isinstance(space, Declared):
        raise UserError(f"the supernet in {folder} is one of {about['space']}; it can't judge networks of {space.name}")
    digest = artifacts.digest({"supernet": manifest, "images": image_parameters(params)})
    return (lambda archs: oracle()(archs)), digest
