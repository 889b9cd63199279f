"""Networks and supernets of the search spaces, as torch modules."""

from __future__ import annotations

from lissnas.nets.base import Network, Scale, Supernet, used_choices
from lissnas.nets.build import names, network, network_names, published_scale, supernet
from lissnas.nets.files import load

__all__ = [
    "Network",
    "Scale",
    "Supernet",
    "load",
    "names",
    "network",
    "network_names",
    "published_scale",
    "supernet",
    "used_choices",
]
