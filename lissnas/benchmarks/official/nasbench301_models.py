"""Predictions of NAS-Bench-301's published models: the ensemble mean, on the features that it was fitted to.

A feature is a hyperparameter of the benchmark's configuration space in ConfigSpace's order: unconditional ones
first, each part sorted by name; -1 if a genotype lacks it. The hyperparameters of the training have the values that
the benchmark's interface fixes. (github.com/automl/nasbench301, configspace.json, api.py, representations.py,
surrogate_models/utils.py, gradient_boosting/xgboost.py.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lissnas import artifacts
from lissnas.benchmarks.official.nasbench301 import MODEL
from lissnas.core.errors import UserError
from lissnas.predictors.boosting import booster_scores, device_parameters, xgb
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.base import Features
from lissnas.spaces.nasbench301_cells import CELL, INPUT_CHOICES, INPUTS, N_SLOTS, PAIRS, SLOT, tails_of

ABSENT = -1.0
CHUNK = 32_768
"""Genotypes per chunk of features in memory."""
CELLS = ("normal", "reduce")
ALWAYS = 2
"""Edges present in every cell: those of its first node."""


def _between(value: float, low: float, high: float, logarithm: bool = False) -> float:
    """Return a number scaled from its range to 0 to 1."""
    if logarithm:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _whole(value: int, low: int, high: int, logarithm: bool = False) -> float:
    """Return an integer scaled from its range to 0 to 1, at the middle of its bin."""
    return _between(value, low - 0.49999, high + 0.49999, logarithm)


DARTS = "NetworkSelectorDatasetInfo:darts:"
FIXED = {
    "CreateImageDataLoader:batch_size": _whole(96, 64, 128, logarithm=True),
    "ImageAugmentation:augment": 0.0,
    "ImageAugmentation:autoaugment": 0.0,
    "ImageAugmentation:cutout": 0.0,
    "ImageAugmentation:cutout_holes": _whole(1, 1, 3),
    "ImageAugmentation:cutout_length": _whole(16, 1, 50),
    "ImageAugmentation:fastautoaugment": 0.0,
    "LossModuleSelectorIndices:loss_module": 0.0,
    f"{DARTS}auxiliary": 0.0,
    f"{DARTS}drop_path_prob": 0.0,
    f"{DARTS}init_channels": _whole(32, 1, 10_000),
    f"{DARTS}layers": _whole(8, 1, 10_000),
    "NetworkSelectorDatasetInfo:network": 0.0,
    "OptimizerSelector:optimizer": 0.0,
    "OptimizerSelector:sgd:learning_rate": math.log(0.025),
    "OptimizerSelector:sgd:momentum": _between(0.9, 0.1, 0.99),
    "OptimizerSelector:sgd:weight_decay": math.log(0.0003),
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": _whole(100, 1, 10_000),
    "SimpleLearningrateSchedulerSelector:cosine_annealing:eta_min": _between(1e-8, 0, 10_000),
    "SimpleLearningrateSchedulerSelector:lr_scheduler": 0.0,
    "SimpleTrainNode:batch_loss_computation_technique": 0.0,
    "SimpleTrainNode:mixup:alpha": _between(0.2, 0.01, 0.7, logarithm=True),
}
"""The features that are equal for all genotypes."""


def _names() -> list[str]:
    """Return the feature names in order."""
    edges = [(f"{DARTS}edge_{cell}_{slot}", slot < ALWAYS) for cell in CELLS for slot in range(N_SLOTS)]
    inputs = [f"{DARTS}inputs_node_{cell}_{node}" for cell in CELLS for node in range(INPUTS + 1, INPUTS + 4)]
    first = [*FIXED, *inputs, *(name for name, always in edges if always)]
    return [*sorted(first), *sorted(name for name, always in edges if not always)]


NAMES = _names()


def features(archs: Archs) -> Features:
    """Return `(n, 56)` features of canonical rows of the space."""
    at = {name: i for i, name in enumerate(NAMES)}
    out = np.full((len(archs), len(NAMES)), ABSENT, np.float32)
    for name, value in FIXED.items():
        out[:, at[name]] = value
    pairs = np.array(PAIRS)
    for number, cell in enumerate(CELLS):
        part = archs[:, number * CELL : (number + 1) * CELL]
        for i, choices in enumerate(INPUT_CHOICES):
            # The benchmark orders pairs of inputs by their smaller vertex.
            rank = np.argsort(np.lexsort(pairs[:choices].T[::-1]))
            out[:, at[f"{DARTS}inputs_node_{cell}_{INPUTS + 1 + i}"]] = rank[part[:, i]]
        columns = np.array([at[f"{DARTS}edge_{cell}_{slot}"] for slot in range(N_SLOTS)])
        np.put_along_axis(out, columns[SLOT + tails_of(part)], part[:, len(INPUT_CHOICES) :].astype(np.float32), axis=1)
    return out


def ensemble(folder: Path) -> Callable[[Archs], FloatArray]:
    """Return an oracle of the mean of the models imported to a folder, CIFAR-10 validation accuracy in percent.

    The optional noise of the benchmark is not added. The models score isomorphic genotypes differently; the space's
    canonical form is evaluated. Raises DamagedFile, UserError.
    """
    models = [_model(folder / name) for name in sorted(artifacts.verify(folder)) if name.endswith(f"{MODEL}.ubj")]
    if not models:
        raise UserError(f"{folder} holds no models. Import them: lissnas data import nasbench301 FILE")

    def values(archs: Archs) -> FloatArray:
        out = np.empty(len(archs))
        for lo in range(0, len(archs), CHUNK):
            encoded = features(archs[lo : lo + CHUNK])
            out[lo : lo + CHUNK] = np.mean([booster_scores(model, encoded) for model in models], axis=0)
        return out

    return values


def _model(path: Path) -> xgb.Booster:
    model = xgb.Booster()
    model.load_model(bytearray(path.read_bytes()))  # written by XGBoost on import, checksum verified
    if model.num_features() != len(NAMES):
        raise UserError(f"{path} reads {model.num_features()} features, a genotype of NAS-Bench-301 has {len(NAMES)}")
    model.set_param(device_parameters())
    return model
