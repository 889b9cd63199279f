"""Run the studies: the pipeline's code on more benchmarks and seeds; resumable, with results in studies/results/.

python -m studies --name compare     (or `make study NAME=compare`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import numpy as np
from rich.progress import track

from lissnas import benchmarks, spaces
from lissnas.artifacts import Outcome
from lissnas.cli import render
from lissnas.core import process
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.problem import Source, packaged
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.shrink import shrink_stage
from studies.huge import huge
from studies.labels import labels
from studies.packaged import packaged_labels
from studies.predictors import predictors
from studies.run import WORK, Rows, run_study, study_params, table
from studies.scaling import scaling

SHRINK_COLUMNS = ("size", "queries", "labels", "mean_true", "kept_best", "top10_kept", "p_good", "shrink_index")
OFA = "ofa_mobilenetv3"
OFA_SETTINGS: dict[str, Any] = {
    # Each method queries the surrogate 2.5 million times; a target of a million would take ten times that, hours.
    "shrink.target_size": 100_000,
    "pipeline.seeds": [0, 1, 2],
    # Left out: naive shares (top30, ...), which have no target size, and methods that need a table or other tasks.
    "compare.methods": [
        m for m, one in METHODS.items() if not one.needs_table and not one.transfer and not m.startswith("top")
    ],
    "compare.diversities": [0.05, 0.5],
}


def shrink() -> tuple[Rows, str]:
    """Run both variants of the method on every benchmark."""
    rows: list[dict[str, Any]] = []
    seeds = study_params().pipeline.seeds
    tasks = list(product(benchmarks.names(), ("elite", "paper"), seeds))
    for name, variant, seed in track(tasks, "shrinking", console=process.err):
        out, params = WORK / name / variant / f"seed-{seed}", study_params({"shrink.variant": variant})
        metrics = shrink_stage(params, Source.of(benchmarks.get(name)), seed, out).metrics
        rows.append({"benchmark": name, "variant": variant, "seed": seed, **{c: metrics[c] for c in SHRINK_COLUMNS}})
    cells = []
    for (name, variant), group in groupby(rows, itemgetter("benchmark", "variant")):
        runs, full = list(group), benchmarks.get(name).values
        mean = {c: float(np.mean([r[c] for r in runs])) for c in SHRINK_COLUMNS}
        cells.append(
            {
                "benchmark": name,
                "variant": variant,
                "size": f"{mean['size']:,.0f}",
                "mean, full": f"{full.mean():.4g}",
                "mean, shrunk": f"{mean['mean_true']:.4f}",
                "least": f"{min(r['mean_true'] for r in runs):.4f}",
                "gain": f"{(mean['mean_true'] - full.mean()) / full.std():.3f}",
                "best kept": f"{sum(r['kept_best'] for r in runs)}/{len(runs)}",
                "of ten best": f"{mean['top10_kept']:.1f}",
                "queries": f"{mean['queries']:,.0f}",
                "labels": f"{mean['labels']:,.0f}",
            }
        )
    note = (
        f"Means over {len(seeds)} seeds; gain is (mean of the shrunk space - mean of the full one) / standard "
        "deviation of the full one."
    )
    return rows, f"{note}\n\n{table(cells)}"


def on_each(
    names: Sequence[str], page: str, stage: Callable[[str, Callable[[str], None]], Outcome]
) -> tuple[list[dict[str, Any]], str]:
    """Run `stage(name, log)` on each benchmark; return the rows of their summaries and their joined pages."""
    rows, pages = [], []
    for name in names:
        with render.lines(name) as line:
            outcome = stage(name, line)
        rows += [{"benchmark": name, **row} for row in outcome.csv("summary.csv")]
        pages.append((outcome.folder / page).read_text().replace("# ", "## ", 1))
    return rows, "\n".join(pages)


def compare() -> tuple[Rows, str]:
    """Compare all methods on the study's benchmarks."""
    params = study_params()

    def stage(name: str, line: Callable[[str], None]) -> Outcome:
        benchmark, seeds = benchmarks.get(name), params.pipeline.seeds
        methods = chosen(params.compare.methods, Source.of(benchmark))
        return compare_stage(params, benchmark, methods, seeds, WORK / "compare" / name, on_progress=line)

    return on_each(params.pipeline.benchmarks, "comparison.md", stage)


def compare_ofa() -> tuple[Rows, str]:
    """Compare methods at equal size on Once-for-All MobileNetV3, scored by its predictor of ImageNet accuracy."""
    params, source, out = study_params(OFA_SETTINGS), packaged(spaces.get(OFA)), WORK / "compare" / OFA
    methods, seeds = chosen(params.compare.methods, source), params.pipeline.seeds
    rows, page = on_each(
        [OFA],
        "comparison.md",
        lambda _, line: compare_stage(params, source, methods, seeds, out, on_progress=line),
    )
    rows = [{"benchmark": OFA, "metric": source.metric, **row} for row in rows]
    return rows, f"Target {OFA_SETTINGS['shrink.target_size']:,}.\n\n{page}"


def locality() -> tuple[Rows, str]:
    """Measure locality on every benchmark."""
    rows: list[dict[str, Any]] = []
    for name in track(benchmarks.names(), "measuring", console=process.err):
        outcome = locality_stage(study_params(), benchmarks.get(name), WORK / "locality" / name)
        about = outcome.json("locality.json")
        limits = {key: about[key] for key in ("threshold_distance", "max_edits")}
        limits["share_not_rejected"] = about["sample_check"]["share_not_rejected"]
        rows += [{"benchmark": name, **row, **limits} for row in outcome.table("locality.parquet").to_pylist()]
    cells = [
        {
            "benchmark": r["benchmark"],
            "edits": str(r["distance"]),
            "kind": r["change"],
            "pairs": f"{r['n']:,}",
            "correlation": f"{r['correlation']:.3f} ({r['correlation_low']:.3f} to {r['correlation_high']:.3f})",
            "mean difference": f"{r['aad']:.4g} ({r['aad_low']:.4g} to {r['aad_high']:.4g})",
            "median": f"{r['aad_median']:.3g}",
            "threshold distance": str(r["threshold_distance"]),
        }
        for r in rows
    ]
    note = "Correlation and mean absolute difference at exact edit distance (95 % interval)."
    return rows, f"{note}\n\n{table(cells)}"


def ranking() -> tuple[Rows, str]:
    """Train supernets on the full space and on spaces shrunk by each method; measure how well they rank networks."""
    from lissnas.stages.ranking import ranking_stage  # torch takes seconds to load

    params = study_params()

    def stage(name: str, line: Callable[[str], None]) -> Outcome:
        return ranking_stage(
            params,
            benchmarks.get(name),
            WORK / "ranking" / name,
            on_progress=line,
            on_training=lambda what, p: line(render.training_line(what, p)),
        )

    rows, page = on_each([*params.ranking.benchmarks], "ranking.md", stage)
    recipes = {name: one.recipe for name, one in params.ranking.benchmarks.items()}
    return [{"benchmark": r["benchmark"], "recipe": recipes[r["benchmark"]], **r} for r in rows], page


if __name__ == "__main__":
    run_study(
        {
            "shrink": shrink,
            "compare": compare,
            "compare_ofa": compare_ofa,
            "huge": huge,
            "scaling": scaling,
            "labels": labels,
            "locality": locality,
            "ranking": ranking,
            "packaged_labels": packaged_labels,
            "predictors": predictors,
        }
    )
