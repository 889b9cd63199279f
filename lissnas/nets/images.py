"""Images to train on: the packaged CIFAR-10 subset, torchvision's CIFAR, or a folder such as ImageNet.

The images of a step and their augmentation depend only on the seed and the step, so a resumed run
sees the same batches as an uninterrupted one.
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
"""12,000 images of CIFAR-10 (Krizhevsky, 2009): of each class 1,000 training and 200 test images."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""By channel: the usual statistics of ImageNet, for pixel values in 0 to 1."""


Batch: TypeAlias = tuple[Tensor, Tensor]
"""Normalised images and their labels."""


class Data(ABC):
    """Source of batches: normalised float images `(n, 3, side, side)` and labels `(n,)`."""

    classes: int
    side: int

    @property
    def n_train(self) -> int:
        """The number of training images."""
        return self.n_of("train")

    @abstractmethod
    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step, or the part of process `rank` of `world` processes."""

    @abstractmethod
    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images `first` to `first + size` of a split in order, not augmented; fewer at the end."""

    @abstractmethod
    def n_of(self, split: str) -> int:
        """Return the number of images of a split: `train`, `validation` or `test`."""

    def batches(self, split: str, size: int, n: int | None = None) -> Iterator[Batch]:
        """Return batches of `size` images over the first `n` images of a split (default: all), not augmented."""
        n = self.n_of(split) if n is None else min(n, self.n_of(split))
        return (self.plain(split, first, min(size, n - first)) for first in range(0, n, size))


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images: zero-padded crop, horizontal flip, cutout of one square, jitter."""

    padding: int = 4
    flip: bool = True
    cutout: int = 0
    jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by factors of 1 - jitter to 1 + jitter."""


OTHERWISE = 5
"""One training image in 5 is held out for validation if the setting is more than half of them."""
FLIPPED = Augmentation(padding=0)
Indices: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Bools: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]


@lru_cache(maxsize=2)
def _epoch(n: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch, cached: shuffling a million images takes longer than a training step."""
    return stream(seed, "epoch", epoch).permutation(n)


def indices(n: int, seed: int, step: int, size: int) -> Indices:
    """Return the indices of a step's batch; each epoch has a new order."""
    start, stop = step * size, (step + 1) * size
    epochs = range(start // n, (stop - 1) // n + 1)
    return np.concatenate([_epoch(n, seed, e)[max(0, start - e * n) : stop - e * n] for e in epochs])


def share(size: int, rank: int, world: int) -> slice:
    """Return the slice of a batch for a process."""
    return slice(rank * size // world, (rank + 1) * size // world)


def split(n: int, validation: int, seed: int) -> dict[str, Indices]:
    """Split `n` training images at random into `train` and `validation`; raises UserError."""
    if not 0 < validation < n:
        raise UserError(f"validation: {validation} of {n:,} training images can't be held out; expected 1 to {n - 1:,}")
    order = stream(seed, "split").permutation(n)
    return {"train": order[validation:], "validation": order[:validation]}


def held_out(n: int, validation: int) -> int:
    """Return how many of a user's `n` training images to hold out: `validation`, a fifth if that is more than half."""
    return validation if 2 * validation <= n else max(1, n // OTHERWISE)


class Images(NamedTuple):
    """Decoded images `(n, 3, side, side)` as bytes, their labels, a mask of training images, number of classes."""

    pixels: Tensor
    labels: Tensor
    is_train: Bools
    classes: int


@dataclass(eq=False)
class MemoryData(Data):
    """Small images in memory as bytes, by split; whole batches are augmented at once."""

    pixels: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: int
    seed: int
    augmentation: Augmentation

    def __post_init__(self) -> None:
        self.side = int(self.pixels["train"].shape[-1])

    @classmethod
    def of(cls, images: Images, seed: int, validation: int, side: int, augmentation: Augmentation) -> MemoryData:
        """Return the images at `side` pixels, with `validation` training images held out; raises UserError."""
        pixels, labels, is_train, classes = images
        train = np.flatnonzero(is_train)
        at = {name: train[chosen] for name, chosen in split(len(train), validation, seed).items()}
        at["test"] = np.flatnonzero(~is_train)
        if pixels.shape[-1] % side:
            raise UserError(f"side: images of {pixels.shape[-1]} pixels can't be reduced to {side}; use a divisor")
        if side != pixels.shape[-1]:
            pixels = F.avg_pool2d(pixels.float(), pixels.shape[-1] // side).round().to(torch.uint8)
        chosen = {name: torch.from_numpy(where) for name, where in at.items()}
        pixels_of, labels_of = ({name: every[where] for name, where in chosen.items()} for every in (pixels, labels))
        return cls(pixels_of, labels_of, classes, seed, augmentation)

    def n_of(self, split: str) -> int:
        """Return the number of images of a split."""
        return len(self.labels[split])

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step, or the part of a process."""
        chosen = torch.from_numpy(indices(self.n_train, self.seed, step, size))
        images, labels = self.pixels["train"][chosen], self.labels["train"][chosen]
        generator = torch.Generator().manual_seed(int(stream(self.seed, "augment", step).integers(1 << 62)))
        images, part = augment(images, self.augmentation, generator), share(size, rank, world)
        return normalise(images[part]), labels[part]

    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images of a split in order, not augmented."""
        part = slice(first, first + size)
        return normalise(self.pixels[split][part]), self.labels[split][part]


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return augmented images, `(n, 3, side, side)` bytes, with independent draws for each image.

    torchvision's transforms draw once for a whole batch; applied to single images they take several times as long.
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
    """Multiply brightness, contrast and saturation of an image, `(3, height, width)` bytes, by `factors`."""
    from torchvision.transforms.v2 import functional as change  # imports slowly, and few recipes need it

    brightness, contrast, saturation = factors
    image = change.adjust_contrast(change.adjust_brightness(image, brightness), contrast)
    changed: Tensor = change.adjust_saturation(image, saturation)
    return changed


def normalise(images: Tensor) -> Tensor:
    """Return images as floats, standardised by channel."""
    scale = torch.tensor(STD).view(1, 3, 1, 1)
    return (images.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / scale


@lru_cache(maxsize=1)
def packaged() -> Images:
    """Return the packaged subset of CIFAR-10; raises DamagedFile if its checksum differs."""
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
    """Return CIFAR-10 or CIFAR-100 from `folder` (torchvision's format); raises UserError if it is missing."""
    from torchvision import datasets  # imports slowly, and few recipes need it

    kind = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]
    try:
        parts = [kind(str(folder), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        reason = first_line(error).partition(". ")[0]  # torchvision goes on with an argument of its own
        raise UserError(
            f"CIFAR-{classes} is not in {folder} ({reason}); download it with --set images.download=true, "
            "put the published archive there, or use --source packaged"
        ) from None
    pixels = _channels_first(np.concatenate([p.data for p in parts]))
    labels = torch.tensor([*parts[0].targets, *parts[1].targets])
    return Images(pixels, labels, np.arange(len(labels)) < len(parts[0].targets), classes)


def _channels_first(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


class FolderData(Data):
    """Large images in a folder for each class (`train/`, `val/`, as in ImageNet), read on demand.

    Training images get a random crop of 8 to 100 % of the area, as usual on ImageNet, instead of a recipe's padding and
    cutout. Validation images are held out from `train/` (`held_out`); `val/` is the test set. One thread for each core
    decodes.
    """

    def __init__(
        self, folder: Path, seed: int, validation: int, side: int, augmentation: Augmentation = FLIPPED
    ) -> None:
        from torchvision import datasets
        from torchvision.transforms import v2

        for part in ("train", "val"):
            if not (folder / part).is_dir():
                raise UserError(f"{folder} has no folder {part}; expected {part}/CLASS/IMAGE as in ImageNet")
        try:
            train, test = (datasets.ImageFolder(str(folder / part)) for part in ("train", "val"))
        except FileNotFoundError as error:
            raise UserError(f"{folder}: {error}; expected {{train,val}}/CLASS/IMAGE") from None
        if train.classes != test.classes:
            raise UserError(f"{folder}: train/ and val/ have different classes; expected the same folders in both")
        at = split(len(train.samples), held_out(len(train.samples), validation), seed)
        self.folder = folder
        self._samples = {name: [train.samples[i] for i in chosen] for name, chosen in at.items()}
        self._samples["test"] = list(test.samples)
        self._loader = train.loader
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.classes, self.seed, self.side, self.augmentation = len(train.classes), seed, side, augmentation
        self._change = v2.functional
        self._centre = v2.Compose([v2.Resize(round(side * 8 / 7), antialias=True), v2.CenterCrop(side), v2.ToImage()])

    def describe(self) -> str:
        """Return the folder, the number of images and how they are changed, for the summary of a result."""
        how, counts = self.augmentation, ", ".join(f"{self.n_of(name):,} {name}" for name in self._samples)
        more = "".join(f", {text}" for text in ("flip" * how.flip, f"jitter {how.jitter:g}" * (how.jitter > 0)) if text)
        return (
            f"{counts} images of {self.classes} classes in {self.folder}; training images are random crops, resized to "
            f"{self.side} pixels{more}"
        )

    def _load(self, path: str) -> Image.Image:
        """Return an image; raises UserError with the path if it can't be read."""
        try:
            image: Image.Image = self._loader(path)
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
            raise UserError(f"{path} can't be read as an image: {first_line(error)}") from None
        return image

    def n_of(self, split: str) -> int:
        """Return the number of images of a split."""
        return len(self._samples[split])

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the augmented batch of a step, or the part of a process."""
        part = share(size, rank, world)
        samples = [self._samples["train"][at] for at in indices(self.n_train, self.seed, step, size)[part]]

        def one(place: int) -> Tensor:
            # A random stream for each image: the result doesn't depend on threads or processes.
            return self._changed(self._load(samples[place][0]), stream(self.seed, "augment", step, part.start + place))

        images = torch.stack(list(self._pool.map(one, range(len(samples)))))
        return normalise(images), torch.tensor([label for _, label in samples])

    def _changed(self, image: Image.Image, rng: Generator) -> Tensor:
        """Return a random crop of an image, `(3, side, side)` bytes, flipped and jittered by the recipe."""
        box = crop_box(*image.size, rng)
        pixels = self._change.pil_to_tensor(self._change.resized_crop(image, *box, [self.side, self.side]))
        if self.augmentation.flip and rng.random() < 0.5:
            pixels = pixels.flip(2)
        strength = self.augmentation.jitter
        return jitter(pixels, rng.uniform(1 - strength, 1 + strength, 3).tolist()) if strength else pixels

    def plain(self, split: str, first: int, size: int) -> Batch:
        """Return images of a split in order: resized, with a centre crop."""
        part = self._samples[split][first : first + size]
        if not part:
            return torch.empty(0, 3, self.side, self.side), torch.empty(0, dtype=torch.int64)
        images = torch.stack(list(self._pool.map(lambda sample: self._centre(self._load(sample[0])), part)))
        return normalise(images), torch.tensor([label for _, label in part])


AREA = (0.08, 1.0)
"""Minimum and maximum share of the image area in a random crop."""
RATIO = (3 / 4, 4 / 3)
"""Minimum and maximum ratio of width to height of a random crop."""
TRIES = 10
"""Number of random crops to try before a centre crop."""


def crop_box(width: int, height: int, rng: Generator) -> tuple[int, int, int, int]:
    """Return a random crop of an image: top, left, height and width (Szegedy et al., 2015).

    The share of the area is uniform, the aspect ratio log-uniform; if none of ten tries fits, returns a centre crop.
    The distribution is that of torchvision's RandomResizedCrop, which draws from torch's global generator; that is
    not possible here, because threads make batches while a training step draws from it.
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


def about(settings: ImagesConfig, recipe: TrainingConfig) -> dict[str, str]:
    """Return an entry `images` for a result's metrics that describes a user's own images; none for the others."""
    if settings.source != "folder":
        return {}
    data = load(settings, recipe)
    return {"images": data.describe()} if isinstance(data, FolderData) else {}


def load(settings: ImagesConfig, recipe: TrainingConfig) -> Data:
    """Return the images of a configuration, with the augmentation of a recipe; raises UserError."""
    how = Augmentation(recipe.padding, recipe.flip, recipe.cutout, recipe.jitter)
    split = settings.seed, settings.validation, settings.side, how
    if settings.source == "packaged":
        return MemoryData.of(packaged(), *split)
    if settings.folder is None:
        raise UserError(f"images.folder: missing; images.source {settings.source} requires it (--folder)")
    folder = Path(settings.folder)
    if settings.source == "folder":
        return FolderData(folder, *split)
    return MemoryData.of(cifar(folder, 10 if settings.source == "cifar10" else 100, settings.download), *split)
