"""The study of scaling: what a shrink costs in time and memory, at ten thousand to ten million queries.

python -m studies --name scaling     (or `make study NAME=scaling`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lissnas import artifacts, spaces
from lissnas.artifacts.stage_run import finished
from lissnas.plots import figures
from lissnas.shrinkers.problem import packaged
from studies.huge import measured_once

SPACE = "nasbench301"
QUERIES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
PER_MEMBER = 8
"""Queries for each network of the target."""
MEMORY = "8"
PICTURE = Path("docs/pictures/scaling.png")


def scaling_rows(work: Path, queries: Sequence[int] = QUERIES) -> list[dict[str, Any]]:
    """Return a row for each number of queries: a command run on its own, measured by the system."""
    rows, source = [], packaged(spaces.get(SPACE)).digest
    for n in queries:
        out = work / f"{n}"
        took = measured_once(work / f"{n}.json", [*command(n), "--out", str(out), "--force"], source)
        metrics, about = finished(out).metrics, artifacts.read_json(out / artifacts.RUN)
        rows.append(
            {
                "space": SPACE,
                "queries": metrics["queries"],
                "size": metrics["size"],
                "seconds": about["seconds"],
                "peak_mib": round(1024 * took["memory_gib"], 1),
            }
        )
    return rows


def command(n: int) -> list[str]:
    """Return the command that shrinks with `n` queries."""
    target = [
        "--target-size",
        str(n // PER_MEMBER),
        "--max-queries",
        str(n),
        "--set",
        "shrink.method.max_iterations=1000",
    ]
    return ["shrink", "--space", SPACE, "--memory", MEMORY, *target, "--set", "shrink.method.min_turnover=0"]


def straight_line(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[float, float, float]:
    """Return what `column` is without a query, what a query adds, and the largest departure from that line.

    The line has the least squares of relative departures, so that small shrinks count as much as large ones.
    """
    x, y = (np.array([float(r[name]) for r in rows]) for name in ("queries", column))
    terms = np.stack([np.ones_like(x), x], axis=1)
    (fixed, each), *_ = np.linalg.lstsq(terms / y[:, None], np.ones_like(y))
    return float(fixed), float(each), float(np.abs((fixed + each * x) / y - 1).max())


def scaling_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return time and memory against queries, each with the straight line that comes nearest."""
    figure = Figure((9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = [r["queries"] for r in rows]
    for axes, column, unit in ((left, "seconds", "seconds"), (right, "peak_mib", "peak memory, MiB")):
        fixed, each, _ = straight_line(rows, column)
        fine = np.geomspace(min(x), max(x), 100)
        axes.plot(fine, fixed + each * fine, color="0.7", label="straight line")
        axes.plot(x, [r[column] for r in rows], marker="o", linestyle="", label=f"shrinks of {rows[0]['space']}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("queries")
        axes.set_ylabel(unit)
        axes.legend(frameon=False)
        figures.plain(axes)
    figure.suptitle("What a shrink costs", x=0.01, ha="left", fontweight="bold")
    return figure


def scaling_page(rows: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return the study's page."""
    lines = [
        f"{made_by} Two cores, {SPACE} judged by a predictor on its packaged values.",
        "",
        "| queries | size | seconds | microseconds a query | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        rate = 1e6 * r["seconds"] / r["queries"]
        lines.append(f"| {r['queries']:,} | {r['size']:,} | {r['seconds']:.1f} | {rate:.1f} | {r['peak_mib']:,.0f} |")
    lines += ["", "The nearest straight lines, each with its largest departure:", ""]
    for name, column, unit in (("time", "seconds", "s"), ("memory", "peak_mib", "MiB")):
        fixed, each, worst = straight_line(rows, column)
        lines.append(f"* {name}: {fixed:.3g} {unit}, and {1e6 * each:.3g} {unit} a million queries ({worst:.0%})")
    return "\n".join(lines) + "\n"


def scaling_study(work: Path) -> list[dict[str, Any]]:
    """Run the study and draw its picture; returns its rows."""
    rows = scaling_rows(work)
    artifacts.write(PICTURE, figures.png(scaling_figure(rows)))
    return rows
