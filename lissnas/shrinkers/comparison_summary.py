"""Statistics of a comparison over seeds: differences in standard deviations, tests, verdicts, sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lissnas.shrinkers.methods import REFERENCES
from lissnas.spaces import FloatArray

SHARES = (25, 50, 75)
"""Percentages of the query budget at which the mean is measured too."""
EQUAL = 0.02
"""Differences below this many standard deviations of the full space are practically equal."""
LEVEL = 0.05
"""Level of the family of all tests shown."""
KINDS = ("ours", "quota")
"""Prefixes of the two differences: against the method's space, and against what it scored with our quota."""

PHRASES = {
    "ahead": "ahead of {0}{1}",
    "both": "ahead of or practically equal to {0}",
    "equal": f"practically equal (less than {EQUAL} SD) to {{0}}{{1}}",
    "unclear": "not significantly different from {0}",
    "behind": "behind {0}",
}
"""What ours is to the methods of a group (0), with the number of benchmarks (1)."""

Row: TypeAlias = Mapping[str, Any]


VALUES = (
    *("mean_true", "median_true", "max_true", "top10_mean", "quota_mean_true", "ours_mean_true", "ours_max_true"),
    *(f"{of}mean_true_{share}" for share in SHARES for of in ("", "ours_")),
    *("full_mean", "full_best", "best_known"),
    *(f"{kind}_minus{unit}" for kind in KINDS for unit in ("", "_sd")),
)
"""Columns with values of the metric, and with differences of them."""


def in_sign(rows: Sequence[Row], sign: int) -> list[dict[str, Any]]:
    """Return rows of higher-is-better values in the metric's sign: of a minimized one (-1), values are negated.

    The ends of intervals, `_low` and `_high`, are exchanged. Applied twice, it returns the same rows.
    """
    out = [dict(row) for row in rows]
    for row in out if sign < 0 else ():
        for name in VALUES:
            low, high = f"{name}_low", f"{name}_high"
            if low in row:
                row[low], row[high] = row[high], row[low]
            row |= {column: 0.0 - row[column] for column in (name, low, high) if row.get(column) is not None}
    return out


def summarise(rows: Sequence[Row], full_std: float) -> list[dict[str, Any]]:
    """Return one row per method: means over seeds with 95 % intervals, and ours at the same size.

    `ours_minus_sd` is the mean difference in standard deviations of the full space, with its interval;
    `quota_minus_sd` the same against the best that the method scored, with our quota of FLOPs. `p` and `quota_p` are
    two-sided p-values of Wilcoxon's signed-rank test, paired by seed. `corrected` adds the verdicts.
    """
    out: list[dict[str, Any]] = []
    for name in dict.fromkeys(r["method"] for r in rows):
        group = [r for r in rows if r["method"] == name]
        column = {
            c: np.array([float(r[c]) for r in group])
            for c in group[0]
            if all(isinstance(r[c], (int, float)) for r in group)
        }
        for c in (f"{of}mean_true_{share}" for share in SHARES for of in ("", "ours_")):
            known = [r[c] for r in group if r.get(c) is not None]  # of the first seeds only
            column |= {c: np.array(known)} if known else {}
        low, high = interval(column["mean_true"])
        row: dict[str, Any] = {
            "method": name,
            "seeds": len(group),
            **{c: float(column[c].mean()) if c in column else None for c in group[0] if c in column or "mean" in c},
            "mean_true_low": low,
            "mean_true_high": high,
            "full_std": full_std,
        }
        for excluded in ("seed", "seconds"):
            row.pop(excluded, None)
        for kind, of_method in zip(KINDS, ("mean_true", "quota_mean_true"), strict=True):
            row |= _difference(kind, column["ours_mean_true"], column.get(of_method), full_std, name == "lissnas")
        out.append(row)
    return corrected(out)


def _difference(
    kind: str, ours: FloatArray, theirs: FloatArray | None, full_std: float, itself: bool
) -> dict[str, Any]:
    p_name = "p" if kind == "ours" else f"{kind}_p"
    names = (f"{kind}_minus", f"{kind}_minus_sd", f"{kind}_minus_sd_low", f"{kind}_minus_sd_high", f"{kind}_ahead")
    if theirs is None:
        return {**dict.fromkeys(names), p_name: None}
    gap = ours - theirs
    low, high = interval(gap / full_std)
    values = (float(gap.mean()), float(gap.mean() / full_std), low, high, int((gap > 0).sum()))
    return {**dict(zip(names, values, strict=True)), p_name: None if itself else paired_p(gap)}


def corrected(summary: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows, of one benchmark or of several, with Holm's correction over all their tests and the verdicts.

    `p_holm` and `quota_p_holm` count the tests of all rivals against both differences together. `verdict` and
    `quota_verdict` are from the view of ours: "equal" if the difference is below .02 standard deviations, "unclear"
    if it is not significant at 5 %, else "ahead" or "behind".
    """
    out = [dict(row) for row in summary]
    places = [
        (row, kind, "p" if kind == "ours" else f"{kind}_p")
        for row in out
        if row["method"] not in REFERENCES
        for kind in KINDS
        if row.get("p" if kind == "ours" else f"{kind}_p") is not None
    ]
    for row in out:
        row |= {"p_holm": None, "verdict": None, "quota_p_holm": None, "quota_verdict": None}
    for (row, kind, name), p in zip(places, holm([row[name] for row, _, name in places]), strict=True):
        row[f"{name}_holm"] = p
        row["verdict" if kind == "ours" else f"{kind}_verdict"] = verdict(row[f"{kind}_minus_sd"], p)
    return out


def verdict(difference: float, p: float) -> str:
    """Return "ahead", "equal", "behind" or "unclear" for a difference in standard deviations, ours minus theirs."""
    if abs(difference) < EQUAL:
        return "equal"
    if p >= LEVEL:
        return "unclear"
    return "ahead" if difference > 0 else "behind"


# -- in words --------------------------------------------------------------------------------------
def verdict_lines(summary: Sequence[Row]) -> list[str]:
    """Return what the verdicts of all benchmarks in the rows say, as sentences that claim no more than the table.

    Rows have a column `benchmark`, unless they are of one benchmark.
    """
    rivals = [r for r in summary if r["method"] not in REFERENCES and r.get("verdict")]
    if not rivals:
        return []
    tables = len({r.get("benchmark") for r in rivals})
    lines = [_line("", "verdict", "ours", rivals, tables)]
    with_quota = [r for r in rivals if r.get("quota_verdict")]
    if with_quota:
        start = "With the quota of lissnas on what the method scored, "
        lines.append(_line(start, "quota_verdict", "quota", with_quota, tables))
    return lines


def _line(start: str, column: str, kind: str, rows: Sequence[Row], tables: int) -> str:
    """Return one sentence: methods grouped by the worst verdict for ours over all tables."""
    groups: dict[str, list[str]] = {name: [] for name in PHRASES}
    for name in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == name]
        found = Counter(r[column] for r in own)
        group = next(v for v in ("behind", "unclear", "equal", "ahead") if v in found)
        if group == "equal" and len(found) > 1:
            group = "both"
        notes = [f"{found['ahead']} ahead"] if group in ("both", "unclear") and found["ahead"] else []
        if group == "behind":
            most = max(abs(r[f"{kind}_minus_sd"]) for r in own if r[column] == "behind")
            notes = [*([f"{found['behind']} of {len(own)}"] if tables > 1 else []), f"by up to {most:.2f} SD"]
        if len(own) < tables:
            notes.append(f"tested on {len(own)}")
        groups[group].append(f"`{name}`" + (f" ({', '.join(notes)})" if notes else ""))
    where = f" on all {tables} benchmarks" if tables > 1 else ""
    parts = [PHRASES[key].format(", ".join(names), where) for key, names in groups.items() if names]
    return f"{start}lissnas is {'; '.join(parts)}."


# -- statistics ------------------------------------------------------------------------------------
def interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of the mean over seeds; for one seed, the value itself."""
    from scipy.stats import t as student  # takes longer to import than a small shrink

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, mean
    half = float(student.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def paired_p(gaps: FloatArray) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test; 1 if all differences are 0."""
    from scipy.stats import wilcoxon  # takes longer to import than a small shrink

    gaps = np.round(gaps, 12)  # differences by rounding errors count as 0
    return float(wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(p_values) else scaled
    return [float(p) for p in out]
