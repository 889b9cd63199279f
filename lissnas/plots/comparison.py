"""Figures of a comparison: means with intervals, by budget and against diversity, error distributions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lissnas.metrics.quality import error_edf
from lissnas.plots.figures import BLUE, GREY, INK, ORANGE, grid, hover, plain, sheet, wrap
from lissnas.spaces import FloatArray

STEPS = 500
"""Maximum number of steps to draw of an EDF; more are not visible."""
PALETTE = (BLUE, ORANGE, "#009e73", "#b0508f", "#e0a100", "#56b4e9")
"""Colours of the methods that stand out; readers with colour vision deficiency can tell them apart."""
MARKERS = "osD^vP"
"""Their markers, not filled, so that none hides another."""
OTHERS = "#c3c8d0"
CEILING = "score_all"
"""The method that is drawn as a line: the upper bound for any method with the same predictor."""
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8, "bbox_to_anchor": (1.01, 1), "loc": "upper left"}
"""Placement of long legends: to the right of the axes."""


def coloured(summary: Sequence[Mapping[str, Any]], references: Collection[str], sign: int = 1) -> dict[str, str]:
    """Return the colours of at most six methods: ours, the paper's loop, and the rivals closest to ours.

    Closest is by the difference of means at equal size; `references` are not rivals. `sign` is -1 if less is better.
    """
    ours = [r["method"] for r in summary if r["method"] in ("lissnas", "lissnas_paper")]
    rivals = sorted((r for r in summary if r["method"] not in references), key=lambda r: sign * r["ours_minus"])
    return dict(zip([*ours, *(r["method"] for r in rivals)], PALETTE, strict=False))


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


def budget(summary: Sequence[Mapping[str, Any]], title: str, metric: str, shown: Mapping[str, str]) -> Figure:
    """Draw the mean of each method against the share of the query budget; methods in `shown` have their colour."""
    figure, (axes,) = sheet(title, 7.5, 4.5)
    drawn = [r for r in summary if r["method"] == CEILING or (r["queries"] > 0 and r.get("mean_true_25") is not None)]
    for r in _others_first(drawn, shown):
        name = r["method"]
        if name == CEILING:
            hover(axes.axhline(r["mean_true"], color=INK, linewidth=1, linestyle="--", label=name), name)
            continue
        shares = [share for share in (25, 50, 75) if r[f"mean_true_{share}"] is not None]
        means = [*(r[f"mean_true_{share}"] for share in shares), r["mean_true"]]
        style = {"color": shown.get(name, OTHERS), "label": name if name in shown else None}
        hover(axes.plot([*shares, 100], means, marker="o", markersize=4, **style)[0], name)
    axes.set_xticks([25, 50, 75, 100])
    axes.set_xlabel("share of the query budget, %")
    axes.set_ylabel(f"mean of the shrunk space:\n{wrap(metric)}")
    _legend(axes, drawn, shown)
    return figure


def diversity(
    summary: Sequence[Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    title: str,
    metric: str,
    shown: Mapping[str, str],
) -> Figure:
    """Draw the mean of each method against its FLOPs coverage, and our curve over `diversity`.

    Methods in `shown` have their colour.
    """
    figure, (axes,) = sheet(title, 7.5, 5)
    markers = dict(zip(shown, MARKERS, strict=False))
    points = []
    for d in dict.fromkeys(c["diversity"] for c in curve):
        at = [(c["flops_coverage"], c["mean_true"]) for c in curve if c["diversity"] == d]
        points.append((*np.mean(at, axis=0), d))
    axes.plot([p[0] for p in points], [p[1] for p in points], color=BLUE, marker="o", label="lissnas, by diversity")
    for x, y, d in points:
        axes.annotate(f"{d:g}", (x, y), textcoords="offset points", xytext=(5, 5), color=BLUE, fontsize=8)
    for r in _others_first(summary, shown):
        name, colour = r["method"], shown.get(r["method"], OTHERS)
        if name == CEILING:
            hover(axes.axhline(r["mean_true"], color=INK, linewidth=1, linestyle="--", label=name), name)
        elif name != "lissnas":
            style: dict[str, Any] = {"color": colour, "linestyle": "none", "markersize": 8, "markeredgewidth": 1.8}
            style |= {"fillstyle": "none", "marker": markers[name], "label": name} if name in shown else {"marker": "."}
            hover(axes.plot(r["flops_coverage"], r["mean_true"], **style)[0], name)
    axes.set_xlabel("share of the full space's FLOPs bins that are occupied")
    axes.set_ylabel(f"mean of the shrunk space:\n{wrap(metric)}")
    _legend(axes, summary, shown)
    return figure


def edfs(
    spaces: Mapping[str, FloatArray], colours: Mapping[str, str], window: float, title: str, metric: str
) -> Figure:
    """Draw the error EDF of each space on the common window (the paper's Figures 4 and 8).

    Methods without a colour in `colours` are grey.
    """
    figure, (axes,) = sheet(title, 7.5, 4.5)
    best = max(float(v.max()) for v in spaces.values())
    lines: dict[str, dict[str, Any]] = {
        "full space": {"color": INK, "linewidth": 2},
        CEILING: {"color": INK, "linestyle": "--"},
    }
    for name in sorted(spaces, key=lambda name: (name in colours, name in lines)):
        errors, share = error_edf(spaces[name], best)
        drawn = np.unique(np.linspace(0, len(errors) - 1, STEPS).astype(int))
        style: dict[str, Any] = {"color": colours.get(name, OTHERS), "linewidth": 2.4 if name == "lissnas" else 1.2}
        label = name if name in colours or name in lines else None
        style |= lines.get(name, {})
        hover(axes.step(errors[drawn], share[drawn], where="post", label=label, **style)[0], name)
    axes.set(xlim=(0, window), ylim=(0, 1.02), ylabel="share of architectures")
    axes.set_xlabel(f"distance to the best: {metric}")
    _legend(axes, [{"method": name} for name in spaces], colours)
    return figure


def cost_histograms(counts: Mapping[str, Sequence[int]], edges: Sequence[float], cost: str, title: str) -> Figure:
    """Draw histograms of each space over the full space's range of a cost (the paper's Figure 5), one panel each."""
    names = list(counts)
    figure, panels = grid(title, len(names), 4, (2.75, 1.9), sharex=True)
    for axes, name in zip(panels, names, strict=True):
        share = np.array(counts[name]) / max(1, sum(counts[name]))
        axes.stairs(share, np.array(edges) / 1e6, fill=True, color=BLUE if name == "lissnas" else GREY)
        occupied = sum(c > 0 for c in counts[name])
        axes.set_title(f"{name} ({occupied} of {len(share)} bins)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.supxlabel(f"{cost}, millions", fontsize=9)
    figure.supylabel("share of architectures", fontsize=9)
    return figure


def _others_first(summary: Sequence[Mapping[str, Any]], shown: Collection[str]) -> list[Mapping[str, Any]]:
    """Return the rows in the order of drawing, so that grey never hides a colour."""
    return sorted(summary, key=lambda r: r["method"] in shown)


def _legend(axes: Any, summary: Sequence[Mapping[str, Any]], shown: Collection[str]) -> None:
    """Add a legend of the coloured methods, and one entry for the others."""
    others = sum(r["method"] not in (*shown, CEILING, "full space") for r in summary)
    if others:
        axes.plot([], [], color=OTHERS, marker="s", label=f"{others} others")
    plain(axes, **LEGEND)
