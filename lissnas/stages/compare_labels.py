"""The comparison on a part of the labels: its tasks, and the files of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

from lissnas import artifacts
from lissnas.artifacts.journal import Journal
from lissnas.artifacts.stage_run import How, ignore, run_here
from lissnas.config import Params
from lissnas.shrinkers import held_out
from lissnas.shrinkers.comparison import ComparisonRun, FullSpaceStatistics, start_comparison
from lissnas.shrinkers.comparison_summary import in_sign
from lissnas.shrinkers.methods import REFERENCES
from lissnas.shrinkers.own_table import MIN_EVALUATED
from lissnas.shrinkers.plugin import identity
from lissnas.shrinkers.problem import Source

Call: TypeAlias = Callable[..., Any]

BEFORE = "  from before"
"""Suffix of the progress line of a task that an interrupted run finished."""


def compared(
    journal: Journal, source: Source, params: Params, methods: Sequence[str], seeds: Sequence[int], how: How
) -> dict[str, bytes]:
    """Run the methods for all seeds, except finished tasks in the journal, and return the files of the result."""
    full, rows = FullSpaceStatistics.of(source), list[dict[str, Any]]()
    call, threads = how.get("call", run_here), how.get("threads", 0)
    for seed in seeds:
        opened = cache(partial(call, start_comparison, full, params, seed, threads, name=f"open seed {seed}"))
        for name in methods:
            there, task = len(journal.records), f"{name} seed {seed}"
            rows.append(journal.once([identity(name), seed], partial(_run_method, call, opened, name, task)))
            line = _line(in_sign(rows[-1:], source.sign)[0], len(rows), len(seeds) * len(methods))
            how.get("on_progress", ignore)(line if len(journal.records) > there else f"{line}{BEFORE}")
    rows.sort(key=lambda row: methods.index(row["method"]))  # stable: by seed for each method
    summary = in_sign(held_out.summarise(rows), source.sign)
    rows = in_sign(rows, source.sign)
    return {
        "comparison.parquet": artifacts.rows_to_parquet(rows),
        "comparison.csv": artifacts.to_csv(rows),
        "summary.csv": artifacts.to_csv(summary),
        "comparison.md": markdown(full, summary).encode(),
        "metrics.json": artifacts.to_json(_metrics(source, summary)),
    }


def _run_method(call: Call, opened: Callable[[], ComparisonRun], name: str, task: str) -> dict[str, Any]:
    found: dict[str, Any] = call(held_out.run_method, opened(), name, name=task)
    return found


def _line(row: Mapping[str, Any], done: int, total: int) -> str:
    mean = f"fewer than {MIN_EVALUATED}, no mean" if row["mean_true"] is None else f"mean {row['mean_true']:.4g}"
    ours = "" if row["ours_minus"] is None else f" (ours at that size {row['ours_mean_true']:.4g})"
    return (
        f"{done:>3}/{total}  {row['method']:<15} seed {row['seed']:>2}  size {row['size']:>7,}  "
        f"queries {row['queries']:>7,}  evaluated {row['evaluated']:>5,}  {mean}{ours}"
    )


def _metrics(source: Source, summary: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rivals = [r for r in summary if r["method"] not in REFERENCES]
    return {
        "benchmark": source.name,
        **source.stated,
        "seeds": summary[0]["seeds"],
        "rivals": len(rivals),
        "held_out": int(summary[0]["held_out"]),
        "rivals_evaluated": sum(r["ours_minus"] is not None for r in rivals),
        "rivals_behind_on_mean": sum(r["ours_minus"] is not None and source.sign * r["ours_minus"] > 0 for r in rivals),
        "mean_true": {r["method"]: r["mean_true"] for r in summary},
    }


def markdown(full: FullSpaceStatistics, summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown page: what was measured, one row for each method, remarks."""
    source, first, values = full.source, summary[0], full.source.sign * full.values
    best = source.sign * full.values.max()
    good, percentile = ("below", "20th") if source.minimize else ("above", "80th")
    n, learned, seeds = len(full.values), len(full.values) - int(first["held_out"]), first["seeds"]
    text = (
        f"{source.space.size():,} architectures, {n:,} of them with labels: mean {values.mean():.4g}, best "
        f"{best:.4g} ({source.metric_label}). {'. '.join(source.notes)}.\n\n"
        f"In each of {seeds} seed{'s' if seeds > 1 else ''}, one predictor learns from {learned:,} labels, drawn "
        f"uniformly; the other {n - learned:,} are held out. All methods query that predictor, within the query budget "
        "that `lissnas` used. *Evaluated* is the mean number of held-out labels in a method's space; values are of "
        "these. Intervals are 95 %, averaged over the seeds, which split the same labels. *Difference* is the mean of "
        "ours, the best architectures that `lissnas` saw, cut to the method's size, less the method's. Good is "
        f"{good} the labels' {percentile} percentile. The means are those of the spaces if the labels are a uniform "
        "sample."
    )
    cells = [method_cells(r) for r in summary]
    table = artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells])
    notes = [f"- {line}" for line in held_out.remarks(summary, source.sign)]
    return "\n".join([f"# Methods compared on labels of {source.name}", "", text, "", table, "", *notes, ""])


def method_cells(r: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a method's summary by column."""
    cells = {
        "method": r["method"],
        "size": f"{r['size']:,.0f}",
        "queries": f"{r['queries']:,.0f}",
        "evaluated": f"{r['evaluated']:,.0f}",
        "mean": "too few",
        "ours, same size": "",
        "difference": "",
        "95 %": "",
        "ahead": f"{r['ours_ahead']}/{r['ours_compared']}",
        "good": "",
    }
    if r["mean_true"] is not None:
        cells |= {
            "mean": f"{r['mean_true']:#.5g} ± {(r['mean_true_high'] - r['mean_true_low']) / 2:.2g}",
            "good": f"{100 * r['p_good']:.0f} % ({100 * r['p_good_low']:.0f} to {100 * r['p_good_high']:.0f})",
        }
    if r["ours_minus"] is not None:
        cells |= {
            "ours, same size": f"{r['ours_mean_true']:#.5g}",
            "difference": f"{r['ours_minus']:+.3g}",
            "95 %": f"{r['ours_minus_low']:+.2g} to {r['ours_minus_high']:+.2g}",
        }
    coverage = r.get("flops_coverage")
    return cells | {"FLOPs coverage": "" if coverage is None else f"{coverage:.2f}"}
