"""Train the packaged labels: networks of spaces without a table, each trained for seconds.

python -m studies --name packaged_labels     (or `make study NAME=packaged_labels`)

Every training is logged in results/label_logs, from which the study resumes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lissnas import artifacts, spaces
from lissnas.cli import render
from lissnas.config import label_width
from lissnas.oracles.label_table import read_labels
from lissnas.predictors.accuracy import Predictor, tau_interval
from lissnas.shrinkers.problem import TRAINED
from lissnas.stages.label import ATTEMPTS, LABELS, label_stage
from studies.run import WORK, Rows, study_params, table

NETWORKS = 150
LOGS = Path("studies/results/label_logs")


def packaged_labels() -> tuple[Rows, str]:
    """Train small networks of the spaces without a table, unless done before; assess a predictor's ranking of them."""
    params, rows = study_params({"label.networks": NETWORKS}), []
    for name in TRAINED:
        space, out, log = spaces.get(name), WORK / "packaged_labels" / name, LOGS / f"{name}.jsonl"
        if log.exists() and not (out / artifacts.LOG).exists():
            artifacts.write(out / artifacts.LOG, log.read_bytes())
        try:
            with render.lines(f"labels of {name}") as line:
                outcome = label_stage(params, space, 0, out, on_attempt=render.attempt_lines(line))
        finally:
            if (out / artifacts.LOG).exists():
                artifacts.write(log, (out / artifacts.LOG).read_bytes())
        labels = read_labels(out / LABELS, space)
        model = Predictor.fit(space, labels.archs, labels.values, params.predictor, 0, 1)
        assert model.out_of_fold is not None
        tau, low, high = tau_interval(model.out_of_fold, labels.values)
        rows.append(
            {
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
        )
    cells = [
        {
            "space": r["space"],
            "width": f"{r['width']:g}",
            "labels": str(r["labels"]),
            "accuracy, %": f"{r['mean']:.2f}",
            "SD": f"{r['sd']:.2f}",
            "seconds each (median)": f"{r['seconds']:.0f}",
            "tau": f"{r['tau']:.2f} ({r['tau_low']:.2f} to {r['tau_high']:.2f})",
            "sha256": f"`{r['sha256'][:16]}...`",
        }
        for r in rows
    ]
    note = (
        f"{NETWORKS} uniformly sampled networks of each space, trained with the recipe `cpu_label` of params.yaml on "
        "the packaged images; accuracy on held-out images. tau: Kendall's tau of out-of-fold predictions, with its "
        "95 % interval. `lissnas/benchmarks/data/labels_SPACE.csv` contains these labels, with this sha256."
    )
    return rows, f"{note}\n\n{table(cells)}"
