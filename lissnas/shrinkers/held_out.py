"""Comparison on a part of the labels: methods learn from some and are evaluated on the held-out members of each space.

An evaluated member of a shrunk space is a labelled architecture in it that the predictor did not learn from. If the
labels are a uniform sample of the space, the evaluated members are one of each shrunk space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lissnas.core.errors import UserError
from lissnas.metrics.quality import share_good, share_interval, shrink_index
from lissnas.shrinkers.comparison import ComparisonRun, attempt
from lissnas.shrinkers.comparison_summary import in_sign, interval
from lissnas.shrinkers.lissnas import cut
from lissnas.shrinkers.methods import REFERENCES, by_name
from lissnas.shrinkers.own_table import MIN_EVALUATED, Split, split
from lissnas.spaces import FloatArray
from lissnas.spaces.base import BoolArray, is_in

NORMAL_95 = 1.96
"""Half of a normal distribution's 95 % interval, in standard deviations."""
OURS = ("evaluated", "mean_true", "p_good")
"""Columns of ours at the method's size."""


def run_method(run: ComparisonRun, name: str) -> dict[str, Any]:
    """Run a method and return its row: its space and ours cut to the same size, evaluated on the held-out labels."""
    found = attempt(run, name, run.budget)
    full, seed, part = run.full_space, run.params.seed, found.part
    if not len(found.members):
        raise UserError(f"{name} returned an empty space of {full.source.name}")
    labels = split(full.source, run.params.labels, seed)
    ours = cut(run.ours, part.size())
    theirs_in = part.contains(labels.held_out)
    ours_in = is_in(full.space.key(labels.held_out), np.sort(full.space.key(ours)))
    return {
        "method": name,
        "seed": seed,
        "size": part.size(),
        "queries": found.queries,
        "labels": run.params.labels if by_name(name).needs_labels else 0,
        "held_out": len(labels.held_out),
        "kind": part.kind,
        **_evaluated(labels, theirs_in, full.threshold, share_good(full.values, full.threshold)),
        **full.diversity.cost_coverage(found.members),
        "ours_size": len(ours),
        **{f"ours_{c}": v for c, v in _evaluated(labels, ours_in, full.threshold, 0).items() if c in OURS},
        **{f"ours_{c}": v for c, v in full.diversity.cost_coverage(ours).items()},
        **_difference(labels.held_out_values, ours_in, theirs_in),
    }


def _evaluated(labels: Split, members: BoolArray, threshold: float, p_full: float) -> dict[str, Any]:
    """Return the number of evaluated members and, if there are enough, their mean, best and share of good ones."""
    values = labels.held_out_values[members]
    found: dict[str, Any] = {"evaluated": len(values)}
    if len(values) < MIN_EVALUATED:
        names = ("mean_true", "mean_true_low", "mean_true_high", "max_true")
        return found | dict.fromkeys((*names, "p_good", "p_good_low", "p_good_high", "shrink_index"))
    p = share_good(values, threshold)
    means = dict(zip(("mean_true_low", "mean_true_high"), interval(values), strict=True))
    shares = dict(zip(("p_good_low", "p_good_high"), share_interval(values, threshold), strict=True))
    return {
        **found,
        "mean_true": float(values.mean()),
        **means,
        "max_true": float(values.max()),
        "p_good": p,
        **shares,
        "shrink_index": shrink_index(p, p_full),
    }


def _difference(values: FloatArray, ours: BoolArray, theirs: BoolArray) -> dict[str, float | None]:
    """Return our mean less the other's with a 95 % interval, for `(n,)` values and masks of the members of both.

    The interval is of the labels: common members contribute to both means and largely cancel out.
    """
    names = ("ours_minus", "ours_minus_low", "ours_minus_high")
    if min(ours.sum(), theirs.sum()) < MIN_EVALUATED:
        return dict.fromkeys(names)
    mean_ours, mean_theirs = values[ours].mean(), values[theirs].mean()
    gap = float(mean_ours - mean_theirs)
    influence = np.where(ours, values - mean_ours, 0) / ours.sum()
    influence -= np.where(theirs, values - mean_theirs, 0) / theirs.sum()
    half = NORMAL_95 * float(np.sqrt((influence**2).sum()))
    return dict(zip(names, (gap, gap - half, gap + half), strict=True))


# -- over seeds ------------------------------------------------------------------------------------
def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per method: means over the seeds in which enough members were evaluated.

    Intervals are averaged, not narrowed by the number of seeds: the seeds split the same labels. `seeds_evaluated`
    counts seeds with enough evaluated members, `ours_compared` those in which ours at that size has enough too; if
    there are none, the columns of values are None.
    """
    out = []
    for name in dict.fromkeys(r["method"] for r in rows):
        group = [r for r in rows if r["method"] == name]
        evaluated = sum(r["mean_true"] is not None for r in group)
        row: dict[str, Any] = {"method": name, "seeds": len(group), "seeds_evaluated": evaluated}
        for column in group[0]:
            if column not in ("method", "seed", "kind"):
                values = [float(r[column]) for r in group if r[column] is not None]
                row[column] = float(np.mean(values)) if values else None
        gaps = [r["ours_minus"] for r in group if r["ours_minus"] is not None]
        out.append({**row, "ours_compared": len(gaps), "ours_ahead": sum(gap > 0 for gap in gaps)})
    return out


def remarks(summary: Sequence[Mapping[str, Any]], sign: int = 1) -> list[str]:
    """Return remarks on a summary: which rivals ours is ahead of, behind, or not distinguished from.

    `sign` is -1 if less of the metric is better.
    """
    rivals = [r for r in in_sign(summary, sign) if r["method"] not in REFERENCES]
    known = [r for r in rivals if r["ours_minus"] is not None]
    groups = {
        "Ours is ahead of": [r["method"] for r in known if r["ours_minus_low"] > 0],
        "Ours is behind": [r["method"] for r in known if r["ours_minus_high"] < 0],
        "The labels don't distinguish ours from": [
            r["method"] for r in known if r["ours_minus_low"] <= 0 <= r["ours_minus_high"]
        ],
        f"Fewer than {MIN_EVALUATED} evaluated members, so not compared": [
            r["method"] for r in rivals if r not in known
        ],
    }
    return [f"{text}: {', '.join(names)}." for text, names in groups.items() if names]
