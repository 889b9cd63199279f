"""The report stage: results of the other stages and of the committed studies on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts, benchmarks
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import LissnasError, UserError
from lissnas.plots import comparison, figures
from lissnas.plots.comparison import coloured
from lissnas.shrinkers.comparison import FullSpaceStatistics
from lissnas.shrinkers.methods import REFERENCES
from lissnas.spaces import Keys
from lissnas.stages.compare import remarks
from lissnas.stages.report import huge_tables, label_curve, tables
from lissnas.stages.report.huge_tables import table_6
from lissnas.stages.report.overview import Overview
from lissnas.stages.report.page import INDEX, Page, Picture, Report
from lissnas.stages.report.space_map import SpaceMap
from lissnas.stages.report.tables import FULL, PIPELINE, STUDY, Compared, Row

STUDIES = ("compare", "locality", "ranking", "labels", "compare_ofa", "huge")
"""Names of the committed CSV files of long studies."""
HISTOGRAMS = (FULL, "lissnas", "abs", "nse", "padnas", "greedynas_v2", "dds", "top10", "no_locality", "flops")
"""Spaces in the figure of FLOPs histograms."""
HIGHLIGHTS = "The rivals in colour are the closest to ours at equal size; hover over a grey mark for its name."
WRITES = (INDEX, "report.md", "pages/*", "figures/*", "tables/*", "metrics.json")
"""Names of the files of a result."""


@dataclass(frozen=True)
class Found:
    """Results of the pipeline on one benchmark."""

    benchmark: Benchmark
    compared: Compared
    curve: Sequence[Row]
    spaces: Mapping[str, Keys]
    locality: Sequence[Row]
    walk: Sequence[Row]
    differences: Sequence[Row]
    about: Row


@remote_out(WRITES)
def report_stage(params: Params, data: Path, results: Path, out: Path, **how: Unpack[How]) -> Outcome:
    """Make the report from `data` (folders compare/, locality/ and optionally ranking/) and the studies in `results`.

    Raises UserError with the command that makes a missing input, and DamagedFile for a damaged one.
    """
    names = params.pipeline.benchmarks
    folders = {f"{stage}/{name}": data / stage / name for stage in ("compare", "locality") for name in names}
    for key, folder in folders.items():
        stage, _, name = key.partition("/")
        if not (folder / artifacts.MANIFEST).exists():
            command = f"lissnas {stage} --benchmark {name} --out {folder}"
            raise UserError(f"{folder} holds no result. Run `{command}`, or `dvc repro report` for all of them")
    # The ranking is optional, because it needs torch and minutes of training.
    ranked = {f"ranking/{name}": data / "ranking" / name for name in params.ranking.benchmarks}
    ranked = {key: folder for key, folder in ranked.items() if (folder / artifacts.MANIFEST).exists()}
    folders |= ranked
    for folder in folders.values():
        artifacts.verify(folder)
    studies = {path.stem: path for name in STUDIES if (path := results / f"{name}.csv").exists()}
    parameters = {
        "benchmarks": names,
        "inputs": {key: artifacts.sha256((f / artifacts.MANIFEST).read_bytes()) for key, f in folders.items()},
        "studies": {path.name: artifacts.sha256(path.read_bytes()) for path in studies.values()},
    }

    def work() -> dict[str, bytes]:
        found = [_read(name, data) for name in names]
        study = read_study(studies["compare"]) if "compare" in studies else []
        labelled = artifacts.read_csv(studies["labels"]) if "labels" in studies else []
        huge = huge_tables.read_huge(studies["huge"]) if "huge" in studies else []
        surrogate = read_study(studies["compare_ofa"]) if "compare_ofa" in studies else []
        compared = [f.compared for f in found] + study
        order = list(dict.fromkeys(c.benchmark for c in compared))
        compared.sort(key=lambda c: order.index(c.benchmark))
        best_known = _best_known(compared)
        of_paper = [
            tables.table_3(_rankings(ranked, studies.get("ranking"))),
            huge_tables.table_5(huge),
            *(tables.table_8(f.locality) for f in found if f.benchmark.name == "nasbench101"),
            *(table_6(t, huge) if t.name == "Table 6" else t for t in tables.comparison_tables(compared)),
        ]
        everything = [
            tables.locality_table(*_locality(found, studies.get("locality"))),
            *sorted(of_paper, key=lambda table: int(table.name.split()[1])),
            tables.not_yet_table(["Table 5"] if huge else []),
        ]
        pages = []
        for c in (*best_known, *surrogate):
            how.get("on_progress", ignore)(f"drawing {c.benchmark}")
            f = next((f for f in found if f.benchmark.name == c.benchmark), None)
            pages.append(_benchmark_page(c, f, ranked.get(f"ranking/{c.benchmark}")))
        pages += [Page("Tables of the paper", t.name, f"{t.name}: {t.title}", [t]) for t in everything]
        if labelled:
            curve = label_curve.label_tables(labelled)
            pages.append(Page("Studies", "Labels", curve[0].title, curve, (), label_curve.label_pictures(labelled)))
        predicted = [*(c.benchmark for c in surrogate), *(h.space for h in huge)]
        overview = Overview([*best_known, *surrogate], REFERENCES)
        picture = next(p.pictures[0] for p in pages if p.name == names[0])
        report = Report(_origin(found, study, predicted), picture, overview, pages)
        metrics = {
            "benchmarks": len(found),
            "benchmarks_in_study": len({c.benchmark for c in study}),
            "tables": len(report.tables),
            "figures": len(report.pictures),
        }
        return {**report.files(), "metrics.json": artifacts.to_json(metrics)}

    record = how.get("record", NO_RECORDER)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=_summary)


def _summary(record: Recorder, outcome: Outcome) -> None:
    """Record the report's pages, with the parent run too."""
    for name in ("index.html", "report.md"):
        record.artifact(outcome.folder / name, shared=True)
    record.artifact(outcome.folder / "pages", "pages", shared=True)


def read_study(path: Path) -> list[Compared]:
    """Return the comparisons of a committed study; without a table, the rows contain the full space's statistics."""
    rows = artifacts.read_csv(path)
    out = []
    for name in dict.fromkeys(r["benchmark"] for r in rows):
        own = [r for r in rows if r["benchmark"] == name]
        if "full_size" in own[0]:
            metric, full = own[0]["metric"], {what: own[0][f"full_{what}"] for what in ("size", "mean", "best")}
        else:
            metric, full = benchmarks.get(name).metric, _full(benchmarks.get(name))
        out.append(Compared(name, metric, full, STUDY, int(own[0]["seeds"]), own))
    return out


def _full(table: Benchmark) -> dict[str, float]:
    return {"size": len(table.values), "mean": float(table.values.mean()), "best": table.best}


def _read(name: str, data: Path) -> Found:
    table = benchmarks.get(name)
    compared = Outcome(data / "compare" / name, {}, reused=True)
    locality = Outcome(data / "locality" / name, {}, reused=True)
    summary, spaces = compared.csv("summary.csv"), compared.table("spaces.parquet")
    methods, keys = spaces["method"].to_numpy(zero_copy_only=False), spaces["key"].to_numpy()
    if not np.isin(keys, table.keys).all():
        raise LissnasError(f"{compared.folder} has architectures that are not in {name}; repeat it with --force")
    return Found(
        table,
        Compared(name, table.metric, _full(table), PIPELINE, int(summary[0]["seeds"]), summary),
        compared.table("diversity.parquet").to_pylist(),
        {str(m): keys[methods == m] for m in dict.fromkeys(methods.tolist())},
        locality.table("locality.parquet").to_pylist(),
        locality.table("walk.parquet").to_pylist(),
        locality.table("differences.parquet").to_pylist(),
        locality.json("locality.json"),
    )


def _best_known(compared: Sequence[Compared]) -> list[Compared]:
    """Return for each benchmark the comparison with the most seeds."""
    return [
        max((c for c in compared if c.benchmark == name), key=lambda c: c.seeds)
        for name in dict.fromkeys(c.benchmark for c in compared)
    ]


def _locality(found: Sequence[Found], study: Path | None) -> tuple[dict[str, Sequence[Row]], dict[str, Row]]:
    """Return rows and thresholds by benchmark, from the pipeline if available, else from the study."""
    rows = {f.benchmark.name: f.locality for f in found}
    check = "share_not_rejected"
    about: dict[str, Row] = {f.benchmark.name: {**f.about, check: f.about["sample_check"][check]} for f in found}
    others = [] if study is None else artifacts.read_csv(study)
    for name in dict.fromkeys(r["benchmark"] for r in others):
        if name not in rows:
            rows[name] = [r for r in others if r["benchmark"] == name]
            about[name] = rows[name][0]
    return rows, about


def _rankings(folders: Mapping[str, Path], study: Path | None) -> list[dict[str, Any]]:
    """Return the rows of the rankings of pipeline and study, with their origin in `where`."""
    rows: list[dict[str, Any]] = []
    for key, folder in folders.items():
        name = key.partition("/")[2]
        rows += [{"benchmark": name, "origin": PIPELINE, **r} for r in artifacts.read_csv(folder / "summary.csv")]
    if study is not None:
        rows += [{"origin": STUDY, **r} for r in artifacts.read_csv(study)]
    return [{**r, "where": f"{r['origin']}, {r['seeds']} seed{'s' if r['seeds'] > 1 else ''}"} for r in rows]


def _ranking_picture(folder: Path) -> Picture:
    outcome = Outcome(folder, {}, reused=True)
    name = str(outcome.json("metrics.json")["benchmark"])
    return Picture(
        f"Accuracy of our networks by supernets, {name}",
        "Accuracy with a supernet's weights against the tabulated value, one panel for each trained space; first seed.",
        figures.ranking(outcome.table("scores.parquet").to_pylist(), name, benchmarks.get(name).metric),
    )


def _benchmark_page(c: Compared, f: Found | None, ranked: Path | None) -> Page:
    """Return the page of a benchmark; without results of the pipeline, it has only figures of the summary."""
    pictures, shown = [], None
    if f is not None:
        full_space = FullSpaceStatistics.of(f.benchmark)
        space_map = SpaceMap.of(f.benchmark, full_space.diversity, f.spaces)
        shown = space_map.plotly(coloured(f.compared.summary, REFERENCES))
        pictures = [space_map.picture(min(f.spaces, key=lambda method: method != "lissnas"))]
    pictures += _summary_pictures(c)
    if f is not None:
        pictures += _pictures(f, full_space)
    if ranked is not None:
        pictures.append(_ranking_picture(ranked))
    title = f"{c.benchmark}: all methods ({c.where})"
    return Page("Benchmarks", c.benchmark, title, [tables.methods_table(c)], remarks(c.summary), pictures, shown)


def _summary_pictures(c: Compared) -> list[Picture]:
    """Return the figures of a summary."""
    name, metric = c.benchmark, c.metric
    out = [
        Picture(
            f"Means of all methods, {name}",
            f"Mean true value of each method's space over {c.seeds} seeds with 95 % intervals, and of ours cut to the "
            "same size (in brackets). Our variants and the ceiling are in italics.",
            comparison.means(c.summary, name, metric, c.full["mean"], REFERENCES),
        )
    ]
    if "mean_true_25" in c.summary[0]:
        caption = f"Mean true value of each method's space by the share of its query budget, over {c.seeds} seeds."
        picture = comparison.budget(c.summary, name, metric, coloured(c.summary, REFERENCES))
        out.append(Picture(f"Mean against queries, {name}", f"{caption} {HIGHLIGHTS}", picture))
    return out


def _pictures(f: Found, full_space: FullSpaceStatistics) -> list[Picture]:
    """Return the figures of the pipeline's results."""
    name, metric, c = f.benchmark.name, f.benchmark.metric, f.compared
    shown = coloured(c.summary, REFERENCES)
    values = {FULL: f.benchmark.values, **{m: f.benchmark.look_up(k) for m, k in f.spaces.items()}}
    out = [
        Picture(
            f"Figures 4 and 8: error EDF, {name}",
            f"Share of each shrunk space within a distance of the overall best value; first seed. {HIGHLIGHTS}",
            comparison.edfs(values, shown, full_space.window, name, metric),
        ),
        Picture(
            f"Figure 2: locality, {name}",
            "Correlation with the original and mean absolute difference by exact edit distance, and autocorrelation "
            "along random walks; bands are bootstrap 95 % intervals.",
            figures.locality(f.locality, f.walk, f.about["threshold_distance"], name, metric),
        ),
        Picture(
            f"Figure 7: accuracy differences, {name}",
            "Absolute differences of values at an exact edit distance; without the largest 2 %.",
            figures.differences(f.differences, name, metric),
        ),
    ]
    if "flops" not in full_space.diversity.costs:
        return out
    full, keys = full_space.diversity.costs["flops"], f.benchmark.space.key(f.benchmark.space.enumerate())
    flops = {FULL: full, **{method: full[np.searchsorted(keys, own)] for method, own in f.spaces.items()}}
    counts = {m: full_space.diversity.histogram("flops", flops[m]).tolist() for m in HISTOGRAMS if m in flops}
    edges = [float(full.min()), *full_space.diversity.edges("flops").tolist(), float(full.max())]
    return [
        Picture(
            f"Mean against FLOPs coverage, {name}",
            f"Our curve over the parameter diversity, and one point for each method, {c.where}; up and right is "
            f"better. {HIGHLIGHTS}",
            comparison.diversity(c.summary, f.curve, name, metric, shown),
        ),
        *out,
        Picture(
            f"Figure 5: FLOPs kept, {name}",
            "Share of each space in 20 equal bins over the full space's range of multiply-adds; first seed.",
            comparison.cost_histograms(counts, edges, "multiply-adds", name),
        ),
    ]


def _origin(found: Sequence[Found], study: Sequence[Compared], predicted: Sequence[str]) -> str:
    text = (
        f"Rows from the pipeline: {', '.join(f.benchmark.name for f in found)}, {found[0].compared.seeds} seeds "
        "(dvc repro report)."
    )
    if study:
        text += f" Rows from the study: {len(study)} benchmarks, {study[0].seeds} seeds (make study NAME=compare)."
    text += " All values are real, tabulated accuracies"
    if not predicted:
        return f"{text}; no row uses a surrogate."
    return f"{text}, except those of {', '.join(dict.fromkeys(predicted))}: predicted by surrogates (see each table)."
