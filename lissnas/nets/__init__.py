"""Networks and supernets of the search spaces, as torch modules."""

from __future__ import annotations

from lissnas.nets.base import Network, Scale, Supernet, copy_weights, used_choices
from lissnas.nets.build import names, network, published_scale, supernet

__all__ = [
    "Network",
    "Scale",
    "Supernet",
    "copy_weights",
    "names",
    "network",
    "published_scale",
    "supernet",
    "used_choices",
]
