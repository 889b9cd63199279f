"""The labels that come with the package: networks of spaces without a table, each trained for seconds.

python -m studies --name packaged_labels     (or `make study NAME=packaged_labels`)

Every training is kept in results/label_logs as it was logged, so that the study goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts, spaces
from lissnas.artifacts.journal import LOG
from lissnas.cli import render
from lissnas.cli.render import attempt_lines
from lissnas.config import ParamFiles, label_width
from lissnas.core.rng import stream
from lissnas.oracles.label_table import read_labels
from lissnas.predictors.accuracy import out_of_fold, tau_interval
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import TRAINED
from lissnas.stages.label import ATTEMPTS, LABELS, label_stage

NETWORKS = 150
LOGS = Path("studies/results/label_logs")


def packaged_rows(params_files: ParamFiles, work: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a space: its labels, trained unless they are there, and how well a predictor orders them."""
    params = description.load_params(params_files, {"label.networks": NETWORKS})
    for name in TRAINED:
        space, out, log = spaces.get(name), work / name, LOGS / f"{name}.jsonl"
        if log.exists() and not (out / LOG).exists():
            artifacts.write(out / LOG, log.read_bytes())
        try:
            with render.lines(f"labels of {name}") as line:
                outcome = label_stage(params, space, 0, out, on_attempt=attempt_lines(line))
        finally:
            if (out / LOG).exists():
                artifacts.write(log, (out / LOG).read_bytes())
        labels = read_labels(out / LABELS, space)
        rng = stream(0, "packaged labels", name)
        scores = out_of_fold(space, labels.archs, labels.values, params.predictor, 0, rng, 1)
        tau, low, high = tau_interval(scores, labels.values)
        yield {
            "space": name,
            "width": label_width(params, name),
            "labels": len(labels.values),
            "mean": outcome.metrics["mean"],
            "sd": outcome.metrics["sd"],
            "seconds": float(np.median([float(row["seconds"]) for row in outcome.csv(ATTEMPTS)])),
            "tau": tau,
            "tau_low": low,
            "tau_high": high,
            "sha256": artifacts.sha256((out / LABELS).read_bytes()),
        }


def packaged_page(rows: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return a Markdown table of what the labels are, and how far a predictor can go by them."""
    lines = [
        f"{made_by} {NETWORKS} networks of each space, uniform, trained by the recipe `cpu_label` of params.yaml",
        "on the packaged images; accuracy on held-out images. tau: of a predictor out of fold, with its 95 % interval.",
        "`lissnas/benchmarks/data/labels_SPACE.csv` are these labels, with this sha256.",
        "",
        "| space | width | labels | accuracy, % | SD | seconds each (median) | tau | sha256 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['space']} | {r['width']:g} | {r['labels']} | {r['mean']:.2f} | {r['sd']:.2f} | {r['seconds']:.0f} | "
        f"{r['tau']:.2f} ({r['tau_low']:.2f} to {r['tau_high']:.2f}) | `{r['sha256'][:16]}...` |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"
