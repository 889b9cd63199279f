"""Load and save weights: safetensors and a JSON description; loading never executes code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from lissnas import artifacts, spaces
from lissnas.core.errors import UserError
from lissnas.nets.base import Network, Supernet
from lissnas.nets.build import network, supernet
from lissnas.nets.kshot import KShotSupernet
from lissnas.spaces import Archs, Space

WEIGHTS = "network.safetensors"
ABOUT = "network.json"
SUPERNET_WEIGHTS = "supernet.safetensors"
SUPERNET_ABOUT = "supernet.json"
WHOLE = "the whole space"
"""Replaces the checksum of the networks in the description of a supernet of the whole space."""


def weights(model: nn.Module) -> bytes:
    """Return the weights and statistics of a model in safetensors format."""
    return bytes(save_tensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}))


def describe_network(model: Network, side: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description that `load` rebuilds a network from: space, architecture, scale, image side, `extra`."""
    space = spaces.get(model.body.space_name)
    row = np.array([model.path], np.int8)
    return {"space": space.name, "arch": space.format(row)[0], **asdict(model.body.scale), "side": side, **extra}


def load(folder: Path | str) -> Network:
    """Return the network that a retrain stage exported to `folder`, in evaluation mode.

    Verifies the files first. Raises UserError if there is no network, DamagedFile if a checksum differs.
    """
    folder = Path(folder)
    manifest = artifacts.verify(folder)
    if WEIGHTS not in manifest:
        raise UserError(f"{folder} holds no exported network; give the folder of a retrain stage")
    about = json.loads(artifacts.read_verified(folder, ABOUT, manifest))
    row = spaces.get(about["space"]).parse([about["arch"]])[0]
    size = {name: about[name] for name in ("width", "stem_stride", "classes")}
    model = network(about["space"], row.tolist(), **size)
    _load_weights(model, artifacts.read_verified(folder, WEIGHTS, manifest), folder)
    return model


def networks_of(space: Space, members: Archs | None) -> dict[str, Any]:
    """Return the number and the order-independent digest of a supernet's networks, `members` (None: the space)."""
    if members is None:
        return {"networks": space.size(), "networks_sha256": WHOLE}
    return {"networks": len(members), "networks_sha256": artifacts.sha256(np.sort(space.key(members)).tobytes())}


def describe_supernet(model: Supernet, members: Archs | None) -> dict[str, Any]:
    """Return the description of a supernet: space, scale and its networks, `members` (None: the space)."""
    space = spaces.get(model.space_name)
    return {
        "space": space.name,
        **asdict(model.scale),
        "affine": any(m.affine for m in model.modules() if isinstance(m, nn.BatchNorm2d)),
        "shots": model.simplex.k if isinstance(model, KShotSupernet) else 1,
        **networks_of(space, members),
    }


def supernet_manifest(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the manifest and the description of a trained supernet; raises UserError, DamagedFile."""
    manifest = artifacts.verify(folder)
    if SUPERNET_ABOUT not in manifest:
        raise UserError(f"{folder} holds no supernet; give the folder of a trained one")
    return manifest, json.loads(artifacts.read_verified(folder, SUPERNET_ABOUT, manifest))


def load_supernet(folder: Path, members: Archs | None) -> Supernet:
    """Return a supernet that was trained on `members` or on the whole space (None), in evaluation mode.

    Raises UserError if it was trained on other networks, DamagedFile if a checksum differs.
    """
    manifest, about = supernet_manifest(folder)
    space = spaces.get(about["space"])
    if about["networks_sha256"] == WHOLE:
        members = None
    elif members is None:
        raise UserError(
            f"the supernet in {folder} was trained on {about['networks']:,} networks, but the whole of "
            f"{space.name} is requested; train one without --subspace"
        )
    elif about["networks_sha256"] != networks_of(space, members)["networks_sha256"]:
        raise UserError(
            f"the supernet in {folder} was trained on other networks ({about['networks']:,} of {space.name}) "
            f"than the shrunk space has ({len(members):,}); train one on this space"
        )
    size = {name: about[name] for name in ("width", "stem_stride", "classes", "affine", "shots")}
    model = supernet(about["space"], members, **size)
    _load_weights(model, artifacts.read_verified(folder, SUPERNET_WEIGHTS, manifest), folder)
    return model


def _load_weights(model: nn.Module, data: bytes, folder: Path) -> None:
    try:
        model.load_state_dict(load_tensors(data))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"the weights in {folder} don't fit: {str(error).splitlines()[0]}") from None
    model.eval()


def portable(model: nn.Module, side: int) -> bytes:
    """Return a network as a torch.export program (`.pt2`), which runs without this package at any batch size."""
    model.to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, 3, side, side)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
    sink = io.BytesIO()
    torch.export.save(program, sink)
    return sink.getvalue()
