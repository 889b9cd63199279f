"""Figures of a comparison: means with intervals, mean against diversity, error distributions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from lissnas.metrics.quality import error_edf
from lissnas.plots.figures import BLUE, GREY, ORANGE, grid, plain, sheet, wrap
from lissnas.spaces import FloatArray

STEPS = 2_000
"""Maximum number of steps to draw of an EDF; more are not visible."""
N_COLOURED = 5
"""Rivals in colour, those with the best means; more can't be told apart."""
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8, "bbox_to_anchor": (1.01, 1), "loc": "upper left"}
"""Placement of long legends: to the right of the axes."""


def colours(methods: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each method; ours is blue, the full space grey."""
    others = [m for m in methods if m not in ("lissnas", "full space")]
    wheel = colormaps["tab20"]
    found = {m: wheel((2 * i + (i >= 10)) % 20) for i, m in enumerate(others)}
    return {**found, "lissnas": BLUE, "full space": GREY}


def means(
    summary: Sequence[Mapping[str, Any]], title: str, metric: str, full_mean: float, references: Collection[str]
) -> Figure:
    """Draw the mean of each method with its interval, and ours cut to the same size; `references` are in italics."""
    figure, (axes,) = sheet(title, 8, 0.9 + 0.32 * len(summary))
    at = np.arange(len(summary))[::-1]
    mean = np.array([r["mean_true"] for r in summary])
    half = np.array([(r["mean_true_high"] - r["mean_true_low"]) / 2 for r in summary])
    ours = np.array([r["ours_mean_true"] for r in summary])
    axes.errorbar(mean, at, xerr=half, fmt="o", color=ORANGE, label="the method", zorder=3)
    axes.plot(ours, at, "|", color=BLUE, markersize=14, markeredgewidth=2.5, label="lissnas at the same size", zorder=2)
    for x0, x1, y in zip(mean, ours, at, strict=True):
        axes.plot([x0, x1], [y, y], color="#d5d9de", linewidth=2, zorder=1)
    labels = [f"{r['method']}  ({r['size']:,.0f})" for r in summary]
    axes.set_yticks(at, labels)
    for text, r in zip(axes.get_yticklabels(), summary, strict=True):
        text.set_fontstyle("italic" if r["method"] in references else "normal")
    axes.set_xlabel(f"mean of the shrunk space (of the full one {full_mean:.4g}):\n{metric}")
    plain(axes)
    return figure


def budget(summary: Sequence[Mapping[str, Any]], title: str, metric: str, references: Collection[str]) -> Figure:
    """Draw the mean of each method against the share of the query budget: ours and the best five rivals in colour."""
    figure, (axes,) = sheet(title, 7.5, 4.5)
    at = [r for r in summary if r["queries"] > 0 and r.get("mean_true_25") is not None]
    rivals = [r for r in at if r["method"] not in references]
    best = {r["method"] for r in sorted(rivals, key=lambda r: r["ours_minus_sd"])[:N_COLOURED]}
    wheel = iter(colormaps["tab10"].colors[1:])  # type: ignore[attr-defined]
    for r in sorted(at, key=lambda r: (r["method"] in best, r["method"] == "lissnas")):
        shares = [share for share in (25, 50, 75) if r[f"mean_true_{share}"] is not None]
        means = [*(r[f"mean_true_{share}"] for share in shares), r["mean_true"]]
        if r["method"] == "lissnas":
            style: dict[str, Any] = {"color": BLUE, "linewidth": 2.4, "label": "lissnas"}
        elif r["method"] in best:
            style = {"color": next(wheel), "linewidth": 1.4, "label": r["method"]}
        else:
            style = {"color": "#d5d9de", "linewidth": 1}
        axes.plot([*shares, 100], means, marker="o", markersize=3, **style)
    axes.set_xticks([25, 50, 75, 100])
    axes.set_xlabel("share of the query budget, %")
    axes.set_ylabel(f"mean of the shrunk space:\n{wrap(metric)}")
    plain(axes)
    axes.legend(**LEGEND)
    return figure


def diversity(
    summary: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]], title: str, metric: str
) -> Figure:
    """Draw the mean of each method against its FLOPs coverage, and our curve over `diversity`."""
    figure, (axes,) = sheet(title, 7.5, 5)
    shown = colours([r["method"] for r in summary])
    points = []
    for d in dict.fromkeys(c["diversity"] for c in curve):
        at = [(c["flops_coverage"], c["mean_true"]) for c in curve if c["diversity"] == d]
        points.append((*np.mean(at, axis=0), d))
    axes.plot([p[0] for p in points], [p[1] for p in points], color=BLUE, marker="o", label="lissnas, by diversity")
    for x, y, d in points:
        axes.annotate(f"{d:g}", (x, y), textcoords="offset points", xytext=(5, 5), color=BLUE, fontsize=8)
    for r in summary:
        if r["method"] != "lissnas":
            axes.plot(r["flops_coverage"], r["mean_true"], "s", color=shown[r["method"]], label=r["method"])
    axes.set_xlabel("share of the full space's FLOPs bins that are occupied")
    axes.set_ylabel(f"mean of the shrunk space:\n{wrap(metric)}")
    plain(axes)
    axes.legend(**LEGEND)
    return figure


def edfs(spaces: Mapping[str, FloatArray], window: float, title: str, metric: str) -> Figure:
    """Draw the error EDF of each space on the common window (the paper's Figures 4 and 8)."""
    figure, (axes,) = sheet(title, 7.5, 4.5)
    best = max(float(v.max()) for v in spaces.values())
    shown = colours(list(spaces))
    for name, values in spaces.items():
        errors, share = error_edf(values, best)
        drawn = np.unique(np.linspace(0, len(errors) - 1, STEPS).astype(int))
        errors, share = errors[drawn], share[drawn]
        width = 2.4 if name in ("lissnas", "full space") else 1.2
        axes.step(errors, share, where="post", color=shown[name], linewidth=width, label=name)
    axes.set(xlim=(0, window), ylim=(0, 1.02), ylabel="share of architectures")
    axes.set_xlabel(f"distance to the best: {metric}")
    plain(axes)
    axes.legend(**LEGEND)
    return figure


def cost_histograms(counts: Mapping[str, Sequence[int]], edges: Sequence[float], cost: str, title: str) -> Figure:
    """Draw histograms of each space over the full space's range of a cost (the paper's Figure 5), one panel each."""
    names = list(counts)
    figure, panels = grid(title, len(names), 4, (2.75, 1.9), sharex=True)
    shown = colours(names)
    for axes, name in zip(panels, names, strict=True):
        share = np.array(counts[name]) / max(1, sum(counts[name]))
        axes.stairs(share, np.array(edges) / 1e6, fill=True, color=shown[name], alpha=0.85)
        occupied = sum(c > 0 for c in counts[name])
        axes.set_title(f"{name} ({occupied} of {len(share)} bins)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.supxlabel(f"{cost}, millions", fontsize=9)
    figure.supylabel("share of architectures", fontsize=9)
    return figure
