"""Tries an XGBoost model of others in a process of its own, since loading or asking a damaged one can end it.

The model comes in on standard input; once it was asked, it goes out as XGBoost writes it. The one argument is how
many bytes of memory it may take. Imports nothing of lissnas.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

ROWS = 64
"""Random rows that the model is asked about."""


def check(model: dict[str, Any], features: int) -> None:
    """Raise ValueError where an answer would be read, or written, outside of the model's own memory."""
    learner = model["learner"]
    booster = learner["gradient_booster"]
    forest = booster.get("gbtree", booster)["model"]
    if "trees" not in forest:
        raise ValueError(f"it has no trees: a model of the kind {booster['name']} is not asked here")
    trees, groups = forest["trees"], np.array(forest["tree_info"])
    classes = max(
        1, int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"]["num_target"])
    )
    if len(groups) != len(trees) or (len(trees) and not 0 <= groups.min() <= groups.max() < classes):
        raise ValueError("its trees belong to groups that it has not")
    steps = np.array(forest.get("iteration_indptr", [0, len(trees)]))
    if not len(steps) or steps[0] != 0 or steps[-1] != len(trees) or (np.diff(steps) < 0).any():
        raise ValueError("its rounds are not of its trees")
    for number, tree in enumerate(trees):
        left, right, parent, feature = (
            np.array(tree[name]) for name in ("left_children", "right_children", "parents", "split_indices")
        )
        if len({len(left), len(right), len(parent), len(feature)}) > 1:
            raise ValueError(f"tree {number} has nodes of different numbers")
        at = np.flatnonzero((left != -1) | (right != -1))
        below = np.concatenate([left[at], right[at]])
        inside = (below > 0) & (below < len(left))
        if not inside.all() or (parent[below] != np.tile(at, 2)).any() or (left[at] == right[at]).any():
            raise ValueError(f"tree {number} has branches that lead nowhere, or back")
        if ((feature[at] < 0) | (feature[at] >= features)).any():
            raise ValueError(f"tree {number} asks for features beyond the {features:,} of the model")


def main() -> None:
    """Read a model, check it, ask it, write it."""
    if sys.platform == "linux":
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        most = taken + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    booster = xgb.Booster()
    booster.load_model(bytearray(sys.stdin.buffer.read()))
    features = int(booster.num_features())
    check(json.loads(booster.save_raw("json")), features)
    booster.inplace_predict(np.random.default_rng(0).random((ROWS, features), np.float32))
    sys.stdout.buffer.write(booster.save_raw("ubj"))


if __name__ == "__main__":
    main()
