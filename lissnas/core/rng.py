"""Independent, named random streams; nothing in the package draws from a global generator."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence


def stream(seed: int, *names: str | int) -> Generator:
    """Return the generator that belongs to `seed` and `names`, the same on every machine.

    Streams of different names are independent, so a step draws the same numbers whether or not
    the steps before it ran in this process: that is what lets a run resume to the same bytes.
    """
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return Generator(PCG64(SeedSequence([seed, *words])))
