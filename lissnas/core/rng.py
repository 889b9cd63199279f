"""Independent, named random streams; the package never draws from a global generator."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence


def stream(seed: int, *names: str | int) -> Generator:
    """Return the generator for `seed` and `names`, the same on every machine.

    Streams with different names are independent, so a step draws the same numbers whether or not
    the preceding steps ran in this process: a resumed run gives the same bytes.
    """
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return Generator(PCG64(SeedSequence([seed, *words])))
