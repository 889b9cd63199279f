"""The compare stage: all methods and seeds on one benchmark, as resumable tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.journal import TASKS, Journal
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import BenchmarkConfig, Params
from lissnas.core.errors import UserError
from lissnas.plots import comparison as figures
from lissnas.plots.figures import png
from lissnas.shrinkers import comparison
from lissnas.shrinkers.comparison import FullSpaceStatistics, MethodResult, start_comparison
from lissnas.shrinkers.methods import REFERENCES, chosen
from lissnas.shrinkers.problem import Source

BEFORE = "  from before"
"""Suffix of the progress line of a task that an interrupted run finished."""
TIMED = "comparison.parquet"
"""The table of the comparison with a column `seconds`; `comparison.csv` is without it, hence reproducible."""


@remote_out
def compare_stage(
    params: Params,
    given: Benchmark | Source,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    **how: Unpack[How],
) -> Outcome:
    """Compare methods on a benchmark, or on a space that a surrogate evaluates.

    After an interruption, the same command resumes with the remaining tasks.
    """
    source = comparison.source_of(given)
    if not methods or not seeds:
        raise UserError("a comparison needs at least one method and one seed; see --methods and --seeds")
    chosen(methods, source)  # raises before anything is written
    comparison.comparison_params(params, source, seeds[0])
    own = params.benchmarks.get(source.name, BenchmarkConfig())
    common = {
        "benchmark": source.name,
        "table_sha256": source.digest,
        "diversities": params.compare.diversities,
        "predictor": params.predictor.model_dump(mode="json", exclude={"held_out"}),
        "shrink": params.shrink.model_dump(mode="json", exclude={"variant"}),
        "own": own.model_dump(mode="json", exclude={"width"}),
    }
    parameters = {**common, "methods": list(methods), "seeds": list(seeds)}
    call, threads = how.get("call", run_here), how.get("threads", 0)

    def work() -> dict[str, bytes]:
        # A task does not depend on the other tasks, so the journal's key excludes methods and seeds.
        with Journal.opened(artifacts.tasks_of(out) / TASKS, {**common, "format": 2}, others="replace") as journal:
            return compared(journal)

    def compared(journal: Journal) -> dict[str, bytes]:
        full_space = FullSpaceStatistics.of(source)
        entries: dict[tuple[str, int], MethodResult] = {}
        curve: list[dict[str, Any]] = []
        for seed in seeds:
            curve += compared_seed(journal, full_space, seed, entries)
        return _files(full_space, methods, seeds, entries, curve)

    def compared_seed(
        journal: Journal, full_space: FullSpaceStatistics, seed: int, entries: dict[tuple[str, int], MethodResult]
    ) -> list[dict[str, Any]]:
        opened = cache(lambda: call(start_comparison, full_space, params, seed, threads, name=f"open seed {seed}"))

        def run_method(name: str) -> dict[str, Any]:
            entry = call(comparison.run_method, opened(), name, name=f"{name} seed {seed}")
            return {"row": dict(entry.row), "keys": entry.keys.tolist(), "values": entry.values.tolist()}

        def run_curve() -> Any:
            arguments = opened(), params.compare.diversities, sizes
            return call(comparison.diversity_curve, *arguments, name=f"curve seed {seed}")

        for name in methods:
            there = len(journal.records)
            made = journal.once([name, seed], partial(run_method, name))
            entry = MethodResult(made["row"], np.array(made["keys"], np.uint64), np.array(made["values"]))
            entries[name, seed] = entry
            line = _line(entry.row, len(entries), len(seeds) * len(methods))
            how.get("on_progress", ignore)(line if len(journal.records) > there else f"{line}{BEFORE}")
        sizes = {name: int(entries[name, seed].row["size"]) for name in methods}
        rows: list[dict[str, Any]] = journal.once(["curve", seed, sizes], run_curve)
        return rows

    return run(out, parameters, work, how.get("force", False), timed=(TIMED,))


def _line(row: Mapping[str, Any], done: int, total: int) -> str:
    return (
        f"{done:>3}/{total}  {row['method']:<15} seed {row['seed']:>2}  size {row['size']:>7,}  "
        f"queries {row['queries']:>7,}  mean {row['mean_true']:.4g} (ours at that size {row['ours_mean_true']:.4g})"
    )


def _files(
    full: FullSpaceStatistics,
    methods: Sequence[str],
    seeds: Sequence[int],
    entries: Mapping[tuple[str, int], MethodResult],
    curve: Sequence[Mapping[str, Any]],
) -> dict[str, bytes]:
    source = full.source
    every = [entries[name, seed] for name in methods for seed in seeds]
    rows, window = comparison.against_best_known(full, every)
    untimed = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    summary = comparison.summarise(rows, curve)
    first = {name: entries[name, seeds[0]] for name in methods}
    values = {"full space": full.values, **{name: entry.values for name, entry in first.items()}}
    title = f"{source.name}: {len(methods)} methods, {len(seeds)} seeds"
    files = {
        TIMED: artifacts.rows_to_parquet(rows),
        "comparison.csv": artifacts.to_csv(untimed),
        "summary.csv": artifacts.to_csv(summary),
        "diversity.parquet": artifacts.rows_to_parquet(curve),
        "spaces.parquet": artifacts.to_parquet(
            {
                "method": np.repeat(list(first), [len(entry.keys) for entry in first.values()]),
                "key": np.concatenate([entry.keys for entry in first.values()]),
            }
        ),
        "comparison.md": markdown(full, summary).encode(),
        "comparison.png": png(figures.means(summary, title, source.metric, float(full.values.mean()), REFERENCES)),
        "edf.png": png(figures.edfs(values, window, title, source.metric)),
        "metrics.json": artifacts.to_json(_metrics(source.name, summary, len(seeds))),
    }
    if "flops" in full.diversity.costs:
        files["diversity.png"] = png(figures.diversity(summary, curve, title, source.metric))
    return files


def _metrics(name: str, summary: Sequence[Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    rivals = [r for r in summary if r["method"] not in REFERENCES]
    tabled = "kept_best" in summary[0]
    behind = {"rivals_behind_on_kept_best": sum(r["ours_kept_best"] >= r["kept_best"] for r in rivals if tabled)}
    return {
        "benchmark": name,
        "seeds": seeds,
        "rivals": len(rivals),
        "rivals_behind_on_mean": sum(r["ours_minus"] > 0 for r in rivals),
        **(behind if tabled else {}),
        "rivals_above_the_curve": sum(bool(r.get("above_curve")) for r in rivals),
        "mean_true": {r["method"]: r["mean_true"] for r in summary},
        "least_ours_minus": min((r["ours_minus"] for r in rivals), default=0.0),
    }


def markdown(full_space: FullSpaceStatistics, summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown page: what was measured, one row for each method, remarks."""
    values, source, seeds = full_space.values, full_space.source, summary[0]["seeds"]
    about = f"{source.metric}: mean {values.mean():.4g}, best {values.max():.4g}"
    common = f"Means over {seeds} seed{'s' if seeds > 1 else ''}; ± is half of the 95 % interval. All methods of a seed"
    ours = "*Ours* are the best architectures that `lissnas` saw, cut to the method's size"
    if source.truth is None:
        text = (
            f"{full_space.space.size():,} architectures; in a uniform sample of {len(values):,} {about}; "
            f"the best known value is {summary[0]['best_known']:.5g}. {'. '.join(source.notes)}.\n\n"
            f"{common} query the same surrogate directly, within the query budget that `lissnas` used. Sets are "
            f"evaluated on all members, products on a uniform sample of {comparison.N_EVALUATED:,}, so their best is "
            f"that of the sample. {ours}."
        )
    else:
        text = (
            f"{len(values):,} architectures, {about}. {common} query the same predictor, fitted once on uniform "
            "labels, within the query budget that `lissnas` used; only `lissnas_collect` collects labels while it "
            f"shrinks. {ours}; p is Wilcoxon's signed-rank test of the difference, Holm-corrected over the rivals."
        )
    cells = [method_cells(r) for r in summary]
    table = artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells])
    return "\n".join(
        [
            f"# Methods compared on {source.name}",
            "",
            text,
            "",
            table,
            "",
            *(f"- {line}" for line in remarks(summary)),
            "",
        ]
    )


def method_cells(r: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a method's summary by column; the columns depend on whether true values exist."""
    seeds = r["seeds"]
    cells = {
        "method": r["method"],
        "size": f"{r['size']:,.0f}",
        "queries": f"{r['queries']:,.0f}",
        "mean": f"{r['mean_true']:#.5g} ± {(r['mean_true_high'] - r['mean_true_low']) / 2:.2g}",
        "ours, same size": f"{r['ours_mean_true']:#.5g}",
        "difference": f"{r['ours_minus']:+.3g}",
        "ahead": f"{r['ours_ahead']}/{seeds}",
    }
    if "kept_best" in r:
        cells |= {
            "p": "" if r["p_holm"] is None else f"{r['p_holm']:.3f}",
            "best kept": f"{seeds * r['kept_best']:.0f}/{seeds}",
            "ours keeps it": f"{seeds * r['ours_kept_best']:.0f}/{seeds}",
            "of ten best": f"{r['top10_kept']:.1f}",
        }
    else:
        cells |= {"best": f"{r['max_true']:#.5g}", "ours, same size's best": f"{r['ours_max_true']:#.5g}"}
    coverage = r.get("flops_coverage")
    return cells | {
        "good": f"{100 * r['p_good']:.0f} %",
        "EDF area": f"{r['edf_auc']:.3f}",
        "FLOPs coverage": "" if coverage is None else f"{coverage:.2f}",
        "above our curve": {None: "", True: "yes", False: "no"}[r.get("above_curve")],
    }


def remarks(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return remarks on a summary: which rivals ours does not beat, and limits of the comparison."""
    by_name = {r["method"]: r for r in summary}
    rivals = [r for r in summary if r["method"] not in REFERENCES]

    def claim(holds: str, exceptions: str, names: list[str]) -> str:
        return f"{holds}." if not names else f"{exceptions}: {', '.join(names)}."

    lines = [
        claim(
            "At equal size, the mean of ours is ahead of the listed rivals as implemented; a plain best-first search "
            "is on par (under study)",
            "At equal size, the mean of ours is not ahead of",
            [r["method"] for r in rivals if r["ours_minus"] <= 0],
        )
    ]
    if "kept_best" in summary[0]:
        lost = [r["method"] for r in rivals if r["ours_kept_best"] < r["kept_best"]]
        lines.append(
            claim("No rival keeps the best network more often", "Rivals that keep the best network more often", lost)
        )
    else:
        below = [r["method"] for r in rivals if r["ours_max_true"] < r["max_true"]]
        lines.append(claim("No rival has a better best network at equal size", "Rivals with a better one", below))
    above = [r["method"] for r in rivals if r.get("above_curve")]
    lines.append(
        claim("Our curve of mean against FLOPs coverage is above all listed rivals", "Rivals above our curve", above)
    )
    if unsure := [r["method"] for r in rivals if r["ours_minus"] > 0 and r["p_holm"] >= 0.05]:
        lines.append(f"Ours is ahead, but not significantly at 5 %: {', '.join(unsure)}.")
    if summary[0]["seeds"] < 6:
        lines.append("With fewer than six seeds, no difference can be significant in a signed-rank test.")
    if (r := by_name.get("score_all")) is not None:
        lines.append(
            f"`score_all` is the ceiling of any method with this predictor: {r['mean_true']:.4g} for "
            f"{r['queries']:,.0f} queries; ours {r['ours_mean_true']:.4g} for "
            f"{by_name.get('lissnas', r)['queries']:,.0f}. On a space that can be listed, the method saves queries; "
            "it does not raise the quality."
        )
    if (kept := by_name.get("flops", {}).get("kept_best", 0)) >= 0.5:
        lines.append(
            "Keeping the best network is a weak test: `flops`, a ranking by cost without labels, passes it "
            f"in {100 * kept:.0f} % of the runs. Compare means at equal size."
        )
    if (r := by_name.get("lissnas_paper")) is not None:
        lines.append(
            f"`lissnas_paper` reaches {r['mean_true']:.4g} at {r['size']:,.0f} networks, the last space whose mean "
            f"rose; ours, cut to the same size, {r['ours_mean_true']:.4g}."
        )
    return lines
