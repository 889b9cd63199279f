"""Compare methods on the study's benchmarks, and on Once-for-All MobileNetV3, with one correction over all tests."""

from __future__ import annotations

from typing import Any

from lissnas import benchmarks, spaces
from lissnas.artifacts import Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import render
from lissnas.config import Params
from lissnas.shrinkers.comparison import FullSpaceStatistics
from lissnas.shrinkers.comparison_summary import corrected, verdict_lines
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.problem import Source, packaged
from lissnas.stages.compare import TIMED, compare_stage, markdown
from studies.run import WORK, Rows, study_params

N_SEEDS = 20
N_SEEDS_SMALL = 30
"""Seeds on tables of less than `SMALL` architectures, which are fast."""
SMALL = 10_000
OFA = "ofa_mobilenetv3"
OFA_SETTINGS: dict[str, Any] = {
    # Each method queries the surrogate 2.5 million times; a target of a million would take ten times that, hours.
    "shrink.target_size": 100_000,
    "pipeline.seeds": [0, 1, 2],
    # Left out: naive shares (top30, ...), which have no target size, and methods that need a table or other tasks.
    "compare.methods": [
        m
        for m, one in METHODS.items()
        if not (one.needs_table or one.needs_listing or one.transfer or m.startswith("top"))
    ],
    "compare.diversities": [0.05, 0.5],
}


def compare() -> tuple[Rows, str]:
    """Compare all methods on the study's benchmarks."""
    sources = [benchmarks.get(name) for name in study_params().pipeline.benchmarks]
    rows: list[dict[str, Any]] = []
    for source in sources:
        seeds = range(N_SEEDS_SMALL if source.space.size() < SMALL else N_SEEDS)
        outcome = _compared(study_params({"pipeline.seeds": list(seeds)}), source)
        seconds = outcome.table(TIMED).group_by("method").aggregate([("seconds", "mean")]).to_pydict()
        taken = dict(zip(seconds["method"], seconds["seconds_mean"], strict=True))
        summary = outcome.csv("summary.csv")
        rows += [{"benchmark": source.name, **row, "seconds": taken[row["method"]]} for row in summary]
    rows = corrected(rows)
    verdicts = "\n".join(f"- {line}" for line in verdict_lines(rows))
    pages = [
        markdown(FullSpaceStatistics.of(source), [row for row in rows if row["benchmark"] == source.name])
        for source in sources
    ]
    return rows, "\n".join([f"{len(sources)} tables of three spaces.\n\n{verdicts}\n", *(_lower(p) for p in pages)])


def compare_ofa() -> tuple[Rows, str]:
    """Compare methods at equal size on Once-for-All MobileNetV3, scored by its predictor of ImageNet accuracy."""
    source = packaged(spaces.get(OFA))
    outcome = _compared(study_params(OFA_SETTINGS), source)
    rows = [{"benchmark": OFA, "metric": source.metric, **row} for row in outcome.csv("summary.csv")]
    page = _lower((outcome.folder / "comparison.md").read_text(encoding="utf-8"))
    return rows, f"Target {OFA_SETTINGS['shrink.target_size']:,}.\n\n{page}"


def _compared(params: Params, given: Benchmark | Source) -> Outcome:
    source = given if isinstance(given, Source) else Source.of(given)
    methods, out = chosen(params.compare.methods, source), WORK / "compare" / source.name
    with render.lines(source.name) as line:
        return compare_stage(params, given, methods, params.pipeline.seeds, out, on_progress=line)


def _lower(page: str) -> str:
    """Return a page with its title one level lower."""
    return page.replace("# ", "## ", 1)
