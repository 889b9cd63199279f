"""The report stage: what the other stages left, and the committed studies, as one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts, benchmarks
from lissnas.artifacts.remote import anywhere
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import LissnasError, UserError
from lissnas.plots import comparison, figures
from lissnas.shrinkers.comparison import Ground
from lissnas.shrinkers.methods import REFERENCES
from lissnas.spaces import FloatArray, Keys
from lissnas.stages.compare import remarks
from lissnas.stages.report import huge_tables, label_curve, tables
from lissnas.stages.report.huge_tables import Huge, table_5, table_6
from lissnas.stages.report.page import Picture, Words, report_files
from lissnas.stages.report.space_map import space_map
from lissnas.stages.report.tables import PIPELINE, STUDY, Compared, Table

STUDY_COMPARE, STUDY_LOCALITY, STUDY_RANKING = "compare.csv", "locality.csv", "ranking.csv"
STUDY_LABELS = "labels.csv"
STUDY_OFA, STUDY_OFA_EDF, STUDY_HUGE = "compare_ofa.csv", "compare_ofa_edf.csv", "huge.csv"
"""Committed results of the long studies, where there are any."""
HISTOGRAMS = ("full space", "lissnas", "abs", "nse", "padnas", "greedynas_v2", "dds", "top10", "no_locality", "flops")
"""Whose FLOPs are drawn beside each other."""


@dataclass(frozen=True)
class Found:
    """What the pipeline left of one benchmark."""

    benchmark: Benchmark
    compared: Compared
    curve: Sequence[Mapping[str, Any]]
    spaces: Mapping[str, Keys]
    locality: Sequence[Mapping[str, Any]]
    walk: Sequence[Mapping[str, Any]]
    differences: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any]


@anywhere
def report_stage(
    params: Params,
    data: Path,
    results: Path,
    out: Path,
    on_progress: Callable[[str], None] = lambda line: None,
    force: bool = False,
) -> Outcome:
    """Make the page from `data` (folders compare/ and locality/) and the studies in `results`.

    Raises UserError that names the command where an input is missing, DamagedFile where one was changed.
    """
    names = params.pipeline.benchmarks
    folders = {f"{stage}/{name}": data / stage / name for stage in ("compare", "locality") for name in names}
    for key, folder in folders.items():
        stage, _, name = key.partition("/")
        if not (folder / artifacts.MANIFEST).exists():
            made = f"lissnas {stage} --benchmark {name} --out {folder}"
            raise UserError(f"{folder} holds no result. Make it: {made}, or all of them: dvc repro report")
        artifacts.verify(folder)
    ranked = {f"ranking/{name}": data / "ranking" / name for name in params.ranking.benchmarks}
    for key, folder in ranked.items():
        if (folder / artifacts.MANIFEST).exists():  # supernets take torch and minutes: the page does without
            artifacts.verify(folder)
            folders[key] = folder
    known_studies = (STUDY_COMPARE, STUDY_LOCALITY, STUDY_RANKING, STUDY_LABELS, STUDY_OFA, STUDY_OFA_EDF, STUDY_HUGE)
    studies = {name: results / name for name in known_studies if (results / name).exists()}
    parameters = {
        "benchmarks": names,
        "inputs": {key: artifacts.sha256((f / artifacts.MANIFEST).read_bytes()) for key, f in folders.items()},
        "studies": {name: artifacts.sha256(path.read_bytes()) for name, path in studies.items()},
    }

    def work() -> dict[str, bytes]:
        found = [_read(name, data) for name in names]
        study = [] if STUDY_COMPARE not in studies else read_study(studies[STUDY_COMPARE])
        known, about = _locality(found, studies.get(STUDY_LOCALITY))
        compared = [c for name in _order(found, study) for c in _of(name, found, study)]
        table_8 = [tables.table_8(f.locality, PIPELINE) for f in found if f.benchmark.name == "nasbench101"]
        rankings = _rankings({k: f for k, f in folders.items() if k in ranked}, studies.get(STUDY_RANKING))
        labelled = artifacts.read_csv(studies[STUDY_LABELS]) if STUDY_LABELS in studies else []
        huge = huge_tables.read_huge(studies[STUDY_HUGE]) if STUDY_HUGE in studies else []
        judged = [huge_tables.read_judged(studies[STUDY_OFA])] if STUDY_OFA in studies else []
        everything = [
            tables.locality_table(known, about),
            *_with_huge(tables.comparison_tables(compared, table_8), huge),
            tables.table_3(rankings),
            *label_curve.label_tables(labelled),
            *(tables.methods_table(c) for c in _best_known(compared)),
            *(huge_tables.judged_table(c) for c in judged),
            tables.not_yet_table(["Table 5"] if huge else []),
        ]
        words = [Words(f"{c.benchmark} ({c.where})", remarks(c.summary)) for c in (*_best_known(compared), *judged)]
        pictures, maps = [], {}
        for f in found:
            on_progress(f"drawing {f.benchmark.name}")
            ground = Ground.of(f.benchmark)
            pictures += _pictures(f, ground)
            maps[f.benchmark.name] = space_map(f.benchmark, ground.yardstick, f.spaces)
        pictures += [_ranking_picture(folder) for key, folder in folders.items() if key in ranked]
        pictures += label_curve.label_pictures(labelled)
        if judged and STUDY_OFA_EDF in studies:
            pictures.append(_judged_picture(judged[0], huge_tables.read_quantiles(studies[STUDY_OFA_EDF])))
        predicted = [*(c.benchmark for c in judged), *(h.space for h in huge)]
        made = report_files(words, everything, pictures, maps, _origin(found, study, predicted))
        metrics = {
            "benchmarks": len(found),
            "benchmarks_in_study": len({c.benchmark for c in study}),
            "tables": len(everything),
            "figures": len(pictures),
        }
        return {**made, "metrics.json": artifacts.to_json(metrics)}

    return run(out, parameters, work, force)


def read_study(path: Path) -> list[Compared]:
    """Return the comparisons of a committed study."""
    rows = artifacts.read_csv(path)
    out = []
    for name in dict.fromkeys(r["benchmark"] for r in rows):
        own = [r for r in rows if r["benchmark"] == name]
        table = benchmarks.get(name)
        out.append(Compared(name, table.metric, _full(table), STUDY, int(own[0]["seeds"]), own))
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
        raise LissnasError(f"{compared.folder} names architectures that are not in {name}; make it again with --force")
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


def _order(found: Sequence[Found], study: Sequence[Compared]) -> list[str]:
    return list(dict.fromkeys([*(f.benchmark.name for f in found), *(c.benchmark for c in study)]))


def _of(name: str, found: Sequence[Found], study: Sequence[Compared]) -> list[Compared]:
    return [*(f.compared for f in found if f.benchmark.name == name), *(c for c in study if c.benchmark == name)]


def _best_known(compared: Sequence[Compared]) -> list[Compared]:
    """Return one comparison a benchmark: the one over most seeds."""
    most: dict[str, Compared] = {}
    for c in compared:
        if c.benchmark not in most or c.seeds > most[c.benchmark].seeds:
            most[c.benchmark] = c
    return list(most.values())


def _locality(
    found: Sequence[Found], study: Path | None
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, dict[str, Any]]]:
    """Return rows and limits by benchmark: the pipeline's, and the study's for the others."""
    rows: dict[str, list[Mapping[str, Any]]] = {f.benchmark.name: list(f.locality) for f in found}
    about: dict[str, dict[str, Any]] = {}
    for f in found:
        check = f.about["sample_check"]["share_not_rejected"]
        about[f.benchmark.name] = {**f.about, "share_not_rejected": check}
    if study is not None:
        others = artifacts.read_csv(study)
        for name in dict.fromkeys(r["benchmark"] for r in others):
            if name not in rows:
                rows[name] = [r for r in others if r["benchmark"] == name]
                about[name] = dict(rows[name][0])
    return rows, about


def _rankings(folders: Mapping[str, Path], study: Path | None) -> list[dict[str, Any]]:
    """Return the rows of rankings, the pipeline's and the study's, with where they come from."""
    rows: list[dict[str, Any]] = []
    for key, folder in folders.items():
        name = key.partition("/")[2]
        rows += [{"benchmark": name, "origin": PIPELINE, **r} for r in artifacts.read_csv(folder / "summary.csv")]
    if study is not None:
        rows += [{"origin": STUDY, **r} for r in artifacts.read_csv(study)]
    return [{**r, "where": f"{r['origin']}, {r['seeds']} seed{'s' if r['seeds'] > 1 else ''}"} for r in rows]


def _with_huge(listed: Sequence[Table], huge: Sequence[Huge]) -> list[Table]:
    """Return tables with Table 5 before Table 6, and in both what is known of spaces too large to list."""
    out: list[Table] = []
    for table in listed:
        out += [table_5(huge), table_6(table, huge)] if table.name == "Table 6" else [table]
    return out


def _judged_picture(c: Compared, values: Mapping[str, FloatArray]) -> Picture:
    return Picture(
        f"Error EDF, {c.benchmark}",
        "Share of each shrunk space within a distance of the best predicted value of all, the full space by a uniform "
        "sample; first seed. A surrogate's values, not those of trained networks.",
        comparison.edfs(values, huge_tables.window(values), c.benchmark, c.metric),
    )


def _ranking_picture(folder: Path) -> Picture:
    outcome = Outcome(folder, {}, reused=True)
    name = str(outcome.json("metrics.json")["benchmark"])
    return Picture(
        f"What supernets say of networks of ours, {name}",
        "Accuracy with a supernet's weights against the tabulated value, a panel a trained space; first seed.",
        figures.ranking(outcome.table("scores.parquet").to_pylist(), name, benchmarks.get(name).metric),
    )


def _pictures(f: Found, ground: Ground) -> list[Picture]:
    name, metric = f.benchmark.name, f.benchmark.metric
    values = {"full space": f.benchmark.values, **{m: f.benchmark.look_up(k) for m, k in f.spaces.items()}}
    out = [
        Picture(
            f"Figure 2: locality, {name}",
            "Correlation with the original and mean absolute difference at exact edit distance, and the "
            "autocorrelation along random walks; bands are bootstrap 95 % intervals.",
            figures.locality(f.locality, f.walk, f.about["threshold_distance"], name, metric),
        ),
        Picture(
            f"Figures 4 and 8: error EDF, {name}",
            "Share of each shrunk space within a distance of the best value of all; first seed.",
            comparison.edfs(values, ground.window, name, metric),
        ),
    ]
    if "flops" in ground.yardstick.costs:
        space, full = f.benchmark.space, ground.yardstick.costs["flops"]
        every = space.enumerate()
        keys = space.key(every)
        counts = {"full space": ground.yardstick.histogram("flops", full).tolist()}
        for method, own in f.spaces.items():
            flops = full[np.searchsorted(keys, own)]
            counts[method] = ground.yardstick.histogram("flops", flops).tolist()
        chosen = {m: counts[m] for m in HISTOGRAMS if m in counts}
        edges = [float(full.min()), *ground.yardstick.edges("flops").tolist(), float(full.max())]
        out.append(
            Picture(
                f"Figure 5: FLOPs kept, {name}",
                "Share of each space in 20 equal bins of the full space's range of multiply-adds; first seed.",
                comparison.cost_histograms(chosen, edges, "multiply-adds", name),
            )
        )
    out.append(
        Picture(
            f"Figure 7: accuracy differences, {name}",
            "How far apart the values are of networks at an exact edit distance; the last bin holds the farthest 2 %.",
            figures.differences(f.differences, name, metric),
        )
    )
    out.append(
        Picture(
            f"Means of all methods, {name}",
            f"Mean true value of each method's space over {f.compared.seeds} seeds with 95 % intervals, and of ours "
            "cut to the same size; the size is in brackets. Our own variants and the ceiling are in italics.",
            comparison.means(f.compared.summary, name, metric, f.compared.full["mean"], REFERENCES),
        )
    )
    if "flops" in ground.yardstick.costs:
        out.append(
            Picture(
                f"Mean against FLOPs coverage, {name}",
                "Our curve over the knob `diversity`, and every method's point; up and to the right is better.",
                comparison.diversity(f.compared.summary, f.curve, name, metric),
            )
        )
    return out


def _origin(found: Sequence[Found], study: Sequence[Compared], predicted: Sequence[str]) -> str:
    text = (
        f"Rows from the pipeline: {', '.join(f.benchmark.name for f in found)}, {found[0].compared.seeds} seeds "
        "(dvc repro report)."
    )
    if study:
        text += f" Rows from the study: {len(study)} benchmarks, {study[0].seeds} seeds (make study NAME=compare)."
    text += " All values are real, tabulated accuracies"
    if not predicted:
        return f"{text}; no row here stands on a surrogate."
    return f"{text}, but those of {', '.join(dict.fromkeys(predicted))}, which are predicted: each table says by whom."
