"""Measure time and memory of a shrink at ten thousand to ten million queries.

python -m studies --name scaling     (or `make study NAME=scaling`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lissnas import artifacts, spaces
from lissnas.plots import figures
from lissnas.shrinkers.problem import packaged
from studies.huge import measured_once
from studies.run import WORK, Rows, table

SPACE = "nasbench301"
QUERIES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
PER_MEMBER = 8
"""Queries for each architecture of the target size."""
MEMORY = "8"
"""Memory limit in GiB."""
PICTURE = Path("docs/pictures/scaling.png")


def scaling() -> tuple[Rows, str]:
    """Measure time and memory of shrinks with growing numbers of queries, and plot them."""
    rows, source = [], packaged(spaces.get(SPACE)).digest
    for n in QUERIES:
        out = WORK / "scaling" / f"{n}"
        took = measured_once(out.with_suffix(".json"), command(n, out), source)
        metrics, about = artifacts.finished(out).metrics, artifacts.read_json(out / artifacts.RUN)
        rows.append(
            {
                "space": SPACE,
                "queries": metrics["queries"],
                "size": metrics["size"],
                "seconds": about["seconds"],
                "peak_mib": round(1024 * took["memory_gib"], 1),
            }
        )
    artifacts.write(PICTURE, figures.png(scaling_figure(rows)))
    cells = [
        {
            "queries": f"{r['queries']:,}",
            "size": f"{r['size']:,}",
            "seconds": f"{r['seconds']:.1f}",
            "microseconds a query": f"{1e6 * r['seconds'] / r['queries']:.1f}",
            "peak MiB": f"{r['peak_mib']:,.0f}",
        }
        for r in rows
    ]
    lines = [f"Two cores, {SPACE} evaluated by a predictor fitted to its packaged values.", "", table(cells), ""]
    lines += ["Linear fits, each with its largest relative deviation:", ""]
    for name, column, unit in (("time", "seconds", "s"), ("memory", "peak_mib", "MiB")):
        fixed, each, worst = straight_line(rows, column)
        lines.append(f"* {name}: {fixed:.3g} {unit}, and {1e6 * each:.3g} {unit} a million queries ({worst:.0%})")
    return rows, "\n".join(lines)


def command(n: int, out: Path) -> list[str]:
    """Return the command that shrinks with `n` queries."""
    sizes = ["--target-size", str(n // PER_MEMBER), "--max-queries", str(n), "--memory", MEMORY]
    steps = ["--set", "shrink.method.max_iterations=1000", "--set", "shrink.method.seed_fraction=1"]
    return ["shrink", "--space", SPACE, *sizes, *steps, "--out", str(out), "--force"]


def straight_line(rows: Rows, column: str) -> tuple[float, float, float]:
    """Return intercept, slope for each query and largest relative deviation of a linear fit of `column`.

    The fit minimizes squared relative deviations, so that small shrinks count as much as large ones.
    """
    x, y = (np.array([float(r[name]) for r in rows]) for name in ("queries", column))
    each, fixed = np.polyfit(x, y, 1, w=1 / y)
    return float(fixed), float(each), float(np.abs((fixed + each * x) / y - 1).max())


def scaling_figure(rows: Rows) -> Figure:
    """Plot time and memory against queries, each with its linear fit."""
    figure = Figure((9, 3.6), layout="constrained")
    x: list[Any] = [r["queries"] for r in rows]
    for axes, column, unit in zip(
        figure.subplots(1, 2), ("seconds", "peak_mib"), ("seconds", "peak memory, MiB"), strict=True
    ):
        fixed, each, _ = straight_line(rows, column)
        fine = np.geomspace(min(x), max(x), 100)
        axes.plot(fine, fixed + each * fine, color="0.7", label="straight line")
        axes.plot(x, [r[column] for r in rows], marker="o", linestyle="", label=f"shrinks of {SPACE}")
        axes.set(xscale="log", yscale="log", xlabel="queries", ylabel=unit)
        axes.legend(frameon=False)
        figures.plain(axes)
    figure.suptitle("What a shrink costs", x=0.01, ha="left", fontweight="bold")
    return figure
