"""The paper's tables with our numbers next to the paper's, made from the artifacts of the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lissnas.stages.compare import method_cells
from lissnas.stages.report import paper
from lissnas.stages.report.paper import Printed

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = Callable[[Row], str]
NOT_YET = "not yet"
PIPELINE, STUDY = "pipeline", "study"
FULL = "full space"
DIVERSITY = ("cosine_coverage", "cosine_mean_coverage", "distance_nearest")
"""Measures of Tables 7 and 11, ratios to the full space."""


@dataclass(frozen=True)
class Table:
    """A table of the report; cells are text, the way they are read."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Compared:
    """A comparison on one benchmark: from the pipeline's run, or from a committed study."""

    benchmark: str
    metric: str
    full: Mapping[str, float]
    """Size, mean and best of the full space."""
    origin: str
    seeds: int
    summary: Sequence[Row]

    @property
    def where(self) -> str:
        """Where the numbers come from, as printed in a column."""
        return f"{self.origin}, {self.seeds} seed{'s' if self.seeds > 1 else ''}"

    def of(self, method: str) -> Row | None:
        """Return a method's row with the full space's size, or the full space's own row."""
        if method == FULL:
            whole = {"size": self.full["size"], "mean_true": self.full["mean"], "max_true": self.full["best"]}
            return whole | dict.fromkeys(DIVERSITY, 1.0)
        row = next((r for r in self.summary if r["method"] == method), None)
        return row and {**row, "full_size": self.full["size"]}


SPACES = {
    "nasbench101": paper.NB101,
    "transnas": paper.TRANSNAS,
    "transnas_macro": f"{paper.TRANSNAS}, macro",
    "transnas_micro": f"{paper.TRANSNAS}, micro",
    "nas_bench_macro": "NAS-Bench-Macro",
    "shufflenetv2": paper.SHUFFLE,
    "nasbench301": "NAS-Bench-301",
    "mobilenet": "MobileNet",
    "anynetx": "AnyNetX",
}


def printed_name(benchmark: str) -> str:
    """Return a benchmark's space as the paper writes it."""
    return SPACES.get(benchmark.partition("/")[0], benchmark)


def num(value: float | None, digits: int = 4) -> str:
    """Return a number with its significant digits, nothing for None."""
    return "" if value is None else f"{value:#.{digits}g}".removesuffix(".")


def count(value: float) -> str:
    """Return a number of architectures, of a mean over seeds the nearest."""
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Layout:
    """One of the paper's tables of a comparison: a row a benchmark and method, our columns, then the paper's."""

    name: str
    title: str
    printed: Sequence[Printed]
    methods: Sequence[str]
    cells: Mapping[str, Cell]
    """Our columns by name."""
    remarks: Sequence[str]

    def fill(self, found: Sequence[Compared]) -> Table:
        """Return the table of comparisons, with the paper's rows alone for spaces that are not among them."""
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
        return Table(self.name, self.title, columns, rows, self.remarks)


def _number(name: str, digits: int = 4) -> Cell:
    return lambda row: num(row.get(name), digits)


def _ratios_to_full(printed: Sequence[Printed]) -> list[Printed]:
    """Return the paper's distances with a further column: their ratio to the full space's."""
    whole = {p.space: float(p.values["distance"]) for p in printed if p.method == FULL}
    ratio = [f"{float(p.values['distance']) / whole[p.space]:.3f}" for p in printed]
    return [Printed(p.space, p.method, {**p.values, "ratio": r}) for p, r in zip(printed, ratio, strict=True)]


def named(printed: Sequence[Printed]) -> list[str]:
    """Return the names of the paper's columns next to ours."""
    return [f"paper: {name}" for name in printed[0].values]


OURS = ("lissnas_paper", "lissnas", "lissnas_collect")
RIVALS = ("abs", "nse", "padnas", "greedynas", "greedynas_v2", "dds")
VALUES: dict[str, Cell] = {
    "size": lambda row: count(row["size"]),
    "mean": _number("mean_true"),
    "best": _number("max_true"),
}

LAYOUTS = (
    Layout(
        "Table 1",
        "Shrink index: how much likelier a draw is good",
        paper.TABLE_1,
        ("greedynas", "abs", "nse", "padnas", "lissnas", "lissnas_collect"),
        {"shrink index": _number("shrink_index", 3), "with n=10, k=2": _number("shrink_index_10_2", 3)},
        [paper.TABLE_1_REMARK],
    ),
    Layout(
        "Table 4",
        "Statistics of the shrunk spaces",
        paper.TABLE_4,
        (FULL, *RIVALS, *OURS, "score_all"),
        VALUES,
        [paper.TABLE_4_REMARK],
    ),
    Layout(
        "Table 6",
        "Size reduction",
        paper.TABLE_6,
        ("lissnas",),
        {
            "full": lambda row: count(row["full_size"]),
            "size": lambda row: count(row["size"]),
            "factor": lambda row: num(row["full_size"] / row["size"], 3),
        },
        [paper.TABLE_6_REMARK],
    ),
    Layout(
        "Tables 7 and 11",
        "Architectural diversity: cosine distances, as ratios to the full space",
        _ratios_to_full([*paper.TABLE_7, *paper.TABLE_11]),
        ("padnas", "abs", "nse", *OURS, FULL),
        {
            f"{name}, ratio": _number(column, 3)
            for name, column in zip(
                ("largest cosine distance", "mean cosine distance", "distance to the nearest"), DIVERSITY, strict=True
            )
        },
        paper.COSINE_REMARKS,
    ),
    Layout(
        "Table 9",
        "Naive random shrinkage at equal queries",
        paper.TABLE_9,
        (FULL, "top30", "top20", "top10", "top5", "lissnas", "lissnas_collect"),
        {**VALUES, "ours, same size": _number("ours_mean_true")},
        [paper.TABLE_9_REMARK],
    ),
    Layout(
        "Table 10",
        "Neighbours, random draws instead of them, neither",
        paper.TABLE_10,
        ("no_neighbors", "no_locality", *OURS, "score_all"),
        {
            "queries": lambda row: count(row["queries"]),
            **VALUES,
            "best one kept": lambda row: f"{100 * row['kept_best']:.0f} %",
        },
        paper.TABLE_10_REMARKS,
    ),
)
"""The paper's tables that a comparison fills."""


def comparison_tables(found: Sequence[Compared]) -> list[Table]:
    """Return Tables 1, 4, 6, 7 with 11, 9 and 10, a block a benchmark and origin."""
    return [layout.fill(found) for layout in LAYOUTS]


def table_3(found: Sequence[Row]) -> Table:
    """Return how well supernets rank, a row a trained space and sample; `where` is the origin of a row."""
    places = {(p.space, p.method): [*p.values.values()] for p in paper.TABLE_3}
    rows = []
    for r in found:
        theirs = places.get((printed_name(r["benchmark"]), r["method"])) if r["sample"] == "own" else None
        about = [*(r[c] for c in ("benchmark", "method", "where")), count(r["size"]), r["sample"], count(r["networks"])]
        values = [num(r[c], 3) for c in ("pearson", "spearman", "kendall")]
        rows.append([*about, *values, num(r["found_true"]), *(theirs or ["", ""])])
    here = {printed_name(r["benchmark"]) for r in found}
    rows += [[p.space, p.method, NOT_YET, *[""] * 7, *p.values.values()] for p in paper.TABLE_3 if p.space not in here]
    columns = ["benchmark", "trained on", "from", "size", "ranked", "networks", "Pearson", "Spearman", "Kendall"]
    title = "One-shot search: how well a supernet of each space ranks networks"
    return Table("Table 3", title, [*columns, "Top-1", *named(paper.TABLE_3)], rows, [paper.TABLE_3_REMARK])


def table_8(rows: Sequence[Row], where: str) -> Table:
    """Return Table 8 from the locality of NAS-Bench-101: differences by distance and kind of edit."""
    printed = {(p.space, p.method): p.values["AAD"] for p in paper.TABLE_8}
    out = [
        [str(r["distance"]), r["change"], f"{r['n']:,}", _between(r, "aad"), num(r["aad_median"], 3),
         _between(r, "correlation"), printed.get((str(r["distance"]), r["change"]), "")]
        for r in sorted(rows, key=lambda r: r["distance"])
    ]  # fmt: skip
    columns = ["edits", "kind", "pairs", "mean difference", "median", "correlation", "paper: AAD"]
    title = f"Accuracy difference by kind of change, NAS-Bench-101 ({where})"
    return Table("Table 8", title, columns, out, [paper.TABLE_8_REMARK])


def locality_table(found: Mapping[str, Sequence[Row]], about: Mapping[str, Row]) -> Table:
    """Return the numbers of Figure 2: correlation and difference at exact distance, on every benchmark."""
    rows = [
        [benchmark, str(r["distance"]), _between(r, "correlation"), _between(r, "aad"), num(r["aad_median"], 3),
         str(about[benchmark]["threshold_distance"]), str(about[benchmark]["max_edits"] // 3),
         f"{100 * about[benchmark]['share_not_rejected']:.0f} %"]
        for benchmark, own in found.items() for r in own if r["change"] == "any"
    ]  # fmt: skip
    columns = ["benchmark", "edits", "correlation", "mean difference", "median", "threshold distance"]
    columns += ["a third of all", "samples of 1,000 like the full space"]
    return Table("Figure 2, numbers", "Locality at exact edit distance", columns, rows, [paper.LOCALITY_REMARK])


def _between(row: Row, name: str) -> str:
    return f"{num(row[name], 3)} ({num(row[f'{name}_low'], 3)} to {num(row[f'{name}_high'], 3)})"


def methods_table(c: Compared) -> Table:
    """Return all methods on one benchmark, ours at the same size next to each."""
    rows = [method_cells(r) for r in c.summary]
    title = f"All methods ({c.where}): {c.metric}"
    return Table(f"Methods on {c.benchmark}", title, list(rows[0]), [list(r.values()) for r in rows])


def not_yet_table(shown: Collection[str] = ()) -> Table:
    """Return what the report doesn't hold yet, and what it needs; `shown` are names of what it holds."""
    rows = [[what, about, NOT_YET, why] for what, about, why in paper.NOT_YET if what not in shown]
    return Table("Not yet", "What the paper has and this page has not", ["in the paper", "about", "ours", "why"], rows)
