"""Images to train on: the packaged CIFAR-10 subset, torchvision's CIFAR, or a folder such as ImageNet.

Which images a step sees, and how they are cropped, flipped and cut, is a function of the seed and the
step alone, so that a run that was ended goes on with the very batches it would have seen.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from lissnas.config import ImagesConfig, TrainingConfig
from lissnas.core.errors import DamagedFile, UserError, first_line
from lissnas.core.rng import stream

SUBSET = "cifar10_subset.parquet"
SUBSET_SHA256 = "c384370cc47a7f579c20096a36536e64083c2ddf45f67b0de1d2465f572c3111"
"""12,000 images of CIFAR-10 (Krizhevsky, 2009), 1,000 a class from its training, 200 from its test images."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""By channel, as usual for natural images."""


Batch: TypeAlias = tuple[Tensor, Tensor]
"""Normalised images and their labels."""


class Data(ABC):
    """Where a training gets its batches: normalised float images `(n, 3, side, side)` and labels `(n,)`."""

    classes: int
    side: int

    @property
    def n_train(self) -> int:
        """How many images there are to train on."""
        return self.n_of("train")

    @abstractmethod
    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step; of several processes each gets its part of it."""

    @abstractmethod
    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images `first` to `first + size` of a split in order, not augmented, fewer at its end."""

    @abstractmethod
    def n_of(self, split: str) -> int:
        """Return how many images `train`, `validation` or `test` has."""

    def batches(self, split: str, size: int, n: int | None = None) -> Iterator[Batch]:
        """Yield the first `n` images of a split, all by default, as `plain` gives them, `size` at once."""
        n = self.n_of(split) if n is None else min(n, self.n_of(split))
        return (self.plain(split, first, min(size, n - first)) for first in range(0, n, size))


@dataclass(frozen=True)
class Augmentation:
    """How a training image is changed: zero-padded crop, horizontal flip, one square cut out."""

    padding: int = 4
    flip: bool = True
    cutout: int = 0
    jitter: float = 0.0
    """Brightness, contrast and saturation change by factors of 1 - jitter to 1 + jitter."""


FLIPPED = Augmentation(padding=0)
Indices: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Bools: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]


@lru_cache(maxsize=2)
def _epoch(n: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch; kept, for a million images take longer to shuffle than to train a step on."""
    return stream(seed, "epoch", epoch).permutation(n)


def indices(n: int, seed: int, step: int, size: int) -> Indices:
    """Return the images of a step's batch: epoch after epoch, each in its own order."""
    start, stop = step * size, (step + 1) * size
    epochs = range(start // n, (stop - 1) // n + 1)
    return np.concatenate([_epoch(n, seed, e)[max(0, start - e * n) : stop - e * n] for e in epochs])


def share(size: int, rank: int, world: int) -> slice:
    """Return which images of a batch a process gets."""
    return slice(rank * size // world, (rank + 1) * size // world)


def split(n: int, validation: int, seed: int) -> dict[str, Indices]:
    """Return which of `n` training images are trained on, and which are held out for validation; raises UserError."""
    if not 0 < validation < n:
        raise UserError(f"validation: {validation} of {n:,} training images can't be set apart")
    order = stream(seed, "split").permutation(n)
    return {"train": order[validation:], "validation": order[:validation]}


class Images(NamedTuple):
    """Decoded images `(n, 3, side, side)` as bytes, their labels, which are for training, and how many classes."""

    pixels: Tensor
    labels: Tensor
    is_train: Bools
    classes: int


@dataclass(eq=False)
class MemoryData(Data):
    """Small images by split, all in memory as bytes; whole batches are augmented at once."""

    pixels: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: int
    seed: int
    augmentation: Augmentation

    def __post_init__(self) -> None:
        self.side = int(self.pixels["train"].shape[-1])

    @classmethod
    def of(cls, images: Images, seed: int, validation: int, side: int, augmentation: Augmentation) -> MemoryData:
        """Return images at `side` pixels, `validation` of those for training held out; raises UserError."""
        pixels, labels, is_train, classes = images
        train = np.flatnonzero(is_train)
        at = {name: train[chosen] for name, chosen in split(len(train), validation, seed).items()}
        at["test"] = np.flatnonzero(~is_train)
        if pixels.shape[-1] % side:
            raise UserError(f"side: images of {pixels.shape[-1]} pixels can't be reduced to {side}")
        if side != pixels.shape[-1]:
            pixels = F.avg_pool2d(pixels.float(), pixels.shape[-1] // side).round().to(torch.uint8)
        chosen = {name: torch.from_numpy(where) for name, where in at.items()}
        pixels_of, labels_of = ({name: every[where] for name, where in chosen.items()} for every in (pixels, labels))
        return cls(pixels_of, labels_of, classes, seed, augmentation)

    def n_of(self, split: str) -> int:
        """Return how many images a split has."""
        return len(self.labels[split])

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step, a process's part of it."""
        chosen = torch.from_numpy(indices(self.n_train, self.seed, step, size))
        images, labels = self.pixels["train"][chosen], self.labels["train"][chosen]
        generator = torch.Generator().manual_seed(int(stream(self.seed, "augment", step).integers(1 << 62)))
        images, part = augment(images, self.augmentation, generator), share(size, rank, world)
        return normalise(images[part]), labels[part]

    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images of a split in order."""
        part = slice(first, first + size)
        return normalise(self.pixels[split][part]), self.labels[split][part]


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Change `(n, 3, side, side)` bytes, each image by draws of its own.

    torchvision's transforms draw once for a whole batch; image by image they would take several times as long.
    """
    n, _, side, _ = images.shape
    if how.padding:
        windows = F.pad(images, [how.padding] * 4).unfold(2, side, 1).unfold(3, side, 1)
        down, right = torch.randint(0, 2 * how.padding + 1, (2, n), generator=generator)
        images = windows[torch.arange(n), :, down, right]
    if how.flip:
        turned = torch.rand(n, generator=generator) < 0.5
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    if how.cutout:
        corner = torch.randint(0, side, (2, n, 1), generator=generator) - how.cutout // 2
        rows, columns = (torch.arange(side) >= corner) & (torch.arange(side) < corner + how.cutout)
        images = images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
    if how.jitter:
        factors = 1 + how.jitter * (2 * torch.rand(n, 3, generator=generator) - 1)
        images = torch.stack([jitter(*pair) for pair in zip(images, factors.tolist(), strict=True)])
    return images


def jitter(image: Tensor, factors: Sequence[float]) -> Tensor:
    """Multiply brightness, contrast and saturation of an image, `(3, height, width)` bytes, by three factors."""
    from torchvision.transforms.v2 import functional as change  # seconds of import, which few recipes need

    brightness, contrast, saturation = factors
    image = change.adjust_contrast(change.adjust_brightness(image, brightness), contrast)
    changed: Tensor = change.adjust_saturation(image, saturation)
    return changed


def normalise(images: Tensor) -> Tensor:
    """Return bytes as floats, centred and scaled by channel."""
    scale = torch.tensor(STD).view(1, 3, 1, 1)
    return (images.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / scale


@lru_cache(maxsize=1)
def packaged() -> Images:
    """Return the packaged subset of CIFAR-10; raises DamagedFile when the file is not the one that was packaged."""
    path = files("lissnas.nets") / "data" / SUBSET
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SUBSET_SHA256:
        raise DamagedFile(str(path), SUBSET_SHA256, found, "Install the package again.")
    table = pq.read_table(io.BytesIO(data))
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(j))) for j in table["jpeg"].to_pylist()])
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    return Images(_channels_first(decoded), labels, table["train"].to_numpy(), 10)


def cifar(folder: Path, classes: int, download: bool) -> Images:
    """Return CIFAR-10 or CIFAR-100 from torchvision's copy in `folder`; raises UserError if it isn't there."""
    from torchvision import datasets  # as long an import as torch's, which few of those who train need

    kind = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]
    try:
        parts = [kind(str(folder), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"CIFAR-{classes} is not in {folder} ({first_line(error)}); allow the download, put the "
            "published archive there, or take the packaged images (data: packaged)"
        ) from None
    pixels = _channels_first(np.concatenate([p.data for p in parts]))
    labels = torch.tensor([*parts[0].targets, *parts[1].targets])
    return Images(pixels, labels, np.arange(len(labels)) < len(parts[0].targets), classes)


def _channels_first(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


class FolderData(Data):
    """Large images in folders by class (`train/`, `val/`, as ImageNet has them), read as they are needed.

    Training images are cropped at random to a part of 8 to 100 % of the image, as is usual on ImageNet, and
    flipped; validation images are set apart from the training images, so that `val/` is only ever reported on.
    Threads decode, one a core.
    """

    def __init__(
        self, folder: Path, seed: int, validation: int, side: int, augmentation: Augmentation = FLIPPED
    ) -> None:
        from torchvision import datasets
        from torchvision.transforms import v2

        if augmentation.padding or augmentation.cutout:
            raise UserError("a folder's images are cropped at random: the recipe's padding and cutout must be 0")
        for part in ("train", "val"):
            if not (folder / part).is_dir():
                raise UserError(f"{folder} has no folder {part}; expected {part}/CLASS/IMAGE as ImageNet has them")
        try:
            train, test = (datasets.ImageFolder(str(folder / part)) for part in ("train", "val"))
        except FileNotFoundError as error:
            raise UserError(f"{folder}: {error}; expected {{train,val}}/CLASS/IMAGE") from None
        if train.classes != test.classes:
            raise UserError(f"{folder}: train/ and val/ have different classes")
        at = split(len(train.samples), validation, seed)
        self._samples = {name: [train.samples[i] for i in chosen] for name, chosen in at.items()}
        self._samples["test"] = list(test.samples)
        self._loader = train.loader
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.classes, self.seed, self.side, self.augmentation = len(train.classes), seed, side, augmentation
        self._change = v2.functional
        self._centre = v2.Compose([v2.Resize(round(side * 8 / 7), antialias=True), v2.CenterCrop(side), v2.ToImage()])

    def _load(self, path: str) -> Image.Image:
        """Return an image; raises UserError that names the file where it is none."""
        try:
            image: Image.Image = self._loader(path)
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
            raise UserError(f"{path} can't be read as an image: {first_line(error)}") from None
        return image

    def n_of(self, split: str) -> int:
        """Return how many images a split has."""
        return len(self._samples[split])

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step, a process's part of it."""
        part = share(size, rank, world)
        samples = [self._samples["train"][at] for at in indices(self.n_train, self.seed, step, size)[part]]

        def one(place: int) -> Tensor:
            # A stream for each image, whichever thread or process changes it.
            return self._changed(self._load(samples[place][0]), stream(self.seed, "augment", step, part.start + place))

        images = torch.stack(list(self._pool.map(one, range(len(samples)))))
        return normalise(images), torch.tensor([label for _, label in samples])

    def _changed(self, image: Image.Image, rng: Generator) -> Tensor:
        """Return a random part of an image, `(3, side, side)` bytes, mirrored and jittered as the recipe says."""
        box = crop_box(*image.size, rng)
        pixels = self._change.pil_to_tensor(self._change.resized_crop(image, *box, [self.side, self.side]))
        if self.augmentation.flip and rng.random() < 0.5:
            pixels = pixels.flip(2)
        strength = self.augmentation.jitter
        return jitter(pixels, rng.uniform(1 - strength, 1 + strength, 3).tolist()) if strength else pixels

    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images of a split in order: resized, and cut out of the middle."""
        part = self._samples[split][first : first + size]
        if not part:
            return torch.empty(0, 3, self.side, self.side), torch.empty(0, dtype=torch.int64)
        images = torch.stack(list(self._pool.map(lambda sample: self._centre(self._load(sample[0])), part)))
        return normalise(images), torch.tensor([label for _, label in part])


AREA = (0.08, 1.0)
"""Smallest and largest share of an image that a random crop takes."""
RATIO = (3 / 4, 4 / 3)
"""Smallest and largest ratio of a random crop's width to its height."""
TRIES = 10


def crop_box(width: int, height: int, rng: Generator) -> tuple[int, int, int, int]:
    """Return a random part of an image as top, left, height and width (Szegedy et al., 2015).

    Its share of the area is uniform, its ratio of sides log-uniform; if none of ten tries fits, it is the middle.
    The distribution is that of torchvision's RandomResizedCrop, which draws from torch's global generator: batches
    are made in threads while a training step draws from that one.
    """
    area = width * height * rng.uniform(*AREA, TRIES)
    ratio = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), TRIES))
    sides = np.rint(np.sqrt([area / ratio, area * ratio])).astype(int)
    fits = np.flatnonzero(((sides > 0) & (sides <= [[height], [width]])).all(axis=0))
    if len(fits):
        h, w = sides[:, fits[0]].tolist()
        return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    side = min(width, height)
    return (height - side) // 2, (width - side) // 2, side, side


def load(settings: ImagesConfig, recipe: TrainingConfig) -> Data:
    """Return the images that a configuration names, augmented as a recipe says; raises UserError."""
    how = Augmentation(recipe.padding, recipe.flip, recipe.cutout, recipe.jitter)
    split = settings.seed, settings.validation, settings.side, how
    if settings.source == "packaged":
        return MemoryData.of(packaged(), *split)
    if settings.folder is None:
        raise UserError(f"images.folder: needed for source {settings.source}")
    folder = Path(settings.folder)
    if settings.source == "folder":
        return FolderData(folder, *split)
    return MemoryData.of(cifar(folder, 10 if settings.source == "cifar10" else 100, settings.download), *split)
