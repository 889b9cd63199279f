"""Build networks and supernets by the name of their space."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch

from lissnas import spaces
from lissnas.core.errors import UnknownName, UserError
from lissnas.nets.anynetx import AnyNetXBody
from lissnas.nets.base import Network, Scale, Supernet, used_choices
from lissnas.nets.blocks import BatchNorm
from lissnas.nets.chain import DESIGNS, ChainSupernet
from lissnas.nets.kshot import KShotSupernet
from lissnas.nets.nasbench101 import NASBench101Supernet
from lissnas.nets.transnas_micro import TransNASMicroSupernet
from lissnas.spaces import AnyNetX, Archs, CellSpace, ChainSpace, Space, anynetx
from lissnas.spaces.nasbench101 import CLASSES

PUBLISHED = {"nasbench101": Scale(1.0, 1, CLASSES), "transnas_micro": Scale(1.0, 4, 75)}
"""Published scales of spaces without a skeleton; `class_object` has 75 classes."""
UNSHARED = dict.fromkeys(anynetx.STEPS, Scale(1.0, anynetx.STEM_STRIDE, anynetx.CLASSES))
"""Published scales of spaces that have no supernet."""


def names() -> list[str]:
    """Return the names of the spaces that have networks and a supernet."""
    return [*DESIGNS, *PUBLISHED]


def network_names() -> list[str]:
    """Return the names of the spaces that have networks, with or without a supernet."""
    return [*names(), *UNSHARED]


def published_scale(space_name: str) -> Scale:
    """Return the published scale of a space's networks; raises UnknownName."""
    if space_name not in network_names():
        raise UnknownName("space with networks", space_name, network_names())
    space = spaces.get(space_name)
    if isinstance(space, ChainSpace):
        return Scale(1.0, space.skeleton.stem_stride, space.skeleton.classes)
    return (PUBLISHED | UNSHARED)[space_name]


def supernet(
    space_name: str,
    archs: Archs | None = None,
    *,
    width: float = 1.0,
    stem_stride: int | None = None,
    classes: int | None = None,
    affine: bool | None = None,
    shots: int = 1,
    seed: int = 0,
) -> Supernet:
    """Return a supernet with the operations of `archs`, canonical rows; by default, of the whole space.

    `width` multiplies all channels; `stem_stride` (1 for small images) and `classes` default to the published
    values. `affine` controls whether norms have weights and biases; the default follows the literature of the
    space. With `shots` above 1, each weight is a mixture of `shots` weights (`KShotSupernet`). Initial weights
    depend only on `seed` and the arguments. Raises UserError (UnknownName, InvalidArchitecture).
    """
    scale = _scale(space_name, width, stem_stride, classes)
    space = spaces.get(space_name)
    if space_name in UNSHARED:
        raise UserError(f"no supernet of {space_name} exists; build its networks one by one")
    if archs is not None:
        if not len(archs):
            raise UserError(f"supernet: expected architectures of {space.name}, found an empty set")
        space.key(archs)  # raises for invalid rows
    if affine is None:
        affine = DESIGNS[space_name].shared_affine if space_name in DESIGNS else True
    if shots < 1:
        raise UserError(f"shots: expected at least 1, found {shots}")
    if shots == 1:
        return _build(space, archs, scale, affine, seed)
    return k_shot(space, archs, scale, affine, seed, shots)


def k_shot(space: Space, archs: Archs | None, scale: Scale, affine: bool, seed: int, shots: int) -> KShotSupernet:
    """Return a dictionary of `shots` supernets; the first has the weights of a single supernet of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return KShotSupernet(lambda k: _build(space, archs, scale, affine, seed + k), space, shots)


def network(
    space_name: str,
    arch: Iterable[int],
    *,
    width: float = 1.0,
    stem_stride: int | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> Network:
    """Return the stand-alone network of an architecture, a row of the space, with affine norms.

    The network is of the canonical form (`Network.path`). Other arguments as in `supernet`.
    """
    scale = _scale(space_name, width, stem_stride, classes)
    space = spaces.get(space_name)
    row = np.array([list(arch)], np.int8)
    space.key(row)
    row = space.parse(space.format(row))
    body = _build(space, row, scale, True, seed)
    return Network(body, tuple(row[0].tolist()))


def _scale(space_name: str, width: float, stem_stride: int | None, classes: int | None) -> Scale:
    published = published_scale(space_name)
    scale = Scale(
        width,
        published.stem_stride if stem_stride is None else stem_stride,
        published.classes if classes is None else classes,
    )
    if not (width > 0 and scale.stem_stride > 0 and scale.classes > 0):
        raise UserError(f"expected positive width, stem_stride and classes, found {scale}")
    return scale


def _build(space: Space, archs: Archs | None, scale: Scale, affine: bool, seed: int) -> Supernet:
    allowed = space.possible() if archs is None else used_choices(space, archs)
    norm = partial(BatchNorm, affine=affine)
    # torch draws initial weights from its global generator: seed it here, and restore it.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(space, ChainSpace):
            return ChainSupernet(space, allowed, scale, norm)
        if isinstance(space, CellSpace):
            return NASBench101Supernet(space, allowed, scale, norm, archs)
        if isinstance(space, AnyNetX):
            assert archs is not None
            return AnyNetXBody(space, archs, scale, norm)
        return TransNASMicroSupernet(space, allowed, scale, norm)
