"""The first table of the report, and the colours of the methods in its figures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from lissnas.plots import comparison
from lissnas.plots.figures import svg
from lissnas.shrinkers.methods import METHODS, REFERENCES
from lissnas.stages.report.overview import MARKS, Difference, Overview
from lissnas.stages.report.tables import Compared


def row(method: str, minus: float, verdict: str | None = "ahead", **more: Any) -> dict[str, Any]:
    tested = {"p": 0.001, "p_holm": 0.01, "verdict": verdict}
    ends = {"ours_minus_sd_low": minus - 0.01, "ours_minus_sd_high": minus + 0.01}
    return {"method": method, "seeds": 3, "ours_minus": minus, "ours_minus_sd": minus, **ends, **tested, **more}


def compared(benchmark: str, *rows: dict[str, Any]) -> Compared:
    return Compared(benchmark, "accuracy, %", {"size": 100, "mean": 1.0, "best": 2.0}, "study", 3, rows)


OURS = row("lissnas", 0.0, "equal")
FIRST = compared("first", OURS, row("abs", 0.3), row("nse", -0.1, "behind"), row("score_all", -0.2, None))
SECOND = compared("second", OURS, row("nse", 0.01, "unclear"), row("abs", 0.001, "equal"))
OLD = compared("old", {"method": "lissnas", "ours_minus": 0.0}, {"method": "abs", "ours_minus": 3.0})


def test_closest_rivals_come_first_and_missing_methods_are_empty() -> None:
    overview = Overview([FIRST, SECOND], REFERENCES)
    assert overview.table.rows[0] == ["score_all", "-0.200", "-0.200 (-0.210 to -0.190)", ""]
    assert [r[:2] for r in overview.table.rows[1:]] == [["nse", "-0.045"], ["abs", "+0.150"]]
    assert overview.table.columns == ["method", "mean of all", "first", "second"]
    assert overview.table.rows[2][2:] == ["▲ +0.300 (0.290 to 0.310)", "= +0.001 (-0.009 to 0.011)"]


def test_caption_counts_the_verdicts_of_rivals_only() -> None:
    caption = Overview([FIRST, SECOND], REFERENCES).caption
    assert "Of 4 comparisons with rivals, ours is ahead (▲) in 1, equal (=, less than .02 apart) in 1" in caption
    assert "behind (▼) in 1; 1 are unclear (?)" in caption
    assert "left out" not in caption


def test_comparison_without_standard_deviations_is_left_out_and_named() -> None:
    overview = Overview([OLD, SECOND], REFERENCES)
    assert overview.table.columns == ["method", "mean of all", "second"]
    assert "left out: old; repeat the comparison" in overview.caption
    assert Overview([OLD], REFERENCES).table.rows == []


def test_details_have_the_quota_only_for_methods_that_score() -> None:
    quota: dict[str, Any] = {
        "quota_minus_sd": 0.2,
        "quota_minus_sd_low": 0.1,
        "quota_minus_sd_high": 0.3,
        "quota_verdict": "ahead",
    }
    assert "diversity quota +0.200 (0.100 to 0.300), ahead" in Difference(row("abs", 0.3, **quota)).details
    assert "quota" not in Difference({**row("abs", 0.3), **dict.fromkeys(quota)}).details
    assert Difference(row("score_all", 0.3, None)).details == "score_all is not a rival"


@pytest.mark.parametrize("verdict", MARKS)
def test_cell_is_readable_without_colour(verdict: str) -> None:
    cell = Difference(row("abs", 9.0, verdict))
    assert str(cell).startswith(MARKS[verdict])
    assert cell.strength <= 0.5  # dark text on it keeps a contrast above 4.5


# -- colours of the figures --------------------------------------------------------------------------
SUMMARY = [
    {**row(name, 0.01 * i), "mean_true": 1 + 0.01 * i, "flops_coverage": 0.5, "queries": 9}
    | dict.fromkeys(["mean_true_25", "mean_true_50", "mean_true_75"], None if name == "flops" else 0.7)
    for i, name in enumerate(METHODS)
]


def test_six_methods_have_a_colour() -> None:
    shown = comparison.coloured(SUMMARY, REFERENCES)
    rivals = [name for name in METHODS if name not in REFERENCES]
    assert list(shown) == ["lissnas", "lissnas_paper", *rivals[:4]]
    assert len(set(shown.values())) == 6
    closest = [{**r, "ours_minus": -1.0} if r["method"] == "flops" else r for r in SUMMARY]
    assert [*comparison.coloured(closest, REFERENCES)][2] == "flops"
    assert list(comparison.coloured(SUMMARY[:1], REFERENCES)) == ["lissnas"]


def test_every_method_is_named_on_hover_and_the_legend_is_short() -> None:
    values = {"full space": np.arange(9.0), **{name: np.arange(9.0) for name in METHODS}}
    pictures = {
        "edfs": comparison.edfs(values, comparison.coloured(SUMMARY, REFERENCES), 5.0, "<a>", "accuracy"),
        "diversity": comparison.diversity(SUMMARY, [], "<a>", "accuracy", comparison.coloured(SUMMARY, REFERENCES)),
        "budget": comparison.budget(SUMMARY, "<a>", "accuracy", comparison.coloured(SUMMARY, REFERENCES)),
    }
    unnamed = {"edfs": set(), "diversity": {"lissnas"}, "budget": {"flops"}}
    for name, figure in pictures.items():
        titles = set(re.findall(r"<title>(.*?)</title>", svg(figure).decode()))
        assert set(METHODS) - titles == unnamed[name], name
        legend = figure.axes[0].get_legend_handles_labels()[1]
        assert len(legend) <= 9, name
        assert f"{len(METHODS) - 7 - (name == 'budget')} others" in legend, name
        assert comparison.CEILING in legend, name
