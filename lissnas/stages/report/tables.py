"""The paper's tables with our numbers beside the paper's, made from the artifacts of the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lissnas.stages.report import paper
from lissnas.stages.report.paper import Printed

Row = Mapping[str, Any]
NOT_YET = "not yet"
PIPELINE, STUDY = "pipeline", "study"


@dataclass(frozen=True)
class Table:
    """A table of the report; cells are text, the way they are read."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    remarks: list[str] = field(default_factory=list)


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
        """Where the numbers come from, as a column says it."""
        return f"{self.origin}, {self.seeds} seed{'s' if self.seeds > 1 else ''}"

    def of(self, method: str) -> Row | None:
        """Return a method's row."""
        return next((r for r in self.summary if r["method"] == method), None)


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


def comparison_tables(found: Sequence[Compared], table_8: Sequence[Table]) -> list[Table]:
    """Return Tables 1, 4, 6, 7 with 11, 8 where there is one, 9 and 10, a block a benchmark and origin."""
    return [
        _table_1(found),
        _table_4(found),
        _table_6(found),
        _table_7_and_11(found),
        *table_8,
        _table_9(found),
        _table_10(found),
    ]


def _blocks(
    found: Sequence[Compared],
    printed: Sequence[Printed],
    methods: Sequence[str],
    cells: Callable[[Compared, str], list[str]],
) -> Iterable[list[str]]:
    """Yield rows: benchmark, method, where from, our cells, the paper's cells where it has this space, remark."""
    columns = list(printed[0].values)
    by_place = {(p.space, p.method): p for p in printed}
    for c in found:
        for method in methods:
            ours = cells(c, method)
            if ours:
                p = by_place.get((printed_name(c.benchmark), method))
                theirs = [p.values[name] for name in columns] if p else [""] * len(columns)
                yield [c.benchmark, method, c.where, *ours, *theirs, p.remark if p else ""]
    here = {printed_name(c.benchmark) for c in found}
    for p in printed:
        if p.space not in here:
            n_ours = len(cells(found[0], methods[-1])) if found else len(columns)
            yield [p.space, p.method, NOT_YET, *[""] * n_ours, *p.values.values(), p.remark]


def named(printed: Sequence[Printed]) -> list[str]:
    """Return the paper's columns, as ours that stand beside them are named."""
    return [f"paper: {name}" for name in printed[0].values]


def _table_1(found: Sequence[Compared]) -> Table:
    def cells(c: Compared, method: str) -> list[str]:
        r = c.of(method)
        return [] if r is None else [num(r["shrink_index"], 3), num(r["shrink_index_10_2"], 3)]

    methods = ("greedynas", "abs", "nse", "padnas", "lissnas", "lissnas_collect")
    columns = ["benchmark", "method", "from", "shrink index", "with n=10, k=2", *named(paper.TABLE_1), "remark"]
    return Table(
        "Table 1",
        "Shrink index: how much likelier a draw is good",
        columns,
        list(_blocks(found, paper.TABLE_1, methods, cells)),
        [
            "Good means above the full space's 80th percentile, for every method. The paper's row is on ShuffleNetV2 "
            "and ImageNet, of which no table is public, so it compares in kind only."
        ],
    )


def _sizes(c: Compared, method: str) -> list[str]:
    if method == "full space":
        return [count(c.full["size"]), num(c.full["mean"]), num(c.full["best"])]
    r = c.of(method)
    return [] if r is None else [count(r["size"]), num(r["mean_true"]), num(r["max_true"])]


def _table_4(found: Sequence[Compared]) -> Table:
    methods = (
        "full space",
        "abs",
        "nse",
        "padnas",
        "greedynas",
        "greedynas_v2",
        "dds",
        "lissnas_paper",
        "lissnas",
        "lissnas_collect",
        "score_all",
    )
    columns = ["benchmark", "method", "from", "size", "mean", "best", *named(paper.TABLE_4), "remark"]
    rows = list(_blocks(found, paper.TABLE_4, methods, _sizes))
    return Table("Table 4", "Statistics of the shrunk spaces", columns, rows, [paper.TABLE_4_REMARK])


def table_3(found: Sequence[Row]) -> Table:
    """Return how well supernets rank, a row a trained space and sample; `where` says where a row comes from."""
    places = {(p.space, p.method): p for p in paper.TABLE_3}
    columns = ["benchmark", "trained on", "from", "size", "ranked", "networks", "Pearson", "Spearman", "Kendall"]
    rows = []
    for r in found:
        printed = places.get((printed_name(str(r["benchmark"])), str(r["method"])))
        theirs = list(printed.values.values()) if printed and r["sample"] == "own" else ["", ""]
        values = [num(r[c], 3) for c in ("pearson", "spearman", "kendall")]
        about = [str(r[c]) for c in ("benchmark", "method", "where")]
        rows.append(
            [*about, count(r["size"]), str(r["sample"]), count(r["networks"]), *values, num(r["found_true"]), *theirs]
        )
    here = {printed_name(str(r["benchmark"])) for r in found}
    for p in paper.TABLE_3:
        if p.space not in here:
            rows.append([p.space, p.method, NOT_YET, *[""] * 7, *p.values.values()])
    title = "One-shot search: how well a supernet of each space ranks networks"
    return Table("Table 3", title, [*columns, "Top-1", *named(paper.TABLE_3)], rows, [paper.TABLE_3_REMARK])


def _table_6(found: Sequence[Compared]) -> Table:
    def cells(c: Compared, method: str) -> list[str]:
        r = c.of(method)
        return [] if r is None else [count(c.full["size"]), count(r["size"]), num(c.full["size"] / r["size"], 3)]

    columns = ["benchmark", "method", "from", "full", "size", "factor", *named(paper.TABLE_6), "remark"]
    rows = list(_blocks(found, paper.TABLE_6, ("lissnas",), cells))
    remark = (
        "The sizes are asked for (params.yaml), the paper's; without a target a rule finds one from the first labels."
    )
    return Table("Table 6", "Size reduction", columns, rows, [remark])


def _table_7_and_11(found: Sequence[Compared]) -> Table:
    printed = [*paper.TABLE_7, *paper.TABLE_11]
    whole = {p.space: float(p.values["distance"]) for p in printed if p.method == "full space"}
    ratios = [
        Printed(p.space, p.method, {**p.values, "ratio": f"{float(p.values['distance']) / whole[p.space]:.3f}"})
        for p in printed
    ]

    def cells(c: Compared, method: str) -> list[str]:
        if method == "full space":
            return ["1", "1", "1"]
        r = c.of(method)
        names = ("cosine_coverage", "cosine_mean_coverage", "distance_nearest")
        return [] if r is None else [num(r[name], 3) for name in names]

    methods = ("padnas", "abs", "nse", "lissnas_paper", "lissnas", "lissnas_collect", "full space")
    ours = ["largest cosine distance", "mean cosine distance", "distance to the nearest"]
    columns = ["benchmark", "method", "from", *(f"{name}, ratio" for name in ours), *named(ratios), "remark"]
    return Table(
        "Tables 7 and 11",
        "Architectural diversity: cosine distances, as ratios to the full space",
        columns,
        list(_blocks(found, ratios, methods, cells)),
        [
            paper.COSINE_REMARK,
            "A shrunk space of good networks is less spread out than the full one by any measure; the "
            "knob `diversity` buys spread with accuracy (Figure: mean against FLOPs coverage).",
        ],
    )


def _table_9(found: Sequence[Compared]) -> Table:
    def cells(c: Compared, method: str) -> list[str]:
        own = _sizes(c, method)
        r = c.of(method)
        return [*own, num(r["ours_mean_true"]) if r else ""] if own else []

    methods = ("full space", "top30", "top20", "top10", "top5", "lissnas", "lissnas_collect")
    columns = [
        "benchmark",
        "method",
        "from",
        "size",
        "mean",
        "best",
        "ours, same size",
        *named(paper.TABLE_9),
        "remark",
    ]
    rows = list(_blocks(found, paper.TABLE_9, methods, cells))
    return Table("Table 9", "Naive random shrinkage at equal queries", columns, rows, [paper.TABLE_9_REMARK])


def _table_10(found: Sequence[Compared]) -> Table:
    def cells(c: Compared, method: str) -> list[str]:
        r = c.of(method)
        if r is None:
            return []
        return [
            count(r["queries"]),
            count(r["size"]),
            num(r["mean_true"]),
            num(r["max_true"]),
            f"{100 * r['kept_best']:.0f} %",
        ]

    methods = ("no_neighbors", "no_locality", "lissnas_paper", "lissnas", "lissnas_collect", "score_all")
    columns = [
        "benchmark",
        "method",
        "from",
        "queries",
        "size",
        "mean",
        "best",
        "best one kept",
        *named(paper.TABLE_10),
        "remark",
    ]
    rows = list(_blocks(found, paper.TABLE_10, methods, cells))
    remarks = [
        paper.TABLE_10_REMARK,
        "`score_all` is H.3: the predictor asked about every network, where they can be listed.",
    ]
    return Table("Table 10", "Neighbours, random draws instead of them, neither", columns, rows, remarks)


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
    rows = []
    for benchmark, own in found.items():
        limits = about[benchmark]
        for r in own:
            if r["change"] == "any":
                rows.append([benchmark, str(r["distance"]), _between(r, "correlation"), _between(r, "aad"),
                             num(r["aad_median"], 3), str(limits["threshold_distance"]), str(limits["max_edits"] // 3),
                             f"{100 * limits['share_not_rejected']:.0f} %"])  # fmt: skip
    columns = [
        "benchmark",
        "edits",
        "correlation",
        "mean difference",
        "median",
        "threshold distance",
        "a third of all",
        "samples of 1,000 like the full space",
    ]
    remark = (
        "The threshold is a third of the edits available, as in the paper, but at most the first distance with a "
        "correlation under .3. The last column is Appendix G: samples that a Kolmogorov-Smirnov test does not reject."
    )
    return Table("Figure 2, numbers", "Locality at exact edit distance", columns, rows, [remark])


def _between(row: Row, name: str) -> str:
    return f"{num(row[name], 3)} ({num(row[f'{name}_low'], 3)} to {num(row[f'{name}_high'], 3)})"


def methods_table(c: Compared) -> Table:
    """Return all methods on one benchmark, ours at the same size beside each."""
    columns = [
        "method",
        "size",
        "queries",
        "mean",
        "95 %",
        "ours, same size",
        "ahead",
        "p (Holm)",
        "best kept",
        "ours keeps it",
        "of ten best",
        "good",
        "EDF area",
        "FLOPs coverage",
        "above our curve",
    ]
    rows = []
    for r in c.summary:
        rows.append([r["method"], count(r["size"]), count(r["queries"]), num(r["mean_true"]),
                     between(r, "mean_true"), num(r["ours_mean_true"]),
                     f"{r['ours_ahead']}/{c.seeds}", num(r["p_holm"], 2), f"{100 * r['kept_best']:.0f} %",
                     f"{100 * r['ours_kept_best']:.0f} %", num(r["top10_kept"], 3), f"{100 * r['p_good']:.0f} %",
                     num(r["edf_auc"], 3), num(r.get("flops_coverage"), 2),
                     {None: "", True: "yes", False: "no"}[r.get("above_curve")]])  # fmt: skip
    return Table(f"Methods on {c.benchmark}", f"All methods ({c.where}): {c.metric}", columns, rows)


def between(row: Row, name: str) -> str:
    """Return the interval of a value."""
    return f"{num(row[f'{name}_low'])} to {num(row[f'{name}_high'])}"


def not_yet_table(shown: Collection[str] = ()) -> Table:
    """Return what the report doesn't hold yet, and what it needs; `shown` are names of what it holds."""
    rows = [[what, about, NOT_YET, why] for what, about, why in paper.NOT_YET if what not in shown]
    return Table("Not yet", "What the paper has and this page has not", ["in the paper", "about", "ours", "why"], rows)
