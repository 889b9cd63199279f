"""Script that tests an untrusted XGBoost model; it runs as a separate process, which a damaged model can crash.

It reads the model from standard input, predicts with it, and writes it to standard output as saved by XGBoost. The
only argument is the memory limit in bytes. It does not import lissnas.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

ROWS = 64
"""Random rows for the test prediction."""


def check(model: dict[str, Any], features: int) -> None:
    """Raise ValueError if a prediction would access memory outside of the model."""
    learner = model["learner"]
    booster = learner["gradient_booster"]
    forest = booster.get("gbtree", booster)["model"]
    if "trees" not in forest:
        raise ValueError(f"it has no trees: models of the kind {booster['name']} are not supported")
    trees, groups = forest["trees"], np.array(forest["tree_info"])
    classes = max(
        1, int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"]["num_target"])
    )
    if len(groups) != len(trees) or (len(trees) and not 0 <= groups.min() <= groups.max() < classes):
        raise ValueError("its trees belong to unknown groups")
    steps = np.array(forest.get("iteration_indptr", [0, len(trees)]))
    if not len(steps) or steps[0] != 0 or steps[-1] != len(trees) or (np.diff(steps) < 0).any():
        raise ValueError("its boosting rounds do not match its trees")
    for number, tree in enumerate(trees):
        left, right, parent, feature = (
            np.array(tree[name]) for name in ("left_children", "right_children", "parents", "split_indices")
        )
        if len({len(left), len(right), len(parent), len(feature)}) > 1:
            raise ValueError(f"tree {number} has node arrays of different lengths")
        at = np.flatnonzero((left != -1) | (right != -1))
        below = np.concatenate([left[at], right[at]])
        inside = (below > 0) & (below < len(left))
        if not inside.all() or (parent[below] != np.tile(at, 2)).any() or (left[at] == right[at]).any():
            raise ValueError(f"tree {number} has invalid or cyclic branches")
        if ((feature[at] < 0) | (feature[at] >= features)).any():
            raise ValueError(f"tree {number} uses features beyond the {features:,} of the model")


def main() -> None:
    """Read a model, check it, predict with it, and write it."""
    if sys.platform == "linux":
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        limit = taken + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    booster = xgb.Booster()
    booster.load_model(bytearray(sys.stdin.buffer.read()))
    features = int(booster.num_features())
    check(json.loads(booster.save_raw("json")), features)
    booster.inplace_predict(np.random.default_rng(0).random((ROWS, features), np.float32))
    sys.stdout.buffer.write(booster.save_raw("ubj"))


if __name__ == "__main__":
    main()
