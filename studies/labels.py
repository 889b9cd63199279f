"""Compare uniform labels with the default, labels collected during the shrink, at growing label budgets.

python -m studies --name labels     (or `make study NAME=labels`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from lissnas import artifacts, benchmarks
from lissnas.config import Params, ShrinkParams, shrink_params
from lissnas.core import process
from lissnas.plots import figures
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import metrics_of
from lissnas.stages.report.label_curve import COLLECTED, SIX_ROUNDS, UNIFORM, label_figure, label_tables
from studies.run import WORK, Rows, study_params

BUDGETS = (50, 100, 200, 300, 500, 1_000, 2_000, 10_000)
MAX_SHARE = 0.8
"""Largest share of a space to label: a larger one leaves too little to predict."""
SEEDS = 5
METHODS = {
    UNIFORM: {"first_labels": 1.0, "label_rounds": 0},
    COLLECTED: {"first_labels": 0.4, "label_rounds": 3},
    SIX_ROUNDS: {},
}
"""Changes of each mode to the default."""
ONLY = {SIX_ROUNDS: (100, 300, 1_000)}
"""Budgets of modes that run with only some of them."""
FIELDS = ("labels", "size", "queries", "mean_true", "kept_best", "top10_kept")
PICTURE = Path("docs/pictures/label_curve.png")


def chosen_params(params: Params, mode: str, budget: int) -> Params:
    """Return the parameters of a shrink with this label budget in this mode."""
    elite = params.shrink.elite.model_copy(update=METHODS[mode])
    chosen = params.shrink.model_copy(update={"labels": budget, "variant": "elite", "elite": elite})
    return params.model_copy(update={"shrink": chosen})


def labels() -> tuple[Rows, str]:
    """Shrink at growing label budgets with uniform and collected labels; draw the curve."""
    params = study_params()
    names, seeds = params.pipeline.benchmarks, params.pipeline.seeds[:SEEDS]
    rows = list(label_rows(params, WORK / "labels", names, BUDGETS, seeds))
    artifacts.write(PICTURE, figures.png(label_figure(rows)))
    return rows, labels_page(rows)


def label_rows(
    params: Params, work: Path, names: Sequence[str], budgets: Sequence[int], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each benchmark, mode, affordable budget and seed; finished runs are reused."""
    tasks = [
        (name, mode, budget, seed)
        for name, budget, mode, seed in product(names, budgets, METHODS, seeds)
        if budget <= MAX_SHARE * benchmarks.get(name).space.size() and budget in ONLY.get(mode, budgets)
    ]
    for name, mode, budget, seed in track(tasks, "shrinking", console=process.err):
        source = Source.of(benchmarks.get(name))
        p = shrink_params(chosen_params(params, mode, budget), name, seed, source.space.size(), source.digest)
        out = work / name / f"{mode}-{budget}" / f"seed-{seed}"
        metrics = artifacts.run(out, p.model_dump(mode="json"), partial(_shrunk, p, source), False).metrics
        values = np.sort(benchmarks.get(name).values)
        gain, possible = (
            (mean - float(values.mean())) / float(values.std())
            for mean in (metrics["mean_true"], float(values[-metrics["size"] :].mean()))
        )
        row = {"benchmark": name, "mode": mode, "budget": budget, "seed": seed, **{c: metrics[c] for c in FIELDS}}
        yield {**row, "gain": gain, "possible": possible}


def _shrunk(p: ShrinkParams, source: Source) -> dict[str, bytes]:
    return {"metrics.json": artifacts.to_json(metrics_of(shrink(Problem(source, p, threads=1))))}


def labels_page(rows: Rows) -> str:
    """Return the tables of the study as Markdown, with titles and remarks."""
    return "\n\n".join(
        "\n".join([f"## {one.title}", "", artifacts.to_markdown(one.columns, one.rows), "", *one.remarks]).rstrip()
        for one in label_tables(rows)
    )
