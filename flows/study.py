"""The acceptance study: every benchmark, both variants, ten seeds; resumable, results under results/.

python -m flows.study            (or `make study`; a few minutes on two cores)
"""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track

from lissnas import benchmarks, config, console, store
from lissnas.stages import shrink_stage

SEEDS = range(10)
COLUMNS = ("size", "queries", "labels", "mean_true", "kept_best", "top10_kept", "p_good", "shrink_index")
WORK = Path("data/study")


def rows(names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each benchmark, variant and seed, computed unless it is there already."""
    tasks = [(name, variant, seed) for name in names for variant in ("elite", "paper") for seed in SEEDS]
    for name, variant, seed in track(tasks, "shrinking", console=console.err):
        params = config.load(None, {"shrink.variant": variant}, benchmarks.names())
        out = WORK / name / variant / f"seed-{seed}"
        metrics = shrink_stage(params, benchmarks.get(name), seed, out).metrics
        yield {"benchmark": name, "variant": variant, "seed": seed, **{c: metrics[c] for c in COLUMNS}}


def summary(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table: means over seeds for each benchmark and variant."""
    lines = [
        f"Made by `make study` on {platform.machine()}, Python {platform.python_version()}. Means over ten seeds;",
        "gain is (mean of the shrunk space - mean of the full one) / standard deviation of the full one.",
        "",
        "| benchmark | variant | size | mean, full | mean, shrunk | least | gain | best kept "
        "| of ten best | queries | labels |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in dict.fromkeys((r["benchmark"], r["variant"]) for r in found):
        own = [r for r in found if (r["benchmark"], r["variant"]) == (name, variant)]
        full = benchmarks.get(name).values
        mean = {c: float(np.mean([r[c] for r in own])) for c in COLUMNS}
        least = min(r["mean_true"] for r in own)
        lines.append(
            f"| {name} | {variant} | {mean['size']:,.0f} | {full.mean():.4g} | {mean['mean_true']:.4f} | {least:.4f} | "
            f"{(mean['mean_true'] - full.mean()) / full.std():.3f} | {10 * mean['kept_best']:.0f}/10 | "
            f"{mean['top10_kept']:.1f} | {mean['queries']:,.0f} | {mean['labels']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def command(
    name: Annotated[str, typer.Option(help="Which study; `shrink` is the only one so far.")] = "shrink",
) -> None:
    """Run the study and write results/shrink.csv and results/shrink.md."""
    if name != "shrink":
        raise typer.BadParameter(f"unknown study {name!r}; known: shrink")
    found = list(rows(benchmarks.names()))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    store.write(Path("results/shrink.csv"), sink.getvalue().encode())
    store.write(Path("results/shrink.md"), summary(found).encode())
    console.out.print("results/shrink.md, results/shrink.csv")


if __name__ == "__main__":
    console.run(lambda: typer.run(command))
