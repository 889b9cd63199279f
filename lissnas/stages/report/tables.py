"""The paper's tables with our values next to the published ones, from the results of the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lissnas.plots.figures import big
from lissnas.stages.compare import method_cells
from lissnas.stages.report import paper
from lissnas.stages.report.paper import Printed

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = Callable[[Row], str]
NOT_YET = "not yet"
PIPELINE = "pipeline"
STUDY = "study"
FULL = "full space"
DIVERSITY = ("cosine_coverage", "cosine_mean_coverage", "distance_nearest")
"""Measures of Tables 7 and 11, as ratios to the full space."""


@dataclass(frozen=True)
class Table:
    """A table of the report; cells are formatted text."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Compared:
    """A comparison on one benchmark, from the pipeline or from a committed study."""

    benchmark: str
    metric: str
    full: Mapping[str, float]
    """Size, mean and best of the full space."""
    origin: str
    seeds: int
    summary: Sequence[Row]

    @property
    def where(self) -> str:
        """The origin of the numbers, for a column."""
        return f"{self.origin}, {self.seeds} seed{'s' if self.seeds > 1 else ''}"

    def of(self, method: str) -> Row | None:
        """Return the row of a method, with the full space's size, or of the full space; None if missing."""
        if method == FULL:
            whole = {"size": self.full["size"], "mean_true": self.full["mean"], "max_true": self.full["best"]}
            return whole | dict.fromkeys(DIVERSITY, 1.0)
        row = next((r for r in self.summary if r["method"] == method), None)
        return row and {**row, "full_size": self.full["size"]}


SPACES = {
    "nasbench101": "NAS-Bench-101",
    "transnas": "TransNAS-Bench-101",
    "transnas_macro": "TransNAS-Bench-101, macro",
    "transnas_micro": "TransNAS-Bench-101, micro",
    "nas_bench_macro": "NAS-Bench-Macro",
    "shufflenetv2": "ShuffleNetV2",
    "nasbench301": "NAS-Bench-301",
    "mobilenet": "MobileNet",
    "anynetx": "AnyNetX",
}


def printed_name(benchmark: str) -> str:
    """Return the paper's name for the space of a benchmark."""
    return SPACES.get(benchmark.partition("/")[0], benchmark)


def num(value: float | None, digits: int = 4) -> str:
    """Return a number with significant digits, or empty text for None."""
    return "" if value is None else f"{value:#.{digits}g}".removesuffix(".")


def count(value: float) -> str:
    """Return a number of architectures, rounded if it is a mean over seeds."""
    return f"{value:,.0f}"


def of_paper(name: str, columns: list[str], rows: list[list[str]], remarks: Sequence[str] = ()) -> Table:
    """Return our version of one of the paper's tables, with its title and remarks."""
    printed = paper.TABLES[name]
    return Table(name, printed.title, columns, rows, [*printed.remarks, *remarks])


@dataclass(frozen=True)
class Layout:
    """Layout of a comparison table: one row for each benchmark and method, our columns, then the paper's."""

    name: str
    methods: Sequence[str]
    cells: Mapping[str, Cell]
    """Our columns by name."""

    @property
    def printed(self) -> list[Printed]:
        """The paper's rows."""
        rows = paper.TABLES[self.name].rows
        return _ratios_to_full(rows) if "distance" in rows[0].values else rows

    def fill(self, found: Sequence[Compared]) -> Table:
        """Return the table of comparisons; other spaces have only the paper's values."""
        columns = ["benchmark", "method", "from", *self.cells, *named(self.printed), "remark"]
        by_place = {(p.space, p.method): p for p in self.printed}
        nothing = Printed("", "", dict.fromkeys(self.printed[0].values, ""))
        rows = []
        for c in found:
            for method in self.methods:
                if (row := c.of(method)) is not None:
                    p = by_place.get((printed_name(c.benchmark), method), nothing)
                    ours = [cell(row) for cell in self.cells.values()]
                    rows.append([c.benchmark, method, c.where, *ours, *p.values.values(), p.remark])
        here = {printed_name(c.benchmark) for c in found}
        for p in self.printed:
            if p.space not in here:
                rows.append([p.space, p.method, NOT_YET, *[""] * len(self.cells), *p.values.values(), p.remark])
        return of_paper(self.name, columns, rows)


def _number(name: str, digits: int = 4) -> Cell:
    return lambda row: num(row.get(name), digits)


def _count(name: str) -> Cell:
    return lambda row: count(row[name])


def _ratios_to_full(printed: Sequence[Printed]) -> list[Printed]:
    """Return the paper's distances with an additional column, the ratio to the full space's."""
    whole = {p.space: float(p.values["distance"]) for p in printed if p.method == FULL}
    ratio = [f"{float(p.values['distance']) / whole[p.space]:.3f}" for p in printed]
    return [Printed(p.space, p.method, {**p.values, "ratio": r}) for p, r in zip(printed, ratio, strict=True)]


def named(printed: Sequence[Printed]) -> list[str]:
    """Return the column names of the paper's values."""
    return [f"paper: {name}" for name in printed[0].values]


OURS = ("lissnas_paper", "lissnas", "lissnas_collect")
RIVALS = ("abs", "nse", "padnas", "greedynas", "greedynas_v2", "dds")
VALUES: dict[str, Cell] = {
    "size": _count("size"),
    "mean": _number("mean_true"),
    "best": _number("max_true"),
}

LAYOUTS = (
    Layout(
        "Table 1",
        ("greedynas", "abs", "nse", "padnas", "lissnas", "lissnas_collect"),
        {"shrink index": _number("shrink_index", 3), "with n=10, k=2": _number("shrink_index_10_2", 3)},
    ),
    Layout(
        "Table 4",
        (FULL, *RIVALS, *OURS, "score_all"),
        VALUES,
    ),
    Layout(
        "Table 6",
        ("lissnas",),
        {
            "full": _count("full_size"),
            "size": _count("size"),
            "factor": lambda row: num(row["full_size"] / row["size"], 3),
        },
    ),
    Layout(
        "Tables 7 and 11",
        ("padnas", "abs", "nse", *OURS, FULL),
        {
            f"{name}, ratio": _number(column, 3)
            for name, column in zip(
                ("largest cosine distance", "mean cosine distance", "distance to the nearest"), DIVERSITY, strict=True
            )
        },
    ),
    Layout(
        "Table 9",
        (FULL, "top30", "top20", "top10", "top5", "lissnas", "lissnas_collect"),
        {**VALUES, "ours, same size": _number("ours_mean_true")},
    ),
    Layout(
        "Table 10",
        ("no_neighbors", "no_locality", *OURS, "score_all"),
        {
            "queries": _count("queries"),
            **VALUES,
            "best one kept": lambda row: f"{100 * row['kept_best']:.0f} %",
        },
    ),
)
"""The paper's tables that a comparison fills."""


def comparison_tables(found: Sequence[Compared]) -> list[Table]:
    """Return Tables 1, 4, 6, 7 and 11, 9 and 10; rows are grouped by benchmark and origin."""
    return [layout.fill(found) for layout in LAYOUTS]


def table_3(found: Sequence[Row]) -> Table:
    """Return Table 3: rank correlations, one row for each trained space and sample; `where` is the origin of a row."""
    printed = paper.TABLES["Table 3"].rows
    places = {(p.space, p.method): [*p.values.values()] for p in printed}
    rows = []
    for r in found:
        theirs = places.get((printed_name(r["benchmark"]), r["method"])) if r["sample"] == "own" else None
        about = [*(r[c] for c in ("benchmark", "method", "where")), count(r["size"]), r["sample"], count(r["networks"])]
        values = [num(r[c], 3) for c in ("pearson", "spearman", "kendall")]
        rows.append([*about, *values, num(r["found_true"]), *(theirs or ["", ""])])
    here = {printed_name(r["benchmark"]) for r in found}
    rows += [[p.space, p.method, NOT_YET, *[""] * 7, *p.values.values()] for p in printed if p.space not in here]
    columns = ["benchmark", "trained on", "from", "size", "ranked", "networks", "Pearson", "Spearman", "Kendall"]
    return of_paper("Table 3", [*columns, "Top-1", *named(printed)], rows)


def table_8(rows: Sequence[Row]) -> Table:
    """Return Table 8 from the locality of NAS-Bench-101: differences by distance and kind of edit."""
    printed = {(p.space, p.method): p.values["AAD"] for p in paper.TABLES["Table 8"].rows}
    out = [
        [str(r["distance"]), r["change"], f"{r['n']:,}", _between(r, "aad"), num(r["aad_median"], 3),
         _between(r, "correlation"), printed.get((str(r["distance"]), r["change"]), "")]
        for r in sorted(rows, key=lambda r: r["distance"])
    ]  # fmt: skip
    columns = ["edits", "kind", "pairs", "mean difference", "median", "correlation", "paper: AAD"]
    return of_paper("Table 8", columns, out)


def locality_table(found: Mapping[str, Sequence[Row]], about: Mapping[str, Row]) -> Table:
    """Return the numbers of Figure 2: correlation and difference by exact edit distance, on all benchmarks."""
    rows = [
        [benchmark, str(r["distance"]), _between(r, "correlation"), _between(r, "aad"), num(r["aad_median"], 3),
         str(about[benchmark]["threshold_distance"]), str(about[benchmark]["max_edits"] // 3),
         f"{100 * about[benchmark]['share_not_rejected']:.0f} %"]
        for benchmark, own in found.items() for r in own if r["change"] == "any"
    ]  # fmt: skip
    columns = ["benchmark", "edits", "correlation", "mean difference", "median", "threshold distance"]
    columns += ["a third of all", "samples of 1,000 like the full space"]
    return of_paper("Figure 2, numbers", columns, rows)


def _between(row: Row, name: str) -> str:
    return f"{num(row[name], 3)} ({num(row[f'{name}_low'], 3)} to {num(row[f'{name}_high'], 3)})"


SURROGATE = (
    "Values are predictions of a surrogate, not of trained networks; those of the full space are from a uniform sample "
    "of 100,000. Sets are evaluated on all members, products on 10,000, so the best of a product is that of the sample."
)


def methods_table(c: Compared) -> Table:
    """Return the full space and all methods on one benchmark, next to ours at equal size."""
    rows = [method_cells(r) for r in c.summary]
    full = {"method": FULL, "size": big(c.full["size"]), "mean": num(c.full["mean"]), "best": num(c.full["best"])}
    columns = list(rows[0])
    cells = [[row.get(name, "") for name in columns] for row in (full, *rows)]
    remarks = [] if "kept_best" in c.summary[0] else [SURROGATE]
    return Table(f"Methods on {c.benchmark}", f"All methods ({c.where}): {c.metric}", columns, cells, remarks)


def not_yet_table(shown: Collection[str] = ()) -> Table:
    """Return the missing parts of the report and their requirements; `shown` are names of parts that it has."""
    rows = [[p.space, p.method, NOT_YET, p.remark] for p in paper.TABLES["Not yet"].rows if p.space not in shown]
    return of_paper("Not yet", ["in the paper", "about", "ours", "why"], rows)
