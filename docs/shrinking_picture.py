"""Draw the README's picture: a space, its first iteration and the shrunk space, on one t-SNE map.

python docs/shrinking_picture.py     (writes docs/pictures/shrinking.png; half a minute)
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lissnas
from lissnas.config import Params
from lissnas.shrinkers import description
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.state import State
from lissnas.spaces import Keys
from lissnas.stages.report.space_map import layout

BENCHMARK = "nas_bench_macro"
ITERATION = 1
PICTURE = Path(__file__).parent / "pictures" / "shrinking.png"


def main() -> None:
    """Shrink the packaged benchmark and save three panels of it."""
    table = lissnas.benchmark(BENCHMARK)
    params: Params = description.for_space(description.load_params(None, {}), table.space)
    spaces: list[Keys] = []

    def remember(state: State) -> None:
        spaces.append(state.archive.keys[state.current])

    result = shrink(Problem.of(Source.of(table), params, 0, 1), on_iteration=remember)
    rows = table.space.enumerate()
    keys, values = table.space.key(rows), table(rows)
    at = layout(table.space.encode(rows).astype(np.float64))
    final = result.state.archive.keys[result.members]
    panels = {
        "full space": keys,
        f"iteration {ITERATION}": spaces[ITERATION],
        "shrunk space": final,
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.4), layout="constrained")
    low, high = np.quantile(values, 0.1), values.max()
    for axis, (name, members) in zip(axes, panels.items(), strict=True):
        inside = np.isin(keys, members)
        axis.scatter(*at[~inside].T, s=4, color="#e4e4e4", linewidths=0)
        dots = axis.scatter(*at[inside].T, s=9, c=values[inside], vmin=low, vmax=high, cmap="viridis", linewidths=0)
        best = at[values.argmax()]
        axis.scatter(*best, s=150, marker="*", color="#d62728", edgecolors="white", label="best architecture")
        axis.set_title(f"{name}\n{inside.sum():,} architectures, mean {values[inside].mean():.2f} %", fontsize=12)
        axis.set_aspect("equal")
        axis.axis("off")
    figure.colorbar(dots, ax=axes, label="CIFAR-10 test accuracy (%)", extend="min", pad=0.01)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
