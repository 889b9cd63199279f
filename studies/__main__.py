"""Run the studies: the pipeline's code on more benchmarks and seeds; resumable, with results in studies/results/.

python -m studies --name compare     (or `make study NAME=compare`)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import numpy as np
from rich.progress import track

from lissnas import benchmarks
from lissnas.artifacts import Outcome
from lissnas.cli import render
from lissnas.core import process
from lissnas.shrinkers.problem import Source
from lissnas.stages.locality import locality_stage
from lissnas.stages.shrink import shrink_stage
from studies.compare import compare, compare_ofa
from studies.huge import huge
from studies.labels import labels
from studies.network import network
from studies.packaged import packaged_labels
from studies.predictors import predictors
from studies.run import WORK, Rows, run_study, study_params, table
from studies.scaling import scaling

SHRINK_COLUMNS = ("size", "queries", "labels", "mean_true", "kept_best", "top10_kept", "p_good", "shrink_index")


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

    rows, pages = [], []
    for name in params.ranking.benchmarks:
        with render.lines(name) as line:
            outcome = stage(name, line)
        rows += [{"benchmark": name, **row} for row in outcome.csv("summary.csv")]
        pages.append((outcome.folder / "ranking.md").read_text().replace("# ", "## ", 1))
    page = "\n".join(pages)
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
            "network": network,
            "ranking": ranking,
            "packaged_labels": packaged_labels,
            "predictors": predictors,
        }
    )
