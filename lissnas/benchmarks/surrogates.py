"""Packaged surrogates, which replace training on huge spaces, and the labels of Accel-NASBench.

Values of surrogates are predictions, not those of trained networks; state this wherever they are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from typing import TypeAlias

import numpy as np

from lissnas.benchmarks import tables
from lissnas.core.blas import one_blas_thread
from lissnas.spaces import GPT, Archs, FloatArray, IntArray, get
from lissnas.spaces.base import Features
from lissnas.spaces.ofa_mobilenetv3 import SKELETON, OFAMobileNetV3

CHUNK = 4_096
"""Architectures per forward pass of the perceptron, so that their values fit the CPU cache."""
RESOLUTION = (SKELETON.image - 112) // 16
"""Index of the active one of the eight resolution inputs."""


Layers: TypeAlias = list[tuple[Features, Features]]
"""Weights `(inputs, outputs)` and biases of a perceptron."""


@cache
def _ofa_layers() -> Layers:
    """Return the perceptron of Once-for-All; the first bias includes the resolution."""
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
    return 100.0 * _forward(archs, space.one_hot, _ofa_layers())


@cache
def _gpt_layers(scale: str) -> Layers:
    """Return the perceptron of a scale of HW-GPT-Bench, with its inputs in the order of positions."""
    with np.load(BytesIO(tables.read_bytes(f"hw{scale}_perplexity.npz")), allow_pickle=False) as file:
        layers = [
            (file[f"fc{i}_weight"].T.astype(np.float32), file[f"fc{i}_bias"].astype(np.float32)) for i in range(1, 6)
        ]
    weights, bias = layers[0]
    # The file has the two inputs of the biases last; in a row they follow those of the width and the layers.
    last = len(weights) - 2
    layers[0] = np.concatenate([weights[:6], weights[last:], weights[6:last]]), bias
    return layers


def gpt_perplexity(scale: str, archs: Archs) -> FloatArray:
    """Return `(n,)` predicted OpenWebText perplexities of decoders of `gpt_s`, `gpt_m` or `gpt_l`; less is better.

    The published predictor of HW-GPT-Bench (Sukthanker et al., 2024, Apache-2.0), fitted to subnets of a
    supernet. Raises InvalidArchitecture for a row outside the space.
    """
    space = get(scale)
    assert isinstance(space, GPT)
    space.key(archs)  # checks the rows
    return _forward(archs, space.one_hot, _gpt_layers(scale))


def _forward(archs: Archs, inputs: Callable[[Archs], Features], layers: Layers) -> FloatArray:
    """Return the `(n,)` outputs of a perceptron with ReLU."""
    *hidden, (last, last_bias) = layers
    out = np.empty(len(archs))

    def predict(lo: int) -> None:
        values = inputs(archs[lo : lo + CHUNK])
        for weights, bias in hidden:
            values = values @ weights
            values += bias
            np.maximum(values, 0, out=values)
        out[lo : lo + CHUNK] = (values @ last + last_bias)[:, 0]

    # One chunk per core with single-threaded products: the last digits don't depend on the number of threads, and a
    # busy core does not delay the others.
    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
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


def accel_nasbench_labels() -> tuple[Archs, FloatArray, IntArray]:
    """Return 5,125 networks of Accel-NASBench, their mean ImageNet top-1 accuracies in percent, and runs of each.

    The networks were trained with a shortened schedule (Ahmad et al., 2024, Apache-2.0); their accuracies
    are some points below those of a full training.
    """
    table = tables.read("accel_nasbench.parquet")
    archs = get("accel_nasbench").parse(table["arch"].to_pylist())
    values = table["top1"].to_numpy().astype(np.float64).round(3)  # the published digits, without float32 noise
    return archs, values, table["runs"].to_numpy().astype(np.int64)
