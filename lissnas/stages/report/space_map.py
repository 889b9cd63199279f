"""The paper's Figure 1 with real data: a map of a space, its accuracies, and the shrunk space of each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from lissnas.benchmarks import Benchmark
from lissnas.core.rng import stream
from lissnas.metrics.diversity import DiversityReference
from lissnas.plots.comparison import colours
from lissnas.spaces import Archs, FloatArray, Keys

LANDMARKS = 2_000
"""Number of uniform networks that t-SNE embeds; they represent the full space."""
SHOWN = 400
"""Maximum number of members of each shrunk space in the map, drawn uniformly."""
NEAREST = 3
PERPLEXITY = 30.0


def layout(features: FloatArray) -> FloatArray:
    """Return `(n, 2)` coordinates by t-SNE; they don't depend on the number of threads."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
        model = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=0, n_jobs=1)
        return np.asarray(model.fit_transform(features), np.float64)


def place(features: FloatArray, landmarks: FloatArray, at: FloatArray) -> FloatArray:
    """Return `(n, 2)` coordinates: the distance-weighted mean of the three nearest landmarks."""
    from sklearn.neighbors import KNeighborsRegressor

    near = KNeighborsRegressor(min(NEAREST, len(landmarks)), weights=lambda distance: 1 / (distance + 1e-9) ** 2)
    return np.asarray(near.fit(landmarks, at).predict(features), np.float64)


def space_map(benchmark: Benchmark, reference: DiversityReference, spaces: Mapping[str, Keys]) -> dict[str, Any]:
    """Return a plotly figure (as JSON data) of a space and its shrunk spaces.

    Hovering over a point shows architecture, accuracy and FLOPs; the legend toggles methods.
    """
    space = benchmark.space
    landmarks = space.sample_distinct(min(LANDMARKS, space.size()), stream(0, "map", benchmark.name))
    features = reference.embed(landmarks)
    at = layout(features)
    values = benchmark(landmarks)
    # The colour scale starts at the 10th percentile: failed networks would hide the other differences.
    low, high = float(np.quantile(values, 0.1)), float(values.max())
    traces = [
        _trace(benchmark, "full space", landmarks, at)
        | {
            "marker": {
                "size": 5,
                "color": np.round(values, 4).tolist(),
                "cmin": low,
                "cmax": high,
                "colorscale": "Viridis",
                "opacity": 0.65,
                "colorbar": {"title": {"text": benchmark.metric.partition(",")[0], "side": "right"}, "thickness": 12},
            }
        }
    ]
    every = space.enumerate()
    sorted_keys = space.key(every)
    shown = colours(list(spaces))
    for name, keys in spaces.items():
        rng = stream(0, "map", benchmark.name, name)
        few = keys[np.sort(rng.permutation(len(keys))[:SHOWN])]
        rows = every[np.searchsorted(sorted_keys, few)]
        marker = {"size": 6, "color": to_hex(shown[name]), "symbol": "circle-open", "line": {"width": 1.3}}
        title = f"{name} ({len(keys):,})"
        visible: bool | str = True if name == "lissnas" else "legendonly"
        spots = place(reference.embed(rows), features, at)
        traces.append(_trace(benchmark, title, rows, spots) | {"marker": marker, "visible": visible})
    best = every[np.searchsorted(sorted_keys, benchmark.keys[np.argsort(-benchmark.values, kind="stable")[:3]])]
    star = {"size": 13, "color": "#d62728", "symbol": "star", "line": {"width": 1, "color": "white"}}
    spots = place(reference.embed(best), features, at)
    traces.append(_trace(benchmark, "the three best", best, spots) | {"marker": star})
    axis = {"visible": False}
    layout_ = {
        "xaxis": axis,
        "yaxis": {**axis, "scaleanchor": "x"},
        "height": 620,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "legend": {"itemsizing": "constant", "x": 1.12},
        "hovermode": "closest",
        "plot_bgcolor": "white",
    }
    return {"data": traces, "layout": layout_}


def _trace(benchmark: Benchmark, name: str, rows: Archs, at: FloatArray) -> dict[str, Any]:
    values = benchmark(rows)
    flops = benchmark.space.costs(rows).get("flops")
    cost = [""] * len(rows) if flops is None else [f"<br>{f / 1e6:,.1f} M FLOPs" for f in flops.tolist()]
    names = benchmark.space.format(rows)
    text = [f"{a}<br>{v:.4g}{c}" for a, v, c in zip(names, values.tolist(), cost, strict=True)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": np.round(at[:, 0], 2).tolist(),
        "y": np.round(at[:, 1], 2).tolist(),
        "text": text,
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
    }
