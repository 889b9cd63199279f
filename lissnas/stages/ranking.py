"""The ranking stage: rank correlation of supernets of several spaces, trained with equal budgets (Table 3).

A supernet is trained on the full space, on ours and on each rival's by the same recipe; it then scores networks
with known accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from lissnas import artifacts
from lissnas.artifacts.journal import TASKS, Journal
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import FULL_SPACE, Params, TrainingConfig, with_default_width
from lissnas.config.resolve import image_parameters, recipe_of
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.metrics.quality import correlations, good_threshold
from lissnas.nets import images
from lissnas.nets.base import Supernet
from lissnas.nets.evaluation import SupernetOracle
from lissnas.nets.training import Progress, check_batches, compute_on
from lissnas.oracles.base import CountedOracle
from lissnas.oracles.direction import stated
from lissnas.plots import figures
from lissnas.searchers.evolution import Limits, evolutionary_search
from lissnas.shrinkers import comparison
from lissnas.shrinkers.methods import chosen
from lissnas.spaces import Archs
from lissnas.stages.supernet import check_space, train_supernet

OWN = "own"
OURS = "ours"
"""Samples to rank: of the space that the supernet was trained on, and of our shrunk space."""
COEFFICIENTS = ("pearson", "spearman", "kendall")
WRITES = ("ranking.csv", "summary.csv", "scores.parquet", "ranking.md", "ranking.png", "metrics.json")
"""Names of the files of a result."""


@remote_out(WRITES)
def ranking_stage(params: Params, benchmark: Benchmark, out: Path, **how: Unpack[How]) -> Outcome:
    """Train a supernet for each space and seed, and rank networks with it; resumes an interrupted run."""
    params = with_default_width(params, benchmark.name)
    settings = params.ranking
    if benchmark.name not in settings.benchmarks:
        raise UserError(f"ranking.benchmarks has no entry for {benchmark.name}; add its recipe and seeds")
    check_space(benchmark.space)
    name, seeds = settings.benchmarks[benchmark.name].recipe, settings.benchmarks[benchmark.name].seeds
    recipe = recipe_of(params, name, f"ranking.benchmarks.{benchmark.name}.recipe")
    chosen([method for method in settings.methods if method not in FULL_SPACE])  # raises for unknown ones
    comparison.comparison_params(params, benchmark, seeds[0])
    good_threshold(benchmark.values)  # raises for a table of equal values
    compute_on(params.torch)
    check_batches(recipe, images.load(params.images, recipe))
    common = task_parameters(params, benchmark, recipe)
    parameters = {**common, "methods": list(settings.methods), "seeds": list(seeds)}
    tasks, call, threads = artifacts.tasks_of(out), how.get("call", run_here), how.get("threads", 0)

    def work() -> dict[str, bytes]:
        with Journal.opened(tasks / TASKS, {**common, "format": 2}, others="replace") as journal:
            rows: list[dict[str, Any]] = []
            scored: list[dict[str, Any]] = []
            for seed in seeds:
                shrink = partial(call, shrunk_spaces, params, benchmark, seed, threads, name=f"shrink seed {seed}")
                shrunk = cache(shrink)
                for method in settings.methods:
                    found = journal.once([method, seed], partial(ranked, method, seed, shrunk))
                    rows += found["rows"]
                    scored += found["scored"]
                    how.get("on_progress", ignore)(
                        _line(found["rows"], len(rows) // 2, len(seeds) * len(settings.methods))
                    )
            return _files(params, benchmark, name, rows, scored)

    def ranked(method: str, seed: int, shrunk: Callable[[], dict[str, Archs]]) -> Any:
        task, spaces = f"{method} seed {seed}", shrunk()
        training = artifacts.Checkpoint(tasks / f"{method}-{seed}", {**common, "task": [method, seed]})
        sets, watch = (spaces[method], spaces[OURS]), partial(how.get("on_training", ignore), task)
        child = _child(record, benchmark.name, method, seed)
        made = call(rank, params, benchmark, *sets, method, seed, recipe, training, watch, child, name=task)
        child.finish()
        return made

    record = how.get("record", NO_RECORDER)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=_summary)


def _child(record: Recorder, benchmark: str, method: str, seed: int) -> Recorder:
    """Return the child run of a trained space and seed."""
    about = {"method": method, "benchmark": benchmark, "seed": seed}
    return record.child(f"{method} {benchmark} seed {seed}", about, stage="ranking")


def _summary(record: Recorder, outcome: Outcome) -> None:
    """Record each trained space and seed as a child run."""
    for row in outcome.csv("ranking.csv"):
        child = _child(record, str(outcome.metrics["benchmark"]), str(row["method"]), int(row["seed"]))
        child.metrics({f"{name}_{row['sample']}": row[name] for name in COEFFICIENTS})
        child.metrics({name: row[name] for name in ("found_true", "size", "space_mean_true")})
        child.finish()
    for name in ("ranking.md", "ranking.csv", "summary.csv", "scores.parquet"):
        record.artifact(outcome.folder / name)


def task_parameters(params: Params, benchmark: Benchmark, recipe: TrainingConfig) -> dict[str, Any]:
    """Return the parameters of all tasks, without method and seed."""
    # The parameters of the paper's loop matter only if it runs.
    paper = params.shrink.paper.model_dump(mode="json") if "lissnas_paper" in params.ranking.methods else None
    return {
        **({} if paper is None else {"paper": paper}),
        "benchmark": benchmark.name,
        "table_sha256": benchmark.sha256,
        "networks": params.ranking.networks,
        "recipe": recipe.model_dump(mode="json"),
        "supernet": params.supernet.model_dump(mode="json", exclude={"recipe"}),
        "search": params.search.model_dump(mode="json", exclude={"oracle", "max_mflops", "max_mparams", "top"}),
        "images": image_parameters(params),
        "shrink": comparison.comparison_params(params, benchmark, 0).model_dump(mode="json", exclude={"seed"}),
    }


def shrunk_spaces(params: Params, benchmark: Benchmark, seed: int, threads: int) -> dict[str, Archs]:
    """Return the members of each method's space, as in a comparison: equal labels and query budget."""
    full_space = comparison.FullSpaceStatistics.of(benchmark)
    comparison_run = comparison.start_comparison(full_space, params, seed, threads)
    found = {OURS: comparison_run.ours.subspace.members}
    for method in params.ranking.methods:
        if method in FULL_SPACE:
            found[method] = benchmark.space.enumerate()
        else:
            found[method] = comparison.attempt(comparison_run, method, comparison_run.budget).members
    return found


def rank(
    params: Params,
    benchmark: Benchmark,
    members: Archs,
    ours: Archs,
    method: str,
    seed: int,
    recipe: TrainingConfig,
    checkpoint: artifacts.Checkpoint,
    watch: Callable[[Progress], None],
    record: Recorder = NO_RECORDER,
) -> dict[str, Any]:
    """Train a supernet on `members`, rank samples of them and of `ours`, and search in `members`.

    Of our sample, only networks whose operations the supernet has are ranked; `networks` is their number.
    """
    space, n = benchmark.space, params.ranking.networks
    if method == "full_balanced":
        params = params.model_copy(update={"supernet": params.supernet.model_copy(update={"sampler": "balanced"})})
    model, _ = train_supernet(params, space, members, seed, recipe, checkpoint, watch, record)
    data = images.load(params.images, recipe)
    oracle = CountedOracle(SupernetOracle.of(model, data, params.search, compute_on(params.torch)), space, space.size())
    settings = params.search.model_copy(update={"generations": max(1, n // params.search.population)})
    history = evolutionary_search(space, members, oracle, settings, Limits(), seed)
    true = float(benchmark(history.rows[history.best(1)])[0])
    about = {
        "method": method,
        "seed": seed,
        "size": len(members),
        "space_mean_true": float(benchmark(members).mean()),
        "found_true": true,
        "found_rank": benchmark.rank_of(true),
        "found_of": len(history.rows),
    }
    rows: list[dict[str, Any]] = []
    scored: list[dict[str, Any]] = []
    for sample, whole in ((OWN, members), (OURS, ours)):
        # The same draw for all methods: they rank the same networks of ours.
        order = stream(seed, "ranking", sample).permutation(len(whole))[:n]
        chosen = can_run(model, whole[order], data.side)
        scores, truth = oracle(chosen), benchmark(chosen)
        enough = len(chosen) > 2 and np.ptp(scores) > 0 and np.ptp(truth) > 0
        mean = float(scores.mean()) if len(scores) else None
        found = correlations(scores, truth) if enough else dict.fromkeys(COEFFICIENTS)
        rows.append({**about, "sample": sample, "networks": len(chosen), "score_mean": mean, **found})
        scored += [
            {"method": method, "seed": seed, "sample": sample, "arch": arch, "score": float(s), "true": float(t)}
            for arch, s, t in zip(space.format(chosen), scores, truth, strict=True)
        ]
    return {"rows": rows, "scored": scored}


@torch.inference_mode()
def can_run(model: Supernet, archs: Archs, side: int) -> Archs:
    """Return the architectures whose operations a supernet has."""
    device = next(model.parameters()).device
    image, runs = torch.zeros(1, 3, side, side, device=device), np.ones(len(archs), bool)
    for i, path in enumerate(archs):
        try:
            model(image, path)
        except UserError:
            runs[i] = False
    return archs[runs]


def _line(rows: Sequence[Mapping[str, Any]], done: int, total: int) -> str:
    own, ours = (_number(r["kendall"]) for r in rows[-2:])
    r = rows[-1]
    return (
        f"{done:>3}/{total}  {r['method']:<14} seed {r['seed']}  tau on own networks {own}, on ours {ours} "
        f"({r['networks']} of them), found {r['found_true']:.4g}"
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each method and sample: means over the seeds in which a value is defined."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for r in rows:
        groups.setdefault((r["method"], r["sample"]), []).append(r)
    out = []
    for (method, sample), own in groups.items():
        row: dict[str, Any] = {"method": method, "sample": sample, "seeds": len(own)}
        for name in ("size", "networks", "space_mean_true", "score_mean", *COEFFICIENTS, "found_true", "found_rank"):
            values = [float(r[name]) for r in own if r[name] is not None]
            row[name] = float(np.mean(values)) if values else None
        kendall = [r["kendall"] for r in own if r["kendall"] is not None]
        row |= {"kendall_least": min(kendall, default=None), "kendall_most": max(kendall, default=None)}
        out.append(row)
    return out


def _files(
    params: Params,
    benchmark: Benchmark,
    recipe: str,
    rows: Sequence[Mapping[str, Any]],
    scored: Sequence[Mapping[str, Any]],
) -> dict[str, bytes]:
    summary = summarise(rows)
    tau = {f"{r['method']}_{r['sample']}": r["kendall"] for r in summary if r["kendall"] is not None}
    title = f"{benchmark.name}: supernets of {len(params.ranking.methods)} spaces, seed {rows[0]['seed']}"
    return {
        "ranking.csv": artifacts.to_csv(rows),
        "summary.csv": artifacts.to_csv(summary),
        "scores.parquet": artifacts.rows_to_parquet(scored),
        "ranking.md": markdown(params, benchmark, recipe, summary).encode(),
        "ranking.png": figures.png(figures.ranking(scored, title, benchmark.metric)),
        "metrics.json": artifacts.to_json(
            {
                "benchmark": benchmark.name,
                **stated(benchmark.metric, benchmark.minimize),
                "recipe": recipe,
                "seeds": len({r["seed"] for r in rows}),
                "kendall": tau,
                "found_true": {r["method"]: r["found_true"] for r in summary},
            }
        ),
    }


def markdown(params: Params, benchmark: Benchmark, recipe: str, summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown page."""
    steps, seeds = params.recipes[recipe].steps, int(summary[0]["seeds"])
    text = (
        f"One supernet for each space: recipe `{recipe}` ({steps:,} steps), width {params.supernet.width:g}, "
        f"{params.images.side} pixels; means over {seeds} seed{'s' if seeds > 1 else ''}, minimum and maximum in "
        "brackets. *Own* are networks of the trained space, *ours* those of our shrunk space whose operations the "
        "supernet has. *Found* is the true value of the network that evolution finds in the space."
    )
    cells = [ranking_cells(r) for r in summary]
    table = artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells])
    return "\n".join([f"# Supernets ranking networks of {benchmark.name}", "", text, "", table, ""])


def ranking_cells(r: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a space and sample by column."""
    pearson, spearman, kendall = (_number(r[c]) for c in COEFFICIENTS)
    spread = f" ({r['kendall_least']:.3f} to {r['kendall_most']:.3f})" if r["kendall"] is not None else ""
    return {
        "trained on": r["method"],
        "size": f"{r['size']:,.0f}",
        "its mean": f"{r['space_mean_true']:.4g}",
        "ranked": r["sample"],
        "networks": f"{r['networks']:,.0f}",
        "Pearson": pearson,
        "Spearman": spearman,
        "Kendall": kendall + (spread if r["seeds"] > 1 else ""),
        "found": f"{r['found_true']:.4g}",
        "its rank": f"{r['found_rank']:,.0f}",
    }
