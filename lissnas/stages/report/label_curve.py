"""The label curve: quality of the shrunk space by the number of labels, drawn uniformly or collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lissnas.plots.figures import BLUE, ORANGE, band, grid, plain
from lissnas.shrinkers.comparison_summary import interval
from lissnas.spaces import FloatArray
from lissnas.stages.report.page import Picture
from lissnas.stages.report.tables import Table, count, num

Row = Mapping[str, Any]
UNIFORM = "uniform"
COLLECTED = "collected"
SIX_ROUNDS = "six rounds"
COLOURS = {UNIFORM: ORANGE, COLLECTED: BLUE}
SHARES = (0.9, 0.95, 0.98, 0.99)
"""Shares of the maximum gain for which the table lists the required labels."""
COLUMNS = 3


@dataclass(frozen=True)
class Point:
    """Results of a label budget on a benchmark and mode, over seeds; gains in standard deviations of the full space."""

    benchmark: str
    mode: str
    budget: int
    labels: float
    """Labels spent; fewer than `budget` if the space ran out of unlabelled members."""
    mean: float
    half: float
    """Half of the mean's 95 % interval (Student's)."""
    gain: FloatArray
    """One value for each seed."""
    possible: float
    """The gain of the truly best networks, equal in number."""
    kept: float

    @property
    def share(self) -> tuple[float, float, float]:
        """The gain as a share of the possible gain, with its 95 % interval."""
        low, high = interval(self.gain)
        return float(self.gain.mean()) / self.possible, low / self.possible, high / self.possible


def points(rows: Sequence[Row]) -> list[Point]:
    """Return the points of a study's rows, in order."""
    out = []
    for key in dict.fromkeys((r["benchmark"], r["mode"], r["budget"]) for r in rows):
        own = [r for r in rows if (r["benchmark"], r["mode"], r["budget"]) == key]
        labels, mean, gain, kept, possible = (
            np.array([float(r[name]) for r in own]) for name in ("labels", "mean_true", "gain", "kept_best", "possible")
        )
        low, high = interval(mean)
        out.append(Point(*key, labels.mean(), mean.mean(), (high - low) / 2, gain, float(possible[0]), kept.mean()))
    return out


def label_tables(rows: Sequence[Row]) -> list[Table]:
    """Return the table of the curve, and the table of labels that reach shares of the maximum gain."""
    found = points(rows)
    return [_curve(found), _needed(found)] if found else []


def label_pictures(rows: Sequence[Row]) -> list[Picture]:
    """Return the figure of the curve; empty without rows."""
    caption = (
        "Gain in mean of the shrunk space over the full one, as a share of the possible gain (of equally many truly "
        "best networks), by labels spent: all uniform, or 40 % uniform and the rest collected while shrinking. Bands: "
        f"Student's 95 % intervals over {_seeds(points(rows))} seeds."
    )
    return [Picture("The label curve", caption, label_figure(rows))] if rows else []


def _names(found: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(p.benchmark for p in found))


def _seeds(found: Sequence[Point]) -> int:
    return max((len(p.gain) for p in found), default=0)


def _curve(found: Sequence[Point]) -> Table:
    by, rows = {(p.benchmark, p.mode, p.budget): p for p in found}, []
    for name, budget in dict.fromkeys((p.benchmark, p.budget) for p in found):
        cells = [name, count(budget)]
        for mode in COLOURS:
            p = by.get((name, mode, budget))
            cells += ["", "", ""] if p is None else [_mean(p), f"{100 * p.share[0]:.1f} %", f"{100 * p.kept:.0f} %"]
        collected = by.get((name, COLLECTED, budget))
        rows.append([*cells, "" if collected is None else count(collected.labels)])
    columns = [f"{mode}: {what}" for mode in COLOURS for what in ("mean", "of the possible gain", "best kept")]
    remark = (
        f"Means of the true values of the shrunk space over {_seeds(found)} seeds, ± half of Student's 95 % interval. "
        "The possible gain is the gain of equally many truly best networks. Collected is the default; the last column "
        "is the number of labels spent, which is smaller if a space ran out of unlabelled members."
    )
    return Table("Labels", "The label curve", ["benchmark", "labels", *columns, "spent"], rows, [remark])


def _needed(found: Sequence[Point]) -> Table:
    rows = []
    for name in _names(found):
        own = [p for p in found if p.benchmark == name]
        top = max(float(p.gain.mean()) for p in own)
        for mode in COLOURS:
            if not (curve := [p for p in own if p.mode == mode]):
                continue
            cells = []
            for share in SHARES:
                enough = [p.budget for p in curve if p.gain.mean() >= share * top]
                cells.append(count(min(enough)) if enough else f"> {count(max(p.budget for p in curve))}")
            rows.append([name, mode, num(top, 3), f"{100 * top / curve[0].possible:.0f} %", *cells])
    columns = ["benchmark", "labels drawn", "most, SD", "of the possible gain", *(f"{100 * s:g} %" for s in SHARES)]
    remark = (
        "The smallest measured number of labels whose mean gain reaches a share of the maximum over all budgets; "
        "budgets were 50, 100, 200, ..., so it is known to within a factor of about two."
    )
    return Table("Labels, needed", "Labels that reach a share of the maximum gain", columns, rows, [remark])


def _mean(p: Point) -> str:
    return f"{num(p.mean, 5)} ± {num(p.half, 2)}"


def label_figure(rows: Sequence[Row]) -> Figure:
    """Draw the share of the possible gain by labels spent, one panel for each benchmark, with 95 % intervals."""
    found = [p for p in points(rows) if p.mode in COLOURS]
    names = _names(found)
    figure, panels = grid("The shrunk space by the number of labels", len(names), COLUMNS, (3.6, 2.6))
    for axes, name in zip(panels, names, strict=True):
        for mode, colour in COLOURS.items():
            own = [p for p in found if (p.benchmark, p.mode) == (name, mode)]
            shares = 100 * np.array([p.share for p in own]).reshape(-1, 3).T
            band(axes, [p.labels for p in own], shares, colour, mode)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(name, loc="left", fontsize=10)
        plain(axes)
    figure.supxlabel("labels (architectures with a true value)", fontsize=10)
    figure.supylabel("share of the possible gain, %", fontsize=10)
    return figure
