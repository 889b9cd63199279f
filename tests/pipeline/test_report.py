"""The report of real comparisons: its files, its numbers, and the page in a browser."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lissnas import artifacts, benchmarks, spaces
from lissnas.artifacts.stage_run import Outcome
from lissnas.config import Params
from lissnas.core.errors import DamagedFile, UserError
from lissnas.plots.figures import sheet
from lissnas.shrinkers import description
from lissnas.shrinkers.methods import chosen
from lissnas.shrinkers.problem import packaged
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.report import paper, space_map
from lissnas.stages.report.huge_tables import COLUMNS
from lissnas.stages.report.overview import Overview
from lissnas.stages.report.page import Page, Picture, Report
from lissnas.stages.report.stage import read_study, report_stage
from lissnas.stages.report.tables import Compared, Table

ROOT = Path(__file__).parents[2]
NAMES = ["nas_bench_macro", "transnas_macro/class_scene"]
METHODS = ["lissnas", "abs", "top10", "flops", "score_all", "no_neighbors", "lissnas_paper"]
TABLES = {"table-1", "table-4", "table-5", "table-6", "tables-7-and-11", "table-9", "table-10", "figure-2-numbers"}


@pytest.fixture(scope="module", autouse=True)
def small_map() -> Iterator[None]:
    """Lay out fewer landmarks than by default, which takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space_map, "LANDMARKS", 300)
        yield


@pytest.fixture(scope="module")
def params(make_params: Callable[..., Params]) -> Params:
    return make_params(
        pipeline__benchmarks=NAMES,
        pipeline__seeds=[0, 1],
        compare__methods=METHODS,
        compare__diversities=[0.0, 0.05, 0.5],
        locality__pairs=2_000,
    )


@pytest.fixture(scope="module")
def data(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES:
        table = benchmarks.get(name)
        compare_stage(params, table, chosen(METHODS), [0, 1], folder / "compare" / name)
        locality_stage(params, table, folder / "locality" / name)
    return folder


@pytest.fixture(scope="module")
def report(params: Params, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return report_stage(params, data, ROOT / "no such folder", tmp_path_factory.mktemp("report") / "out")


def rows(report: Outcome, table: str) -> list[dict[str, str]]:
    with (report.folder / "tables" / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_table_and_figure_is_a_file(report: Outcome) -> None:
    files = artifacts.verify(report.folder)
    assert {f"tables/{name}.csv" for name in TABLES} <= set(files)
    figures = {f.removesuffix(".png") for f in files if f.endswith(".png")}
    assert figures == {f.removesuffix(".svg") for f in files if f.endswith(".svg")}
    for number in ("figure-2-", "figures-4-and-8-", "figure-5-", "figure-7-", "mean-against-flops-coverage-"):
        assert sum(f.startswith(f"figures/{number}") for f in figures) == len(NAMES)
    text = (report.folder / "report.md").read_text()
    assert set(re.findall(r"\(figures/(.*?)\.png\)", text)) == {f.removeprefix("figures/") for f in figures}


def test_pages_are_small_and_their_links_lead_to_files(report: Outcome) -> None:
    files = artifacts.verify(report.folder)
    pages = [f for f in files if f.endswith(".html")]
    assert {"index.html", "pages/nas-bench-macro.html", "pages/table-4.html"} <= set(pages)
    for page in pages:
        text = (report.folder / page).read_text()
        assert len(text) < 5e6, page
        folder = (report.folder / page).parent
        links = set(re.findall(r'(?:href|src)="(?!data:)([^"#]+)"', text))
        assert links
        assert {str((folder / link).resolve().relative_to(report.folder.resolve())) for link in links} <= set(files)
    for page in pages[1:]:  # every page can be reached from the first one
        assert f'href="{page}"' in (report.folder / "index.html").read_text()


def test_our_numbers_match_the_comparison(report: Outcome, data: Path) -> None:
    summary = {r["method"]: r for r in Outcome(data / "compare" / NAMES[0], {}, True).csv("summary.csv")}
    ours = {r["method"]: r for r in rows(report, "table-4") if r["benchmark"] == NAMES[0]}
    assert set(ours) == {"full space", "abs", "lissnas", "lissnas_paper", "score_all"}
    for method in ("abs", "lissnas"):
        assert float(ours[method]["mean"]) == pytest.approx(summary[method]["mean_true"], rel=1e-3)
    assert ours["full space"]["size"] == "3,969"


def test_paper_numbers_are_listed_with_and_without_ours(report: Outcome) -> None:
    printed = [r for r in rows(report, "table-4") if r["from"] == "not yet"]
    assert [r["paper: mean"] for r in printed] == [p.values["mean"] for p in paper.TABLES["Table 4"].rows]
    assert "misprint" in next(r["remark"] for r in printed if r["method"] == "abs")
    assert "Table 2" in {r["in the paper"] for r in rows(report, "not-yet")}
    supernets = rows(report, "table-3")
    assert [r["paper: Pearson"] for r in supernets if r["from"] == "not yet"] == [
        p.values["Pearson"] for p in paper.TABLES["Table 3"].rows
    ]


def test_committed_study_has_separate_rows(params: Params, data: Path, tmp_path: Path) -> None:
    summary = Outcome(data / "compare" / NAMES[0], {}, True).csv("summary.csv")
    study = [{"benchmark": NAMES[0], **row, "seeds": 10} for row in summary]
    artifacts.write(tmp_path / "results" / "compare.csv", artifacts.to_csv(study))
    outcome = report_stage(params, data, tmp_path / "results", tmp_path / "out")
    found = [r["from"] for r in rows(outcome, "table-6") if r["benchmark"] == NAMES[0]]
    assert found == ["pipeline, 2 seeds", "study, 10 seeds"]
    assert read_study(tmp_path / "results" / "compare.csv")[0].of("abs") is not None


def test_huge_spaces_are_shown_with_their_oracle(
    params: Params, data: Path, make_params: Callable[..., Params], tmp_path: Path
) -> None:
    """Small results of the studies give rows in Tables 5 and 6 and a table of the methods."""
    small = make_params(shrink__target_size=200, compare__diversities=[0.05])
    source = packaged(spaces.get("ofa_mobilenetv3"))
    compared = compare_stage(small, source, ["lissnas", "flops"], [0], tmp_path / "ofa", threads=1)
    results = tmp_path / "results"
    summary = [{"benchmark": source.name, "metric": source.metric, **row} for row in compared.csv("summary.csv")]
    artifacts.write(results / "compare_ofa.csv", artifacts.to_csv(summary))
    huge = "mobilenet,221504,true,1000,1000,1000,true,set,5000,60,1.5,70,75,somebody"
    (results / "huge.csv").write_text(f"{','.join(COLUMNS)}\n{huge}\n")
    outcome = report_stage(params, data, results, tmp_path / "out")
    five = [r for r in rows(outcome, "table-5") if r["from"] == "study, 1 seed"]
    assert [(r["method"], r["size"]) for r in five] == [("original", "221,504"), ("lissnas", "1,000")]
    assert "Evaluated by somebody: mean 70.00 to 75.00" in five[1]["remark"]
    methods = rows(outcome, "methods-on-ofa-mobilenetv3")
    assert [r["method"] for r in methods] == ["full space", "lissnas", "flops"]
    assert "Table 5" not in {r["in the paper"] for r in rows(outcome, "not-yet")}
    text = (outcome.folder / "report.md").read_text()
    assert "except those of ofa_mobilenetv3, mobilenet: predicted by surrogates" in text


def test_missing_and_damaged_inputs_are_reported(params: Params, data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"compare/nas_bench_macro holds no result.*lissnas compare --benchmark nas_ben"
    ):
        report_stage(params, tmp_path, tmp_path, tmp_path / "out")
    broken = shutil.copytree(data, tmp_path / "data")
    (broken / "compare" / NAMES[0] / "spaces.parquet").write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"spaces\.parquet is damaged"):
        report_stage(params, broken, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_inputs_give_equal_bytes(params: Params, data: Path, report: Outcome, tmp_path: Path) -> None:
    again = report_stage(params, data, ROOT / "no such folder", tmp_path / "out")
    assert artifacts.verify(again.folder) == artifacts.verify(report.folder)
    assert report_stage(params, data, ROOT / "no such folder", tmp_path / "out").reused


def test_text_is_escaped_in_the_pages() -> None:
    evil = "</script><script>alert('1')</script><!-- --><img src=x onerror=alert(1)>"
    verdict = {
        "ours_minus_sd": 1.0,
        "ours_minus_sd_low": 0.9,
        "ours_minus_sd_high": 1.1,
        "verdict": "ahead",
        "p_holm": 0.01,
    }
    overview = Overview([Compared(evil, evil, {"size": 9}, evil, 1, [{"method": evil, **verdict}])], ())
    picture = Picture(evil, evil, sheet(evil, 3, 3)[0])
    page = Page("Benchmarks", evil, evil, [Table(evil, evil, [evil], [[evil]], [evil])], [evil], [picture], {"a": evil})
    report = Report(evil, picture, overview, [page]).files()
    elements: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            elements.append(tag)

    htmls = [text.decode() for name, text in report.items() if name.endswith(".html")]
    for text in htmls:
        Reader().feed(text)
        assert text.count("alert(") > 5
    assert len(htmls) == 2
    assert elements.count("script") == 1 + 3  # sorting; on the second page also plotly and the map
    assert "img" not in elements


def test_study_params_change_only_benchmarks_seeds_methods_and_search_budget() -> None:
    small, study = (description.load_params(ROOT / f, {}) for f in ("params.yaml", "params.study.yaml"))
    published = {"population": 50, "generations": 20, "recalibration_batches": 2}
    search = small.search.model_copy(update=published)
    own = {"pipeline": study.pipeline, "ranking": study.ranking, "compare": study.compare, "search": search}
    assert small.model_copy(update=own) == study
    assert set(small.pipeline.benchmarks) <= set(study.pipeline.benchmarks)


# -- the pages in a browser --------------------------------------------------------------------------
OVERVIEW = ((0.2, "ahead"), (-0.1, "behind"), (0.05, "unclear"))
"""Differences and verdicts that the comparison of the opened report gets, in turn."""


@pytest.fixture(scope="module")
def opened(
    params: Params, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Path, list[str]]]:
    """Open a browser; returns its window, the report's folder and a list of problems that fills."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: make system")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("opened")
    summary = Outcome(data / "compare" / NAMES[0], {}, True).csv("summary.csv")
    for i, row in enumerate(summary):
        minus, verdict = OVERVIEW[i % 3]
        row |= {"ours_minus_sd": minus, "ours_minus_sd_low": minus - 0.1, "ours_minus_sd_high": minus + 0.1}
        row |= {"verdict": verdict, "p_holm": 0.01, "benchmark": NAMES[0], "seeds": 10}
    artifacts.write(folder / "results" / "compare.csv", artifacts.to_csv(summary))
    report = report_stage(params, data, folder / "results", folder / "out").folder
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.set_default_timeout(120_000)  # a busy machine takes a while to draw a map
        problems: list[str] = []
        window.on("pageerror", lambda error: problems.append(str(error)))
        window.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
        yield window, report, problems
        browser.close()


@pytest.fixture
def first_page(opened: tuple[Any, Path, list[str]]) -> Any:
    window, report, _ = opened
    window.goto((report / "index.html").as_uri())
    return window


@pytest.fixture
def page(opened: tuple[Any, Path, list[str]]) -> Any:
    """Return the page of a benchmark."""
    window, report, _ = opened
    window.goto((report / "pages" / "nas-bench-macro.html").as_uri())
    window.wait_for_selector("#space-map .legend .traces")
    return window


def visible(page: Any) -> list[str]:
    script = "document.getElementById('space-map').data.filter(t => t.visible !== 'legendonly').map(t => t.name)"
    names: list[str] = page.evaluate(script)
    return [n.partition(" (")[0] for n in names]


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open_without_network_errors_or_sideways_scrolling(
    opened: tuple[Any, Path, list[str]], width: int
) -> None:
    window, report, problems = opened
    window.set_viewport_size({"width": width, "height": 900})
    for file in (report / "index.html", *sorted((report / "pages").glob("*.html"))):
        window.goto(file.as_uri())
        assert window.locator("table").count() > 0
        assert window.evaluate("document.documentElement.scrollWidth") <= width, file.name
    assert problems == []
    window.set_viewport_size({"width": 1280, "height": 900})


def test_first_page_has_the_answer_first(first_page: Any) -> None:
    assert first_page.locator("h1 ~ figure svg").count() == 1
    assert first_page.evaluate("document.body.innerText.split(/\\s+/).length") < 1_500
    behind = first_page.locator(".overview td.behind").first
    assert behind.inner_text().startswith("▼ -0.100")
    assert "behind" in behind.get_attribute("title")


def test_click_on_a_column_sorts_by_its_numbers(first_page: Any) -> None:
    def column() -> list[float]:
        cells = first_page.locator(".overview tbody tr td:nth-child(3)")
        return [float(v) for v in cells.evaluate_all("cells => cells.map(c => c.dataset.value)")]

    before = column()
    for descending in (False, True):
        first_page.locator(".overview th button").nth(2).click()
        assert column() == sorted(before, reverse=descending)
    first_page.locator(".overview th button").first.click()
    names = first_page.locator(".overview tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names)


def test_click_in_the_legend_toggles_a_method(page: Any) -> None:
    assert visible(page) == ["full space", "lissnas", "the three best"]
    abs_ = page.locator("#space-map .legend .traces").filter(has_text="abs")
    for expected in (["full space", "lissnas", "abs", "the three best"], ["full space", "lissnas", "the three best"]):
        abs_.locator(".legendtoggle").click()
        page.wait_for_timeout(700)  # plotly waits for a possible double click
        assert visible(page) == expected


def test_hover_over_a_point_shows_the_architecture(page: Any) -> None:
    page.locator("#space-map").scroll_into_view_if_needed()
    point = page.locator("#space-map .scatterlayer .trace").last.locator("path.point").first
    point.hover(force=True)
    text = page.locator("#space-map .hoverlayer .hovertext").text_content(timeout=5_000)
    assert re.search(r"[012]{8}", text)
    assert "M FLOPs" in text
