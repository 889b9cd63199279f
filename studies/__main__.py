"""The studies: the pipeline's code on more benchmarks and seeds; resumable, small results under studies/results/.

python -m studies --name compare     (or `make study NAME=compare`)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track

from lissnas import artifacts, benchmarks
from lissnas.cli import render
from lissnas.config import Params
from lissnas.core import process
from lissnas.core.errors import UnknownName
from lissnas.shrinkers import description
from lissnas.shrinkers.methods import chosen
from lissnas.shrinkers.problem import Source
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.shrink import shrink_stage
from studies import huge as huge_module
from studies import labels as labels_module
from studies import packaged
from studies import scaling as scaling_module
from studies.pages import PARAMS, RESULTS, WORK, leave, made_by

SUMMARY = "summary.csv"
SHRINK_COLUMNS = ("size", "queries", "labels", "mean_true", "kept_best", "top10_kept", "p_good", "shrink_index")


# -- shrink: both variants of the method on all benchmarks ------------------------------------------
def shrink_rows(params: Params) -> Iterator[dict[str, Any]]:
    """Yield a row for each benchmark, variant and seed, computed unless it is there already."""
    tasks = [(n, v, seed) for n in benchmarks.names() for v in ("elite", "paper") for seed in params.pipeline.seeds]
    for name, variant, seed in track(tasks, "shrinking", console=process.err):
        checked = description.load_params(PARAMS, {"shrink.variant": variant})
        out = WORK / name / variant / f"seed-{seed}"
        metrics = shrink_stage(checked, Source.of(benchmarks.get(name)), seed, out).metrics
        yield {"benchmark": name, "variant": variant, "seed": seed, **{c: metrics[c] for c in SHRINK_COLUMNS}}


def shrink_page(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table: means over seeds for each benchmark and variant."""
    lines = [
        f"{made_by('shrink')} Means over {len({r['seed'] for r in found})} seeds;",
        "gain is (mean of the shrunk space - mean of the full one) / standard deviation of the full one.",
        "",
        "| benchmark | variant | size | mean, full | mean, shrunk | least | gain | best kept "
        "| of ten best | queries | labels |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in dict.fromkeys((r["benchmark"], r["variant"]) for r in found):
        own = [r for r in found if (r["benchmark"], r["variant"]) == (name, variant)]
        full = benchmarks.get(name).values
        mean = {c: float(np.mean([r[c] for r in own])) for c in SHRINK_COLUMNS}
        least = min(r["mean_true"] for r in own)
        lines.append(
            f"| {name} | {variant} | {mean['size']:,.0f} | {full.mean():.4g} | {mean['mean_true']:.4f} | {least:.4f} | "
            f"{(mean['mean_true'] - full.mean()) / full.std():.3f} | {sum(r['kept_best'] for r in own)}/{len(own)} | "
            f"{mean['top10_kept']:.1f} | {mean['queries']:,.0f} | {mean['labels']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def shrink(params: Params) -> None:
    """Run both variants on every benchmark."""
    found = list(shrink_rows(params))
    leave("shrink", found, shrink_page(found))


# -- compare: every method ---------------------------------------------------------------------------
def compare(params: Params) -> None:
    """Compare all methods on the study's benchmarks."""
    rows: list[dict[str, Any]] = []
    pages = [made_by("compare")]
    for name in params.pipeline.benchmarks:
        methods = chosen(params.compare.methods)
        with render.lines(f"comparing on {name}") as on_progress:
            outcome = compare_stage(
                params,
                benchmarks.get(name),
                methods,
                params.pipeline.seeds,
                WORK / "compare" / name,
                on_progress=on_progress,
            )
        rows += [{"benchmark": name, **row} for row in outcome.csv(SUMMARY)]
        pages.append((outcome.folder / "comparison.md").read_text().replace("# Methods", "## Methods", 1))
    leave("compare", rows, "\n".join(pages))


# -- spaces too large to list: methods on one of them, and all of them shrunk -----------------------------
def compare_ofa(_: Params) -> None:
    """Compare methods on Once-for-All MobileNetV3, judged by a surrogate."""
    outcome = huge_module.ofa_outcome(PARAMS, WORK / "compare" / huge_module.OFA)
    leave("compare_ofa", list(huge_module.ofa_rows(outcome)), huge_module.ofa_page(outcome, made_by("compare_ofa")))
    artifacts.write(RESULTS / "compare_ofa_edf.csv", (outcome.folder / "edf.csv").read_bytes())


def huge(_: Params) -> None:
    """Shrink every huge space to the paper's size, and measure what that takes."""
    found = huge_module.huge_study(WORK / "huge")
    leave("huge", found, huge_module.huge_page(found, made_by("huge")))


def scaling(_: Params) -> None:
    """Measure what shrinks cost, at more and more queries."""
    found = scaling_module.scaling_study(WORK / "scaling")
    leave("scaling", found, scaling_module.scaling_page(found, made_by("scaling")))


# -- locality: every space with each of its tables ----------------------------------------------------
def locality(params: Params) -> None:
    """Measure locality on every benchmark."""
    rows: list[dict[str, Any]] = []
    for name in track(benchmarks.names(), "measuring", console=process.err):
        outcome = locality_stage(params, benchmarks.get(name), WORK / "locality" / name)
        about = artifacts.read_json(outcome.folder / "locality.json")
        limits = {key: about[key] for key in ("threshold_distance", "max_edits")}
        limits["share_not_rejected"] = about["sample_check"]["share_not_rejected"]
        rows += [{"benchmark": name, **row, **limits} for row in outcome.table("locality.parquet").to_pylist()]
    lines = [
        f"{made_by('locality')} Correlation and mean absolute difference at exact edit distance (95 % interval).",
        "",
        "| benchmark | edits | kind | pairs | correlation | mean difference | median | threshold distance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['benchmark']} | {r['distance']} | {r['change']} | {r['n']:,} | {r['correlation']:.3f} "
            f"({r['correlation_low']:.3f} to {r['correlation_high']:.3f}) | {r['aad']:.4g} ({r['aad_low']:.4g} to "
            f"{r['aad_high']:.4g}) | {r['aad_median']:.3g} | {r['threshold_distance']} |"
        )
    leave("locality", rows, "\n".join(lines) + "\n")


# -- ranking: supernets on the full space, on ours, on the rivals' --------------------------------------
def ranking(params: Params) -> None:
    """Train and judge supernets on the study's benchmarks."""
    from lissnas.stages.ranking import ranking_stage

    rows: list[dict[str, Any]] = []
    pages = [made_by("ranking")]
    for name in params.ranking.benchmarks:
        with render.lines(f"ranking on {name}") as line:
            outcome = ranking_stage(
                params,
                benchmarks.get(name),
                WORK / "ranking" / name,
                on_progress=line,
                on_training=lambda what, p: line(render.training_line(what, p)),
            )
        rows += [
            {"benchmark": name, "recipe": params.ranking.benchmarks[name].recipe, **row} for row in outcome.csv(SUMMARY)
        ]
        pages.append((outcome.folder / "ranking.md").read_text().replace("# Supernets", "## Supernets", 1))
    leave("ranking", rows, "\n".join(pages))


# -- labels: how many a space needs -----------------------------------------------------------------------
def labels(params: Params) -> None:
    """Shrink at growing budgets, labels uniform and collected."""
    found = labels_module.label_study(params, WORK / "labels")
    leave("labels", found, labels_module.labels_page(found, made_by("labels")))


# -- packaged labels: what stands for accuracies of spaces without a table ---------------------------------
def packaged_labels(_: Params) -> None:
    """Train small networks of the spaces without a table."""
    found = list(packaged.packaged_rows(PARAMS, WORK / "packaged_labels"))
    leave("packaged_labels", found, packaged.packaged_page(found, made_by("packaged_labels")))


STUDIES = {
    "labels": labels,
    "ranking": ranking,
    "shrink": shrink,
    "compare": compare,
    "compare_ofa": compare_ofa,
    "huge": huge,
    "scaling": scaling,
    "locality": locality,
    "packaged_labels": packaged_labels,
}


def command(name: Annotated[str, typer.Option(help=f"Which study: {', '.join(STUDIES)}.")] = "shrink") -> None:
    """Run a study, from where it was, and write studies/results/NAME.csv and NAME.md."""
    if name not in STUDIES:
        raise UnknownName("study", name, STUDIES)
    STUDIES[name](description.load_params(PARAMS, {}))


if __name__ == "__main__":
    process.run(lambda: typer.run(command))
