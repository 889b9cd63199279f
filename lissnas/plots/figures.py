"""Figures of single results; PNG and SVG files are reproducible byte by byte."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lissnas.metrics.quality import error_edf
from lissnas.spaces import FloatArray

BLUE = "#2563a8"
ORANGE = "#d1692a"
GREY = "#8a8f98"
INK = "#1d2330"
HOVER = "hover:"
"""Prefix of the id of an artist whose name an SVG shows on hover."""
MIN_ABBREVIATED = 10**10
"""Numbers of networks from this one on are printed with three digits."""
COLOURS = (GREY, BLUE, ORANGE)
ENDS = ("", "_low", "_high")
"""Suffixes of the columns of a value and of its interval."""


def iterations(records: Sequence[Mapping[str, Any]], title: str, metric: str) -> Figure:
    """Draw the size of the space, and its predicted and (with a table) true mean, by iteration."""
    figure, (sizes, means) = sheet(title, 9, 3.6, 2)
    at = [r["iteration"] for r in records]
    sizes.plot(at, [r["seen"] for r in records], color=GREY, marker="o", label="seen so far (queries)")
    sizes.plot(at, [r["size"] for r in records], color=BLUE, marker="o", label="size of the space")
    sizes.plot(at, [r["labels"] for r in records], color=ORANGE, marker="o", label="labels")
    sizes.set(ylabel="architectures", xlabel="iteration", ylim=(0, None))
    sizes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    means.plot(at, [r["mean_predicted"] for r in records], color=BLUE, marker="o", label="mean predicted")
    if "mean_true" in records[0]:
        means.plot(at, [r["mean_true"] for r in records], color=ORANGE, marker="o", label="mean true")
    means.set(ylabel=wrap(metric), xlabel="iteration")
    for axes in (sizes, means):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return figure


def error_distributions(spaces: Mapping[str, FloatArray], title: str, metric: str) -> Figure:
    """Draw the error EDF of each space; the error is the distance to the overall best value."""
    top = max(float(values.max()) for values in spaces.values())
    figure, (axes,) = sheet(title, 6.4, 4)
    widest = 0.0
    for (name, values), colour in zip(spaces.items(), COLOURS, strict=False):
        errors, share = error_edf(values, top)
        axes.step(errors, share, where="post", color=colour, label=f"{name} ({len(values):,})")
        widest = max(widest, float(np.quantile(errors, 0.9)))
    axes.set(xlim=(0, widest or 1), ylim=(0, 1.02), ylabel="share of architectures")
    axes.set_xlabel(f"distance to the best: {metric}")
    plain(axes)
    return figure


def locality(
    rows: Sequence[Mapping[str, Any]], walks: Sequence[Mapping[str, Any]], threshold: int, title: str, metric: str
) -> Figure:
    """Draw correlation and accuracy difference by edit distance and kind of edit, and along walks (Figure 2)."""
    figure, (correlation, difference, along) = sheet(title, 12, 3.8, 3)
    for change, colour in zip(dict.fromkeys(r["change"] for r in rows), (BLUE, ORANGE, GREY), strict=False):
        own = [r for r in rows if r["change"] == change]
        at = [r["distance"] for r in own]
        for axes, name in ((correlation, "correlation"), (difference, "aad")):
            band(axes, at, [[r[f"{name}{end}"] for r in own] for end in ENDS], colour, change)
    lags = [w["lag"] for w in walks]
    band(along, lags, [[w[f"rwa{end}"] for w in walks] for end in ENDS], BLUE, "autocorrelation")
    for axes in (correlation, along):
        axes.axhline(0.3, color=GREY, linewidth=1, linestyle="--", label="weak below")
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1)
    correlation.axvline(threshold, color=GREY, linewidth=1, linestyle=":", label="threshold distance")
    correlation.set(xlabel="edit distance, exact", ylabel="correlation with the original")
    difference.set(xlabel="edit distance, exact", ylim=(0, None))
    difference.set_ylabel(f"mean absolute difference:\n{wrap(metric)}")
    along.set(xlabel="lag of a random walk", ylabel="autocorrelation")
    for axes in (correlation, difference, along):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return figure


def differences(bins: Sequence[Mapping[str, Any]], title: str, metric: str) -> Figure:
    """Draw the distribution of the absolute difference by edit distance (the paper's Figure 7)."""
    figure, (axes,) = sheet(title, 6.4, 4)
    distances = list(dict.fromkeys(b["distance"] for b in bins))
    for distance, colour in zip(distances, (BLUE, ORANGE, GREY, "#3c8d5a", "#8656a8"), strict=False):
        own = [b for b in bins if b["distance"] == distance]
        total = sum(b["n"] for b in own)
        # The last bin holds the largest 2 %: it is so wide that the others would be too narrow to see.
        edges = [b["low"] for b in own]
        axes.stairs([b["n"] / total for b in own[:-1]], edges, color=colour, linewidth=1.6, label=f"{distance} edits")
    axes.set(ylabel="share of pairs", xlim=(0, None))
    axes.set_xlabel(f"absolute difference: {wrap(metric)}")
    plain(axes)
    return figure


def training(curve: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the loss by step."""
    figure, (axes,) = sheet(title, 6.4, 3.6)
    axes.plot([p["step"] for p in curve], [p["loss"] for p in curve], color=BLUE, label="training loss")
    axes.set(xlabel="step", ylabel="cross-entropy")
    plain(axes)
    return figure


def history(columns: Mapping[str, Any], best: int, title: str) -> Figure:
    """Draw the score of all evaluated networks against their multiply-adds, coloured by generation.

    `best` is the index of the best network.
    """
    figure, (axes,) = sheet(title, 6.8, 4)
    at = np.asarray(columns["flops"]) / 1e6 if "flops" in columns else np.arange(len(columns["score"]))
    points = axes.scatter(at, columns["score"], c=columns["generation"], s=14, cmap="viridis")
    axes.scatter([at[best]], [columns["score"][best]], marker="*", s=140, color=ORANGE, label="best network")
    axes.set(xlabel="multiply-adds, millions" if "flops" in columns else "evaluation", ylabel="score")
    figure.colorbar(points, ax=axes, label="generation")
    # Framed and above the axes: the star of the legend must not look like a data point.
    plain(axes, loc="lower right", bbox_to_anchor=(1, 1.03), borderaxespad=0, frameon=True, markerscale=0.6)
    return figure


def search_curve(values: FloatArray, kinds: Sequence[str], title: str, metric: str, minimize: bool) -> Figure:
    """Draw the value of each evaluated network in order, and the best so far."""
    figure, (axes,) = sheet(title, 6.8, 4)
    at = np.arange(1, len(values) + 1)
    for kind, colour in zip(dict.fromkeys(kinds), (GREY, BLUE, ORANGE), strict=False):
        own = np.array([k == kind for k in kinds])
        axes.scatter(at[own], values[own], s=12, color=colour, label=kind)
    best = (np.minimum if minimize else np.maximum).accumulate(values)
    axes.step(at, best, where="post", color=INK, linewidth=1, label="best so far")
    axes.set(xlabel="networks with a value", ylabel=wrap(metric))
    plain(axes, loc="lower right", bbox_to_anchor=(1, 1.03), borderaxespad=0, ncols=4)
    return figure


def ranking(scored: Sequence[Mapping[str, Any]], title: str, metric: str) -> Figure:
    """Draw supernet scores of our networks against true values, one panel for each trained space; first seed."""
    first = scored[0]["seed"]
    chosen = [r for r in scored if r["seed"] == first and r["sample"] == "ours"]
    methods = list(dict.fromkeys(r["method"] for r in scored))
    figure, panels = grid(f"{title}, our networks", len(methods), 4, (3.1, 2.9), sharex=True)
    for axes, method in zip(panels, methods, strict=True):
        own = [r for r in chosen if r["method"] == method]
        colour = BLUE if method == "lissnas" else GREY
        axes.scatter([r["true"] for r in own], [r["score"] for r in own], s=10, color=colour, label=method)
        plain(axes)
    figure.supxlabel(wrap(f"true {metric}"), fontsize=10)
    figure.supylabel("accuracy in the supernet, %", fontsize=10)
    return figure


def sheet(
    title: str, width: float, height: float, columns: int = 1, rows: int = 1, **shared: Any
) -> tuple[Figure, list[Any]]:
    """Return a figure with a bold title and its axes, row by row; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def grid(title: str, n: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[Any]]:
    """Return a figure of `n` panels, at most `columns` in a row, and their axes; `size` of a panel in inches."""
    columns = min(columns, n)
    rows = -(-n // columns)
    figure, axes = sheet(title, size[0] * columns, size[1] * rows + 0.3, columns, rows, **shared)
    for unused in axes[n:]:
        unused.set_visible(False)
    return figure, axes[:n]


def band(axes: Any, at: Any, values: Any, colour: str, label: str) -> None:
    """Draw a line with an interval band; `values` are the line and the lower and upper ends."""
    middle, low, high = values
    axes.plot(at, middle, color=colour, marker="o", label=label)
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def plain(axes: Any, **legend: Any) -> None:
    """Style axes: light grid, no top and right spines, a legend with `legend` options."""
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(**{"frameon": False, "fontsize": 9, **legend})


def hover(artist: Any, name: str) -> None:
    """Show a name when the pointer is over an artist in an SVG."""
    artist.set_gid(f"{HOVER}{name}")


def big(n: float) -> str:
    """Return a number of networks as text: all digits up to ten digits, else three digits."""
    return f"{n:,.0f}" if n < MIN_ABBREVIATED else f"{n:.3g}".replace("e+", "e")


def wrap(text: str) -> str:
    """Return a long axis label broken at its first comma."""
    return text.replace(", ", ",\n", 1) if len(text) > 30 else text


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, without non-deterministic metadata."""
    FigureCanvasAgg(figure)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG, without non-deterministic metadata."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # only the report needs SVG

    FigureCanvasSVG(figure)
    sink = io.BytesIO()
    with rc_context({"svg.hashsalt": "lissnas"}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb'<g id="%b([^"]+)">' % HOVER.encode(), rb"<g><title>\1</title>", sink.getvalue())
