"""Tables 5 and 6, comparisons by a surrogate, and the study that makes them, from small synthetic files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lissnas import artifacts
from lissnas.core.errors import LissnasError, UserError
from lissnas.plots.figures import big
from lissnas.stages.compare import remarks
from lissnas.stages.report import paper, tables
from lissnas.stages.report.huge_tables import (
    COLUMNS,
    Huge,
    read_huge,
    table_5,
    table_6,
)
from lissnas.stages.report.stage import read_study
from studies import huge

MADE: list[dict[str, Any]] = [
    {
        "space": name,
        "full_size": str(full),
        "full_size_exact": name != "anynetx",
        "size": str(size),
        "size_low": str(low),
        "size_high": str(high),
        "size_exact": low == high,
        "kind": "set" if low == high else "balls",
        "queries": 1_234_567,
        "seconds": 600.0,
        "memory_gib": 1.5,
        "mean_full": 70.12345,
        "mean_shrunk": 75.5,
        "judged_by": "a predictor of something, %",
    }
    for name, full, size, low, high in (
        ("shufflenetv2", 4**20, 10**6, 10**6, 10**6),
        ("ofa_mobilenetv3", 7371**5, 10**6, 10**6, 10**6),
        ("mobilenet", 6**6 * 7**15, 10**6, 10**6, 10**6),
        ("anynetx", 18 * 10**17, 1_003_000_000, 990_000_000, 1_020_000_000),
    )
]


@pytest.fixture
def found(tmp_path: Path) -> list[Huge]:
    artifacts.write(tmp_path / "huge.csv", artifacts.to_csv(MADE))
    return read_huge(tmp_path / "huge.csv")


def test_sizes_are_exact_beyond_2_to_the_64(found: list[Huge]) -> None:
    assert [h.full_size for h in found] == [4**20, 7371**5, 6**6 * 7**15, 18 * 10**17]
    assert found[0].shown == ["1,000,000", "1,099,512"]
    assert [h.size_exact for h in found] == [True, True, True, False]
    assert list(MADE[0]) == list(COLUMNS)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge.csv").write_text("space,size\nfairnas,12\n")
    with pytest.raises(UserError, match="make study NAME=huge"):
        read_huge(tmp_path / "huge.csv")


@pytest.mark.parametrize(
    ("n", "text"), [(1, "1"), (10**9, "1,000,000,000"), (10**10, "1e10"), (7371**5, "2.18e19"), (1.5, "2")]
)
def test_big_numbers(n: float, text: str) -> None:
    assert big(n) == text


def test_table_5_has_our_values_next_to_the_papers(found: list[Huge]) -> None:
    table = table_5(found)
    assert all(len(row) == len(table.columns) for row in table.rows)
    rows = {(r[0], r[1]): dict(zip(table.columns, r, strict=True)) for r in table.rows}
    assert len(rows) == len(paper.TABLES["Table 5"].rows)
    ours = rows["AnyNetX", "lissnas"]
    assert ours["size"] == "1,003,000,000 (990,000,000 to 1,020,000,000)"
    assert ours["factor"] == "1,794,616,152"
    assert "descriptions" in ours["remark"]
    assert "a predictor of something" in ours["remark"]
    assert ours["paper: size"] == "10^9"
    assert rows["MobileNet", "original"]["size"] == "2.22e17"
    assert rows["MobileNet", "abs"]["from"] == rows["AnyNetX", "dds"]["from"] == tables.NOT_YET
    assert all(r[2] == tables.NOT_YET for r in table_5([]).rows)


def test_table_6_has_the_other_spaces(found: list[Huge]) -> None:
    listed = next(t for t in tables.comparison_tables([]) if t.name == "Table 6")
    assert table_6(listed, []).rows == listed.rows
    table = table_6(listed, found)
    rows = {r[0]: dict(zip(table.columns, r, strict=True)) for r in table.rows}
    assert set(rows) == {"shufflenetv2", "ofa_mobilenetv3", "TransNAS-Bench-101", "NAS-Bench-101", "NAS-Bench-301"}
    assert rows["shufflenetv2"]["full"] == "1.1e12"
    assert rows["shufflenetv2"]["paper: full"] == "4^20"
    assert rows["ofa_mobilenetv3"]["paper: full"] == ""
    assert rows["NAS-Bench-301"]["from"] == tables.NOT_YET


def test_shown_tables_are_not_listed_as_missing() -> None:
    names = [row[0] for row in tables.not_yet_table(["Table 5"]).rows]
    assert names == [row[0] for row in tables.not_yet_table().rows if row[0] != "Table 5"]


def surrogate_rows() -> list[dict[str, Any]]:
    def row(method: str, mean: float, best: float) -> dict[str, Any]:
        return {
            "benchmark": "ofa_mobilenetv3",
            "metric": "predicted accuracy, %",
            "method": method,
            "seeds": 3,
            "size": 100_000.0,
            "queries": 2_500_000.0,
            "mean_true": mean,
            "mean_true_low": mean - 0.1,
            "mean_true_high": mean + 0.1,
            "max_true": best,
            "ours_mean_true": 85.0,
            "ours_max_true": 85.4,
            "ours_minus": 85.0 - mean,
            "ours_ahead": 0 if method == "lissnas" else 3,
            "p_holm": None if method == "lissnas" else 0.25,
            "p_good": 0.9,
            "edf_auc": 0.8,
            "flops_coverage": 0.5,
            **dict.fromkeys(("ours_minus_sd", "ours_minus_sd_low", "ours_minus_sd_high"), 85.0 - mean),
            "verdict": None if method == "lissnas" else "unclear",
            "full_size": float(7371**5),
            "full_mean": 82.3,
            "full_best": 84.1,
            "best_known": 85.5,
        }

    return [row("lissnas", 85.0, 85.4), row("abs", 84.0, 85.5)]


def test_a_comparison_by_a_surrogate_is_read_and_shown(tmp_path: Path) -> None:
    artifacts.write(tmp_path / "c.csv", artifacts.to_csv(surrogate_rows()))
    (c,) = read_study(tmp_path / "c.csv")
    table = tables.methods_table(c)
    assert [r[0] for r in table.rows] == ["full space", "lissnas", "abs"]
    assert all(len(r) == len(table.columns) for r in table.rows)
    assert table.rows[0][1] == "2.18e19"
    assert table.rows[2][table.columns.index("best")] == "85.500"
    text = " ".join(remarks(c.summary))
    assert "lissnas is not significantly different from `abs`" in text
    assert "keeps the best network" not in text


# -- the study -----------------------------------------------------------------------------------------
def test_a_child_process_is_measured_and_its_failure_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    found = huge.measured(["--version"])
    assert 0 < found["seconds"] < 60
    assert 0.02 < found["memory_gib"] < 4
    assert "lissnas" in capfd.readouterr().out
    with pytest.raises(LissnasError, match="ended with code 2"):
        huge.measured(["shrink", "--space", "nowhere", "--out", "x"])


def test_a_measured_space_is_not_shrunk_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"ofa_mobilenetv3": 300}
    rows, page = huge.huge(tmp_path, targets)
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["size"] == rows[0]["size_low"] == "300"
    assert rows[0]["mean_shrunk"] > rows[0]["mean_full"] + 1
    refused: Callable[..., Any] = lambda arguments: pytest.fail("measured again")  # noqa: E731
    monkeypatch.setattr(huge, "measured", refused)
    assert huge.huge(tmp_path, targets) == (rows, page)
    assert "| ofa_mobilenetv3 | 2.18e19 | 300 | set |" in page
    artifacts.write(tmp_path / "huge.csv", artifacts.to_csv(rows))
    with (tmp_path / "huge.csv").open() as file:
        assert next(csv.reader(file)) == list(COLUMNS)
    assert read_huge(tmp_path / "huge.csv")[0].full_size == 7371**5


def test_every_space_of_the_study_has_an_oracle() -> None:
    assert set(huge.TARGETS) <= set(huge.ORACLES)
    assert set(huge.MEMORY) <= set(huge.TARGETS)
