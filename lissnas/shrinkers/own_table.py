"""Labels of the user as a table of true values, if they are complete, or split into learned and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lissnas.benchmarks import Benchmark
from lissnas.config import MIN_LABELS, Params, benchmark_settings, label_budget
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.label_table import Labels
from lissnas.shrinkers.problem import Source
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.base import LISTABLE

MIN_EVALUATED = 10
"""Minimum number of evaluated members, held-out labels in a space; with fewer, it has no mean."""
MAX_CONCENTRATION = 100
"""Assumed maximum ratio of the density of labels in a shrunk space to that in the full space."""
MAX_TARGET = 10_000
"""Maximum target size by rule."""
MIN_HELD_OUT = 20
"""Minimum number of labels that are held out."""
UNKNOWN_LICENCE = "of the user's labels"


def with_table(source: Source) -> Source:
    """Return a source with labels of all architectures as one with a table; any other source unchanged."""
    if source.labels is None or source.truth is not None or not is_complete(source):
        return source
    table = table_of(source)
    return replace(source, truth=table, oracle=table, labels=None)


def is_complete(source: Source) -> bool:
    """Return whether the labels of a source are those of all its architectures."""
    labels, space = source.labels, source.space
    return labels is not None and space.size_exact and len(labels.archs) == space.size() <= LISTABLE


def table_of(source: Source) -> Benchmark:
    """Return the labels of a source as a benchmark; values of a minimized metric are negated."""
    assert source.labels is not None
    keys = source.space.key(source.labels.archs)
    order = np.argsort(keys)
    values = source.labels.values[order]
    about = source.name, source.space, source.metric, UNKNOWN_LICENCE
    return Benchmark(*about, keys[order], values, source.point, source.minimize)


def benchmark_of(source: Source, predicted: bool) -> Benchmark:
    """Return the table of a source, for the locality of its space; raises UserError if there is none.

    If values are `predicted`, the labels need not be complete: they are only part of the result's digest.
    """
    if source.truth is not None:
        return source.truth
    if source.labels is not None and (predicted or is_complete(source)):
        return table_of(source)
    size = source.space.size()
    known = "no labels" if source.labels is None else f"labels of {len(source.labels.archs):,} of {size:,} networks"
    raise UserError(
        f"{source.name} has {known}, and locality needs the value of every network: complete --labels, or give "
        "--labels and --predictor, the folder of a shrink of this space, to measure on its predictions"
    )


@dataclass(frozen=True)
class Split:
    """Labels that the predictor learns from, and the held-out ones that methods are evaluated on."""

    learned: Archs
    learned_values: FloatArray
    held_out: Archs
    held_out_values: FloatArray


def n_learned(params: Params, source: Source) -> int:
    """Return how many labels the predictor learns from: the label budget, by default at most half of the labels.

    Raises UserError if methods can't be evaluated on the remaining ones.
    """
    labels: Labels | None = source.labels
    assert labels is not None
    n, size = len(labels.archs), source.space.size()
    if n < MIN_LABELS + MIN_HELD_OUT:
        raise UserError(
            f"labels: {n:,} labelled networks of {source.name}; a comparison needs at least "
            f"{MIN_LABELS + MIN_HELD_OUT}, {MIN_LABELS} to learn from and {MIN_HELD_OUT} to evaluate methods on"
        )
    learned = label_budget(params, source.name, size)
    if params.shrink.labels is None:
        learned = max(MIN_LABELS, min(learned, n // 2))
    if learned > n - MIN_HELD_OUT:
        raise UserError(
            f"labels: {learned:,} of {n:,} labels of {source.name} leave {max(0, n - learned):,} to evaluate methods "
            f"on, at least {MIN_HELD_OUT} are needed; lower --label-budget"
        )
    own = benchmark_settings(params, source.name).target_size
    target = params.shrink.target_size or own or min(size // 4, MAX_TARGET)
    expected = (n - learned) * (target / size)
    if expected * MAX_CONCENTRATION < MIN_EVALUATED:
        raise UserError(
            f"labels: of {n - learned:,} held-out labels of {source.name}, {expected:.1g} are expected in a space of "
            f"{target:,}, so no method can be evaluated ({MIN_EVALUATED} are needed). Give more labels, a larger "
            "--target-size, or a model that predicts the metric (--oracle-model)"
        )
    return learned


def split(source: Source, n: int, seed: int) -> Split:
    """Return `n` labels to learn from, drawn uniformly for the seed, and the others."""
    assert source.labels is not None
    archs, values = source.labels.archs, source.labels.values
    order = stream(seed, "compare", "labels").permutation(len(archs))
    a, b = order[:n], order[n:]
    return Split(archs[a], values[a], archs[b], values[b])
