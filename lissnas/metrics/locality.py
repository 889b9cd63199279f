"""Locality: correlation of values between architectures at a given edit distance (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from lissnas.config import LocalityConfig
from lissnas.core.errors import UserError
from lissnas.metrics.quality import error_edf
from lissnas.oracles.base import Oracle, evaluate
from lissnas.spaces import FloatArray, Space

WEAK_CORRELATION = 0.3
"""A lower correlation is weak (paper, Figure 2)."""
ANY = "any"
"""All kinds of edit combined."""
BINS = 40
MAX_EXTRA_DISTANCES = 1
"""Distances measured beyond the requested ones if the correlation is not yet weak."""


@dataclass(frozen=True)
class Pairs:
    """Values of pairs of architectures at an exact edit distance."""

    distance: int
    change: str
    a: FloatArray
    b: FloatArray


def walk(space: Space, oracle: Oracle, settings: LocalityConfig, rng: Generator) -> FloatArray:
    """Return `(walks, steps + 1)` values along random walks; each step is one random edit."""
    rows = space.sample(settings.walks, rng)
    one = np.ones(len(rows), np.int64)
    visited = [rows]
    for _ in range(settings.steps):
        rows = space.mutate(rows, one, rng)
        visited.append(rows)
    values = evaluate(oracle, space, np.concatenate(visited))
    return values.reshape(len(visited), len(rows)).T


def pairs(space: Space, oracle: Oracle, distance: int, change: str, n: int, rng: Generator) -> Pairs:
    """Return the values of up to `n` uniform architectures, each paired with a random one `distance` edits away.

    Edits are drawn at random, and redrawn if the result is closer (`Space.mutate`). Architectures without
    any at that distance are omitted.
    """
    rows = space.sample(n, rng)
    kind = None if change == ANY else change
    moved = space.mutate(rows, np.full(n, distance), rng, kind)
    changed = space.key(moved) != space.key(rows)
    values = evaluate(oracle, space, np.concatenate([rows[changed], moved[changed]]))
    return Pairs(distance, change, *np.split(values, 2))


def measure(found: Pairs, resamples: int, rng: Generator) -> dict[str, Any]:
    """Return a row of `locality.parquet`: correlation and absolute accuracy difference (AAD), with 95 % intervals."""
    a, b = found.a, found.b
    row: dict[str, Any] = {"distance": found.distance, "change": found.change, "n": len(a)}
    gap = np.abs(a - b)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UserError(
            f"distance {found.distance} ({found.change}): {len(a)} pairs without two different values on each "
            "side; their correlation is undefined"
        )
    # Poisson bootstrap with sums in a fixed order, so that the number of threads does not change any digit.
    x, y = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    columns = np.stack([np.ones(len(a)), x, y, x * y, x * x, y * y, gap])
    drawn = np.empty((resamples, 2))
    for i in range(resamples):
        counts = rng.poisson(1.0, len(a)).astype(np.float64)
        if not counts.any():  # with few pairs, possibly none is drawn
            counts[:] = 1
        n, sx, sy, sxy, sxx, syy, sg = np.einsum("kn,n->k", columns, counts)
        spread = (sxx - sx * sx / n) * (syy - sy * sy / n)
        drawn[i] = (sxy - sx * sy / n) / np.sqrt(spread) if spread > 0 else 0.0, sg / n
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    row["correlation"] = float(np.mean(x * y))
    row["correlation_low"], row["correlation_high"] = float(low[0]), float(high[0])
    row["aad"], row["aad_low"], row["aad_high"] = float(gap.mean()), float(low[1]), float(high[1])
    row["aad_median"] = float(np.median(gap))
    return row


def differences(found: Pairs) -> list[dict[str, Any]]:
    """Return the histogram of absolute differences: 40 bins up to the 98th percentile, and one for the rest."""
    gap = np.abs(found.a - found.b)
    edges = np.linspace(0, float(np.quantile(gap, 0.98)) or 1.0, BINS + 1)
    counts = np.histogram(gap, edges)[0]
    low, high = [*edges[:-1], edges[-1]], [*edges[1:], max(float(gap.max()), float(edges[-1]))]
    return [
        {"distance": found.distance, "low": float(a), "high": float(b), "n": int(n)}
        for a, b, n in zip(low, high, [*counts, len(gap) - int(counts.sum())], strict=True)
    ]


def autocorrelation(values: FloatArray, lags: int, resamples: int, rng: Generator) -> list[dict[str, Any]]:
    """Return rows of `walk.parquet`: the correlation of values at a distance of `lag` steps, over all walks.

    The intervals resample whole walks, because the steps of a walk are not independent.
    """
    n_walks, length = values.shape
    centred = values - values.mean()
    spread = float(np.mean(centred**2))
    if np.ptp(values) == 0:
        raise UserError("all values along the walks are equal: their autocorrelation is undefined")
    chosen = rng.integers(0, n_walks, (resamples, n_walks))
    squares = (centred**2).mean(axis=1)
    out = []
    for lag in range(1, min(lags, length - 1) + 1):
        product = (centred[:, :-lag] * centred[:, lag:]).mean(axis=1)
        drawn = product[chosen].mean(axis=1) / np.maximum(squares[chosen].mean(axis=1), 1e-300)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rwa = float(product.mean() / spread)
        out.append({"lag": lag, "rwa": rwa, "rwa_low": float(low), "rwa_high": float(high)})
    return out


def threshold(rows: Sequence[dict[str, Any]], max_edits: int) -> dict[str, Any]:
    """Return the threshold edit distance and the values it is derived from.

    The paper uses a third of the maximum edit distance; here it is also at most the first measured
    distance with a weak correlation, and at least 1 (FACTS F5).
    """
    weak = [r["distance"] for r in rows if r["change"] == ANY and r["correlation"] < WEAK_CORRELATION]
    third = max_edits // 3
    first_weak = min(weak) if weak else None
    distance = min(third, first_weak) if first_weak is not None else third
    return {
        "threshold_distance": max(1, distance),
        "max_edits": max_edits,
        "third_of_max_edits": third,
        "first_weak_distance": first_weak,
        "weak_correlation": WEAK_CORRELATION,
    }


def is_last_distance(row: dict[str, Any], settings: LocalityConfig) -> bool:
    """Return whether to stop after the distance of this row: the correlation is weak, or it is the last extra one."""
    extra, weak = row["distance"] - settings.distances, row["correlation_high"] < WEAK_CORRELATION
    return bool((extra >= 0 and weak) or extra >= MAX_EXTRA_DISTANCES)


def sample_check(space: Space, oracle: Oracle, settings: LocalityConfig, rng: Generator) -> dict[str, Any]:
    """Check that small samples represent the distribution of the full space (paper, appendix G).

    Compares `repeats` uniform samples of `sample` architectures with the full space (a large sample if it
    can't be listed): the share that a Kolmogorov-Smirnov test does not reject at 5 %, and the largest gap
    between the error EDFs.
    """
    from scipy.stats import ks_2samp  # takes longer to import than a small shrink

    full = np.sort(evaluate(oracle, space, space.all_or_many(rng)))
    errors, share = error_edf(full, full[-1])
    n = min(settings.sample, space.size())
    pvalues, gaps = [], []
    for _ in range(settings.repeats):
        values = evaluate(oracle, space, space.sample(n, rng))
        pvalues.append(float(ks_2samp(values, full, method="asymp").pvalue))
        sample_errors, sample_share = error_edf(values, full[-1])
        at = np.searchsorted(errors, sample_errors, side="right") - 1
        gaps.append(float(np.abs(share[np.maximum(at, 0)] - sample_share).max()))
    return {
        "sample": n,
        "repeats": settings.repeats,
        "share_not_rejected": float(np.mean(np.array(pvalues) >= 0.05)),
        "median_p": float(np.median(pvalues)),
        "largest_edf_gap": max(gaps),
    }
