"""How well the predictor and its members rank architectures of cells, chains and product spaces.

python -m studies --name predictors     (or `make study NAME=predictors`)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby, product
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from rich.progress import track

from lissnas import artifacts, benchmarks, spaces
from lissnas.artifacts import Journal
from lissnas.benchmarks.surrogates import accel_nasbench_labels, gpt_perplexity
from lissnas.core import process
from lissnas.core.rng import stream
from lissnas.predictors.accuracy import Member, Predictor, tau
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from studies.run import WORK, Rows, study_params, table

BUDGETS = (100, 300, 1_000)
SEEDS = range(5)
HELD_OUT = 2_000
NOISE = 0.3
"""Standard deviation of the noise of synthetic labels; the held-out values have none."""
SYNTHETIC = {"synthetic (30, 10)": (30, 10), "synthetic (100, 4)": (100, 4), "synthetic (20, 4)": (20, 4)}
"""Positions and choices of the synthetic product spaces."""
GPT = ("gpt_s", "gpt_m", "gpt_l")
TABLES = (
    *("nasbench101", "nas_bench_macro", "transnas/class_scene", "transnas/room_layout"),
    "transnas/normal",
)

Draw: TypeAlias = Callable[[int, Generator], tuple[Archs, FloatArray, FloatArray]]
"""Returns `n` distinct architectures, their labels, and their true values."""


def predictors() -> tuple[Rows, str]:
    """Fit the predictor to uniform labels of each space; compare its tau on held-out architectures with its members."""
    settings = study_params().predictor
    tasks = list(product(sources(), BUDGETS, SEEDS))
    with Journal.opened(WORK / "predictors" / "rows.jsonl", artifacts.digest(settings.model_dump())) as journal:
        done = {(row["space"], row["labels"], row["seed"]): row for row in journal.records}
        for name, labels, seed in track(tasks, "fitting", console=process.err):
            if (name, labels, seed) not in done:
                space, draw = sources()[name]
                row = {"space": name, "labels": labels, "seed": seed, **assessed(space, draw, labels, seed, settings)}
                journal.append(row)
        rows = sorted(journal.records, key=itemgetter("space", "labels", "seed"))
    rows.sort(key=lambda row: list(sources()).index(row["space"]))
    return rows, predictors_page(rows)


def sources() -> dict[str, tuple[Space, Draw]]:
    """Return spaces by name, each with a function that draws labelled architectures."""
    made: dict[str, tuple[Space, Draw]] = {}
    for name, (positions, choices) in SYNTHETIC.items():
        space = ChoiceSpace(name, [choices] * positions)
        made[name] = space, partial(_draw_synthetic, space, positions, choices)
    for name in GPT:
        gpt = spaces.get(name)
        made[f"{name}, middle width"] = gpt, partial(_draw_gpt, gpt)
    made["accel_nasbench"] = spaces.get("accel_nasbench"), _draw_accel
    for name in TABLES:
        made[name] = benchmarks.get(name).space, partial(_draw_table, name)
    return made


def assessed(space: Space, draw: Draw, labels: int, seed: int, settings: Any) -> dict[str, float]:
    """Return tau of the stack and of each member on held-out architectures, and the members' weights."""
    rows, noisy, true = draw(labels + HELD_OUT, stream(seed, "predictors", space.name))
    model = Predictor.fit(space, rows[:labels], noisy[:labels], settings, seed, 1)
    held_out = rows[labels:]

    def tau_of(trees: float, kernel: float) -> float:
        alone = replace(model, trees_member=Member(trees), kernel_member=Member(kernel))
        return tau(alone.score(held_out, 1), true[labels:])

    weights = model.trees_member.weight, model.kernel_member.weight
    found = {"tau": tau_of(*weights), "trees_tau": tau_of(1, 0), "kernel_tau": tau_of(0, 1)}
    return found | {"trees_weight": weights[0], "kernel_weight": weights[1]}


def predictors_page(rows: Rows) -> str:
    """Return the page of the study: means over seeds for each space and number of labels."""
    cells = []
    for (name, labels), group in groupby(rows, itemgetter("space", "labels")):
        own = list(group)
        mean = {c: float(np.mean([r[c] for r in own])) for c in own[0] if c not in ("space", "labels", "seed")}
        cells.append(
            {
                "space": str(name),
                "labels": f"{int(labels):,}",
                "trees": f"{mean['trees_tau']:.3f}",
                "kernel": f"{mean['kernel_tau']:.3f}",
                "stack": f"{mean['tau']:.3f}",
                "behind the better member": f"{max(mean['trees_tau'], mean['kernel_tau']) - mean['tau']:+.3f}",
                "weight of trees, kernel": f"{mean['trees_weight']:.2f}, {mean['kernel_weight']:.2f}",
            }
        )
    note = (
        f"Kendall's tau on {HELD_OUT:,} held-out architectures, means over {len(SEEDS)} seeds; one thread. Synthetic "
        "spaces (positions, choices) have additive random effects, three interactions of positions, and noise of "
        f"{NOISE} on the labels. The GPT spaces are evaluated by the published predictor of perplexity."
    )
    return f"{note}\n\n{table(cells)}"


def _draw_synthetic(
    space: ChoiceSpace, positions: int, choices: int, n: int, rng: Generator
) -> tuple[Archs, FloatArray, FloatArray]:
    effects = rng.normal(size=(positions, choices))
    rows = space.sample_distinct(n, rng)
    equal = (rows[:, 0] == rows[:, 1]) * 2.0 - (rows[:, 4] == rows[:, 5]) * 2.0
    pair = (rows[:, 2] == 0) * (rows[:, 3] == 1) * 4.5
    true = effects[np.arange(positions), rows].sum(axis=1) + equal + pair
    return rows, true + rng.normal(size=n) * NOISE, true


def _draw_gpt(space: Space, n: int, rng: Generator) -> tuple[Archs, FloatArray, FloatArray]:
    """Draw networks of the middle embedding width, the first position: the width decides most of the perplexity."""
    found = space.sample_distinct(5 * n, rng)
    rows = found[found[:, 0] == 1][:n]
    values = -gpt_perplexity(space.name, rows)
    return rows, values, values


def _draw_accel(n: int, rng: Generator) -> tuple[Archs, FloatArray, FloatArray]:
    archs, values, _ = accel_nasbench_labels()
    at = rng.permutation(len(archs))[:n]
    return archs[at], values[at], values[at]


def _draw_table(name: str, n: int, rng: Generator) -> tuple[Archs, FloatArray, FloatArray]:
    table = benchmarks.get(name)
    rows = table.space.sample_distinct(min(n, table.space.size()), rng)
    values = table(rows)
    return rows, values, values
