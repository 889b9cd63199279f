"""Pictures of a shrink, as PNG bytes that are the same for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lissnas.quality import error_edf
from lissnas.spaces import FloatArray

BLUE, ORANGE, GREY = "#2563a8", "#d1692a", "#8a8f98"
COLOURS = (GREY, BLUE, ORANGE)


def iterations(records: Sequence[Mapping[str, Any]], title: str, metric: str) -> bytes:
    """Draw the size of the space and its mean, predicted and (with a table) true, by iteration."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    sizes, means = figure.subplots(1, 2)
    at = [r["iteration"] for r in records]
    sizes.plot(at, [r["seen"] for r in records], color=GREY, marker="o", label="seen so far (queries)")
    sizes.plot(at, [r["size"] for r in records], color=BLUE, marker="o", label="size of the space")
    sizes.plot(at, [r["labels"] for r in records], color=ORANGE, marker="o", label="labels")
    sizes.set(ylabel="architectures", xlabel="iteration", ylim=(0, None))
    sizes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    means.plot(at, [r["mean_predicted"] for r in records], color=BLUE, marker="o", label="mean predicted")
    if "mean_true" in records[0]:
        means.plot(at, [r["mean_true"] for r in records], color=ORANGE, marker="o", label="mean true")
    means.set(ylabel=_wrap(metric), xlabel="iteration")
    for axes in (sizes, means):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return _png(figure)


def error_distributions(spaces: Mapping[str, FloatArray], title: str, metric: str) -> bytes:
    """Draw the error EDF of each space; the error is the distance to the best value of them all."""
    top = max(float(values.max()) for values in spaces.values())
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    widest = 0.0
    for (name, values), colour in zip(spaces.items(), COLOURS, strict=False):
        errors, share = error_edf(values, top)
        axes.step(errors, share, where="post", color=colour, label=f"{name} ({len(values):,})")
        widest = max(widest, float(np.quantile(errors, 0.9)))
    axes.set(xlim=(0, widest or 1), ylim=(0, 1.02), ylabel="share of architectures")
    axes.set_xlabel(f"distance to the best: {metric}")
    _plain(axes)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return _png(figure)


def _plain(axes: Any) -> None:
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _wrap(text: str) -> str:
    """Break a long axis label once, at a comma."""
    return text.replace(", ", ",\n", 1) if len(text) > 30 else text


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()
