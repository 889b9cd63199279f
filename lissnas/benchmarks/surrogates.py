"""Packaged surrogates, which replace training on two huge spaces.

Their values are predictions, not accuracies of trained networks; state this wherever they are shown.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO

import numpy as np
from threadpoolctl import threadpool_limits

from lissnas.benchmarks import tables
from lissnas.spaces import Archs, FloatArray, get
from lissnas.spaces.base import Features
from lissnas.spaces.ofa_mobilenetv3 import SKELETON, OFAMobileNetV3

CHUNK = 4_096
"""Architectures per forward pass of the perceptron, so that their values fit the CPU cache."""
RESOLUTION = (SKELETON.image - 112) // 16
"""Index of the active one of the eight resolution inputs."""


@cache
def _layers() -> list[tuple[Features, Features]]:
    """Return weights `(inputs, outputs)` and biases of the perceptron; the first bias includes the resolution."""
    with np.load(BytesIO(tables.read_bytes("ofa_mbv3_acc_predictor.npz")), allow_pickle=False) as file:
        layers = [(file[f"{i}_weight"].T.copy(), file[f"{i}_bias"]) for i in (0, 2, 4, 6)]
    weights, bias = layers[0]
    n_blocks = len(weights) - 8
    layers[0] = weights[:n_blocks].copy(), bias + weights[n_blocks + RESOLUTION]
    return layers


def ofa_accuracy(archs: Archs) -> FloatArray:
    """Return `(n,)` predicted ImageNet top-1 accuracies in percent of Once-for-All MobileNetV3 subnets.

    The published predictor (Cai et al., 2020, MIT) at 224 pixels. It was fitted to subnets of width 1.2
    on 10,000 held-out images, so its values are some points above official validation accuracies.
    Raises InvalidArchitecture for a row outside the space.
    """
    space = get("ofa_mobilenetv3")
    assert isinstance(space, OFAMobileNetV3)
    space.key(archs)  # checks the rows
    *hidden, (last, last_bias) = _layers()
    out = np.empty(len(archs))

    def predict(lo: int) -> None:
        values = space.one_hot(archs[lo : lo + CHUNK])
        for weights, bias in hidden:
            values = values @ weights
            values += bias
            np.maximum(values, 0, out=values)
        out[lo : lo + CHUNK] = 100.0 * (values @ last + last_bias)[:, 0].astype(np.float64)

    # One chunk per core with single-threaded products: the last digits don't depend on the number of threads, and a
    # busy core does not delay the others.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(predict, range(0, len(archs), CHUNK)))
    return out


def nasbench301_labels() -> tuple[Archs, FloatArray]:
    """Return 1,218 different genotypes of NAS-Bench-301 and their values, CIFAR-10 validation accuracy in percent.

    The values are predictions of the benchmark's surrogate model (Zela et al., 2022, Apache-2.0),
    not trained accuracies; they suffice to fit and compare predictors, but not to search.
    """
    table = tables.read("nasbench301_surrogate.parquet")
    archs = get("nasbench301").parse(table["arch"].to_pylist())
    return archs, table["value"].to_numpy().astype(np.float64)
