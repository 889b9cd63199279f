"""The best network for a number of labels: goals of the labelling policy, and searchers, on every benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import numpy as np

from lissnas import benchmarks
from lissnas.artifacts import Journal
from lissnas.benchmarks import Benchmark
from lissnas.config import BenchmarkConfig, Goal, Params
from lissnas.core import process
from lissnas.core.rng import stream
from lissnas.oracles.label_table import Labels
from lissnas.searchers import SEARCHERS
from lissnas.shrinkers.labelling import Policy, shrink_by_labels
from lissnas.spaces import Archs
from studies.run import WORK, Rows, study_params, table

N_SEEDS = 10
BATCH = 10
MARKS = (50, 100, 150, 200, 300)
"""Labels after which the best network is ranked."""
GOALS: tuple[Goal, ...] = ("network", "both")
BASELINES = ("regularized_evolution", "local_search", "random")


def network() -> tuple[Rows, str]:
    """Search every benchmark with 300 labels, ten seeds; resumes after the last finished search."""
    params = study_params({"shrink.labels": None})
    params = params.model_copy(update={"benchmarks": {n: _without_labels(b) for n, b in params.benchmarks.items()}})
    tasks = list(product(range(N_SEEDS), params.pipeline.benchmarks, (*BASELINES, *GOALS)))
    about = {"params": params.predictor.model_dump(mode="json"), "marks": MARKS, "batch": BATCH, "version": 1}
    with Journal.opened(WORK / "network.jsonl", about) as journal:
        done = {tuple(row["task"]): row for row in journal.records}
        for number, (seed, name, rule) in enumerate(tasks, 1):
            if (seed, name, rule) in done:
                continue
            found = _search(params, benchmarks.get(name), rule, seed)
            row = {"task": (seed, name, rule), "benchmark": name, "rule": rule, "seed": seed, **found}
            journal.append(row)
            done[seed, name, rule] = row
            process.err.print(f"{number}/{len(tasks)} {name} {rule} seed {seed}: {json.dumps(found)}")
    rows = [{k: v for k, v in done[task].items() if k != "task"} for task in tasks]
    rows.sort(key=itemgetter("benchmark", "rule", "seed"))
    return rows, _page(rows)


def _without_labels(settings: BenchmarkConfig) -> BenchmarkConfig:
    return settings.model_copy(update={"labels": None})


def _search(params: Params, table: Benchmark, rule: str, seed: int) -> dict[str, Any]:
    """Return the rank of the best network after each number of labels, and the mean of the space of all labels."""
    space, mean = table.space, None
    if rule in SEARCHERS:
        rows = SEARCHERS[rule](space, table, MARKS[-1], stream(seed, "study", rule)).rows
    else:
        policy = Policy(space, params, "network" if rule == "network" else "both", seed, 1)
        rows = np.empty((0, space.genome_len), np.int8)
        while len(rows) < MARKS[-1]:
            rows = np.concatenate([rows, policy.next(_labels(table, rows), BATCH).archs])
        if rule == "both":
            result = shrink_by_labels(space, _labels(table, rows), params, seed, 1)
            mean = float(table(result.state.archive.rows[result.members]).mean())
    values = table(rows)
    ranks = {f"rank_{n}": int(table.rank_of(float(values[:n].max()))) for n in MARKS}
    return {**ranks, "space_mean": mean}


def _labels(table: Benchmark, rows: Archs) -> Labels:
    order = np.lexsort(rows.T[::-1])
    kept = rows[order]
    return Labels(kept, table(kept), np.ones(len(kept), np.int64), "value", {}, False, (), np.argsort(order))


def _page(rows: Rows) -> str:
    """Return medians and 90th percentiles of the ranks, a table for each benchmark."""
    return "\n".join(_tables(rows))


def _tables(rows: Rows) -> Iterator[str]:
    yield "Rank of the best labelled network: median (90th percentile) over the seeds; 1 is the best of the table.\n"
    for name, of_benchmark in groupby(rows, itemgetter("benchmark")):
        cells = []
        for rule, group in groupby(of_benchmark, itemgetter("rule")):
            runs = list(group)
            ranks = {n: np.array([run[f"rank_{n}"] for run in runs]) for n in MARKS}
            means = [run["space_mean"] for run in runs if run["space_mean"] is not None]
            cells.append(
                {
                    "rule": rule,
                    **{f"{n} labels": f"{np.median(r):,.0f} ({np.quantile(r, 0.9):,.0f})" for n, r in ranks.items()},
                    "best found": f"{int((ranks[MARKS[-1]] == 1).sum())}/{len(runs)}",
                    "mean of the space": f"{np.mean(means):.3f}" if means else "",
                }
            )
        yield f"## {name}\n\n{table(cells)}"
