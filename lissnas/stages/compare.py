"""The compare stage: all methods and seeds on one benchmark, as resumable tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.journal import TASKS, Journal
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import BenchmarkConfig, Params
from lissnas.core.errors import UserError
from lissnas.oracles.direction import MINIMIZE
from lissnas.plots import comparison as figures
from lissnas.plots.figures import png
from lissnas.shrinkers import comparison
from lissnas.shrinkers.comparison import FullSpaceStatistics, MethodResult, start_comparison
from lissnas.shrinkers.comparison_summary import EQUAL, SHARES, in_sign, summarise, verdict_lines
from lissnas.shrinkers.methods import REFERENCES, chosen
from lissnas.shrinkers.plugin import identity
from lissnas.shrinkers.problem import Source
from lissnas.stages import compare_labels
from lissnas.stages.compare_labels import BEFORE

BUDGET_SEEDS = 5
"""Seeds whose runs are repeated with parts of the query budget: the curve is shown, not tested."""
SIDE_BY_SIDE = ("lissnas", "padnas", "dds", "abs", "nse")
"""Methods that the record of a comparison links to side by side, filled up with others if some are missing."""
MIN_SEEDS = 6
"""With fewer, the least p-value of a signed-rank test is above .05."""
DIFFERENCES = (
    "Differences are ours minus the method's, at equal size, in standard deviations (SD) of the full space, with 95 % "
    f"intervals over seeds; less than {EQUAL} SD is practically equal. *With our quota* takes the best that the method "
    "scored, with the quota of FLOPs that ours has. p is Wilcoxon's signed-rank test, Holm-corrected over all tests of "
    "both differences."
)
LESS_IS_BETTER = "Less is better, so ours is ahead where the difference is negative."
TIMED = "comparison.parquet"
"""The table of the comparison with a column `seconds`; `comparison.csv` is without it, hence reproducible."""
WRITES = (
    *(TIMED, "comparison.csv", "summary.csv", "comparison.md", "metrics.json"),
    *("diversity.parquet", "spaces.parquet", "comparison.png", "edf.png", "budget.png", "diversity.png"),
)
"""Names of the files of a result."""


@remote_out(WRITES)
def compare_stage(
    params: Params,
    given: Benchmark | Source,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    **how: Unpack[How],
) -> Outcome:
    """Compare methods on a benchmark, or on a space that labels or a surrogate evaluate.

    Complete labels are a table; with others, methods are evaluated on the held-out ones (`compare_labels`).
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
    parameters = {**common, "methods": [*map(identity, methods)], "seeds": list(seeds)}
    if source.minimize:  # an earlier version wrote negated values
        parameters["direction"] = MINIMIZE
    call, threads, record = how.get("call", run_here), how.get("threads", 0), how.get("record", NO_RECORDER)

    def work() -> dict[str, bytes]:
        # A task does not depend on the other tasks, so the journal's key excludes methods and seeds.
        with Journal.opened(artifacts.tasks_of(out) / TASKS, {**common, "format": 3}, others="replace") as journal:
            if source.labels is not None:
                return compare_labels.compared(journal, source, params, methods, seeds, how)
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
            child = record_method(record, source.name, name, seed)
            entry = call(comparison.run_method, opened(), name, name=f"{name} seed {seed}")
            child.finish()
            return {"row": dict(entry.row), "keys": entry.keys.tolist(), "values": entry.values.tolist()}

        def run_budget(name: str) -> Any:
            return call(comparison.with_part_of_budget, opened(), name, name=f"budget {name} seed {seed}")

        def run_curve() -> Any:
            return call(comparison.diversity_curve, opened(), params.compare.diversities, name=f"curve seed {seed}")

        for name in methods:
            there = len(journal.records)
            made = journal.once([identity(name), seed], partial(run_method, name))
            row = made["row"]
            if source.truth is not None:
                on_budget = dict.fromkeys(f"{ours}mean_true_{share}" for share in SHARES for ours in ("", "ours_"))
                if seed in seeds[:BUDGET_SEEDS]:
                    on_budget = journal.once(["budget", identity(name), seed], partial(run_budget, name))
                row = {**row, **on_budget}
            entry = MethodResult(row, np.array(made["keys"], np.uint64), np.array(made["values"]))
            entries[name, seed] = entry
            line = _line(in_sign([entry.row], source.sign)[0], len(entries), len(seeds) * len(methods))
            how.get("on_progress", ignore)(line if len(journal.records) > there else f"{line}{BEFORE}")
        rows: list[dict[str, Any]] = journal.once(["curve", seed], run_curve)
        return rows

    force = how.get("force", False)
    return run(out, parameters, work, force, timed=(TIMED,), writes=WRITES, record=record, summary=record_methods)


def record_method(record: Recorder, benchmark: str, method: str, seed: int) -> Recorder:
    """Return the child run of a method and seed."""
    about = {"method": method, "benchmark": benchmark, "seed": seed}
    return record.child(f"{method} {benchmark} seed {seed}", about, stage="method")


def record_methods(record: Recorder, outcome: Outcome) -> None:
    """Record each method and seed as a child run, with the metric names of a shrink, and a link that compares five."""
    benchmark, rows = str(outcome.metrics["benchmark"]), outcome.table(TIMED).to_pylist()
    methods = sorted(dict.fromkeys(row["method"] for row in rows), key=lambda name: name not in SIDE_BY_SIDE)
    shown = methods[: len(SIDE_BY_SIDE)]
    for row in rows:
        child = record_method(record, benchmark, row["method"], row["seed"])
        # The compare page opens on the first metric.
        values = {"mean_true": row["mean_true"], **row}
        child.metrics({name: value for name, value in values.items() if name != "seed"})
        child.tags({name: row[name] for name in ("kind",) if row.get(name)})
        child.finish()
    runs = [f"{row['method']} {benchmark} seed {row['seed']}" for row in rows if row["method"] in shown]
    record.side_by_side(f"{', '.join(shown)} side by side", runs)
    for name in ("comparison.md", "comparison.csv", "summary.csv"):
        record.artifact(outcome.folder / name)


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
    found, window = comparison.against_best_known(full, every)
    summary = in_sign(summarise(found, float(full.values.std())), source.sign)
    rows, curve = in_sign(found, source.sign), in_sign(curve, source.sign)
    untimed = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    first = {name: entries[name, seeds[0]] for name in methods}
    values = {"full space": full.values, **{name: entry.values for name, entry in first.items()}}
    title, metric = f"{source.name}: {len(methods)} methods, {len(seeds)} seeds", source.metric_label
    mean, shown = source.sign * float(full.values.mean()), figures.coloured(summary, REFERENCES, source.sign)
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
        "comparison.png": png(figures.means(summary, title, metric, mean, REFERENCES)),
        "edf.png": png(figures.edfs(values, shown, window, title, metric)),
        "metrics.json": artifacts.to_json(_metrics(source, summary, len(seeds))),
    }
    if "mean_true_25" in summary[0]:
        files["budget.png"] = png(figures.budget(summary, title, metric, shown))
    if "flops" in full.diversity.costs:
        files["diversity.png"] = png(figures.diversity(summary, curve, title, metric, shown))
    return files


def _metrics(source: Source, summary: Sequence[Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    rivals = [r for r in summary if r["method"] not in REFERENCES]
    verdicts = ("ahead", "equal", "unclear", "behind")
    return {
        "benchmark": source.name,
        **source.stated,
        "seeds": seeds,
        "rivals": len(rivals),
        **{f"ours_{v}": sum(r["verdict"] == v for r in rivals) for v in verdicts},
        **{f"ours_{v}_with_quota": sum(r["quota_verdict"] == v for r in rivals) for v in verdicts},
        "mean_true": {r["method"]: r["mean_true"] for r in summary},
        "ours_minus_sd": {r["method"]: r["ours_minus_sd"] for r in rivals},
    }


def markdown(full_space: FullSpaceStatistics, summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown page: what was measured, one row for each method, remarks."""
    values, source, seeds = full_space.values, full_space.source, summary[0]["seeds"]
    about = f"{source.metric_label}: mean {source.sign * values.mean():.4g}, best {source.sign * values.max():.4g}"
    differences = f"{DIFFERENCES} {LESS_IS_BETTER}" if source.minimize else DIFFERENCES
    common = f"Means over {seeds} seed{'s' if seeds > 1 else ''}; ± is half of the 95 % interval. All methods of a seed"
    ours = "*Ours* are the best architectures that `lissnas` saw, cut to the method's size"
    if source.truth is None:
        text = (
            f"{full_space.space.size():,} architectures; in a uniform sample of {len(values):,} {about}; "
            f"the best known value is {summary[0]['best_known']:.5g}. {'. '.join(source.notes)}.\n\n"
            f"{common} query the same surrogate directly, within the query budget that `lissnas` used. Sets are "
            f"evaluated on all members, products on a uniform sample of {comparison.N_EVALUATED:,}, so their best is "
            f"that of the sample. {ours}. {differences}"
        )
    else:
        text = (
            f"{len(values):,} architectures, {about}. {common} query the same predictor, fitted once on uniform "
            "labels, within the query budget that `lissnas` used; only `lissnas_collect` collects labels while it "
            f"shrinks. {ours}. {differences}"
        )
    tables = [[method_cells(r) for r in summary]]
    if "mean_true_25" in summary[0]:
        tables.append([budget_cells(r) for r in summary])
    parts = [artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells]) for cells in tables]
    lines = "\n".join(f"- {line}" for line in remarks(summary, source.minimize))
    return "\n\n".join([f"# Methods compared on {source.name}", text, lines, *parts]) + "\n"


def budget_cells(r: Mapping[str, Any]) -> dict[str, str]:
    """Return a method's mean at each share of the query budget, and in brackets that of ours at the same size."""
    cells = {"method": r["method"]}
    for share in (*SHARES, 100):
        end = "" if share == 100 else f"_{share}"
        mean, ours = r[f"mean_true{end}"], r[f"ours_mean_true{end}"]
        cells[f"mean at {share} % of the queries"] = "" if mean is None else f"{mean:#.5g} ({ours:#.5g})"
    return cells


def method_cells(r: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a method's summary by column; the columns depend on whether true values exist.

    Cells that a summary of an earlier version lacks are empty.
    """
    seeds, rival = r["seeds"], r["method"] not in REFERENCES
    cells = {
        "method": r["method"],
        "size": f"{r['size']:,.0f}",
        "queries": f"{r['queries']:,.0f}",
        "mean": f"{r['mean_true']:#.5g} ± {(r['mean_true_high'] - r['mean_true_low']) / 2:.2g}",
        "ours, same size": f"{r['ours_mean_true']:#.5g}",
        "difference, SD": _interval(r, "ours"),
        "p": _p_text(r.get("p_holm")),
        "ours is": (r.get("verdict") or "") if rival else "",
        "with our quota: difference, SD": _interval(r, "quota"),
        "with our quota: ours is": (r.get("quota_verdict") or "") if rival else "",
    }
    if "kept_best" in r:
        cells |= {
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
    }


def _interval(r: Mapping[str, Any], kind: str) -> str:
    if r["method"] == "lissnas" or r.get(f"{kind}_minus_sd") is None:
        return ""
    return f"{r[f'{kind}_minus_sd']:+.3f} ({r[f'{kind}_minus_sd_low']:+.3f} to {r[f'{kind}_minus_sd_high']:+.3f})"


def _p_text(p: float | None) -> str:
    """Return a p-value with two significant digits; empty for None."""
    return "" if p is None else "1" if p >= 1 else f"{p:.2g}"


def remarks(summary: Sequence[Mapping[str, Any]], minimize: bool = False) -> list[str]:
    """Return the verdicts of a comparison in words, and its limits; values are in the metric's sign."""
    by_name = {r["method"]: r for r in summary}
    lines = verdict_lines(summary)
    if summary[0]["seeds"] < MIN_SEEDS:
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
            f"{'fell' if minimize else 'rose'}; ours, cut to the same size, {r['ours_mean_true']:.4g}."
        )
    return lines
