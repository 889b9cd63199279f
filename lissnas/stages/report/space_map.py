"""The paper's Figure 1 with real data: a map of a space, its accuracies, and the shrunk space of each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lissnas.benchmarks import Benchmark
from lissnas.core.rng import stream
from lissnas.metrics.diversity import DiversityReference
from lissnas.plots.figures import BLUE, GREY, plain, sheet
from lissnas.spaces import Archs, FloatArray, Keys
from lissnas.stages.report.page import Picture

LANDMARKS = 2_000
"""Number of uniform networks that t-SNE embeds; they represent the full space."""
SHOWN = 400
"""Maximum number of members of each shrunk space in the map, drawn uniformly."""
NEAREST = 3
PERPLEXITY = 30.0
STAR = "#d62728"


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


@dataclass(frozen=True)
class SpaceMap:
    """A map of a space and of shrunk spaces in it: uniform samples, with `(n, 2)` coordinates."""

    benchmark: Benchmark
    full: tuple[Archs, FloatArray]
    """The landmarks and their coordinates."""
    shrunk: Mapping[str, tuple[Archs, FloatArray]]
    keys: Mapping[str, Keys]
    """All members of the shrunk spaces, by method."""
    best: tuple[Archs, FloatArray]
    """The three best architectures."""

    @classmethod
    def of(cls, benchmark: Benchmark, reference: DiversityReference, keys: Mapping[str, Keys]) -> SpaceMap:
        """Lay out a benchmark's space and place the members of shrunk spaces in it."""
        space = benchmark.space
        landmarks = space.sample_distinct(min(LANDMARKS, space.size()), stream(0, "map", benchmark.name))
        features = reference.embed(landmarks)
        at = layout(features)
        every = space.enumerate()
        sorted_keys = space.key(every)

        def placed(keys: Keys) -> tuple[Archs, FloatArray]:
            rows = every[np.searchsorted(sorted_keys, keys)]
            return rows, place(reference.embed(rows), features, at)

        def few(name: str) -> Keys:
            rng = stream(0, "map", benchmark.name, name)
            return keys[name][np.sort(rng.permutation(len(keys[name]))[:SHOWN])]

        best = benchmark.keys[np.argsort(-benchmark.values, kind="stable")[:3]]
        shrunk = {name: placed(few(name)) for name in keys}
        return cls(benchmark, (landmarks, at), shrunk, keys, placed(best))

    @property
    def scale(self) -> tuple[float, float]:
        """The ends of the colour scale, from the 10th percentile: failed networks would hide other differences."""
        values = self.benchmark(self.full[0])
        return float(np.quantile(values, 0.1)), float(values.max())

    def picture(self, method: str) -> Picture:
        """Draw the full space, a method's shrunk space, and the values of both."""
        benchmark, every = self.benchmark, self.benchmark.values
        own = benchmark.look_up(self.keys[method])
        sizes = {"full space": every, f"shrunk by {method}": own}
        low, high = self.scale
        figure, (full, part, values) = sheet(f"{benchmark.name}, before and after", 12, 3.9, 3)
        part.scatter(*self.full[1].T, s=4, color="#e1e4e8", linewidths=0, rasterized=True)
        style = {"vmin": low, "vmax": high, "cmap": "viridis", "linewidths": 0, "rasterized": True}
        for axes, (members, spots), size in ((full, self.full, 6), (part, self.shrunk[method], 12)):
            dots = axes.scatter(*spots.T, s=size, c=benchmark(members), **style)
            axes.scatter(*self.best[1].T, s=90, marker="*", color=STAR, edgecolors="white")
            axes.axis("off")
        metric = benchmark.metric.partition(",")[0]
        figure.colorbar(dots, ax=(full, part), label=metric, extend="min", pad=0.01, fraction=0.03)
        bins = np.linspace(min(float(np.quantile(every, 0.02)), float(own.min())), float(every.max()), 50)
        for (name, shown), axes, colour in zip(sizes.items(), (full, part), (GREY, BLUE), strict=True):
            axes.set_title(f"{name}\n{len(shown):,} architectures, mean {shown.mean():.4g}", fontsize=10)
            share = np.histogram(shown, bins)[0] / len(shown)
            values.stairs(share, bins, fill=True, alpha=0.75, color=colour, label=name)
        values.set(xlabel=metric, ylabel="share of architectures")
        plain(values, loc="upper left")
        values.set_axisbelow(True)
        caption = (
            f"{method} shrinks {len(every):,} architectures to {len(own):,}; their mean rises from {every.mean():.4g} "
            f"to {own.mean():.4g}. Each dot is an architecture of a uniform sample, similar architectures are close "
            "(t-SNE), stars are the three best; first seed."
        )
        return Picture(f"A space before and after: {benchmark.name}", caption, figure)

    def plotly(self, colours: Mapping[str, str]) -> dict[str, Any]:
        """Return a plotly figure, as JSON data, of the full space and of the methods in `colours`.

        Hovering over a point shows architecture, accuracy and FLOPs; the legend toggles methods.
        """
        benchmark, (rows, at) = self.benchmark, self.full
        low, high = self.scale
        bar = {"title": {"text": benchmark.metric.partition(",")[0], "side": "right"}, "thickness": 12}
        points = {"size": 5, "color": np.round(benchmark(rows), 4).tolist(), "opacity": 0.65, "colorbar": bar}
        scale = {"cmin": low, "cmax": high, "colorscale": "Viridis"}
        traces = [_trace(benchmark, "full space", rows, at) | {"marker": points | scale}]
        for name in self.shrunk:
            if name in colours:
                marker = {"size": 6, "color": colours[name], "symbol": "circle-open", "line": {"width": 1.3}}
                visible: bool | str = True if name == "lissnas" else "legendonly"
                title = f"{name} ({len(self.keys[name]):,})"
                traces.append(_trace(benchmark, title, *self.shrunk[name]) | {"marker": marker, "visible": visible})
        star = {"size": 13, "color": STAR, "symbol": "star", "line": {"width": 1, "color": "white"}}
        traces.append(_trace(benchmark, "the three best", *self.best) | {"marker": star})
        axis = {"visible": False}
        layout_ = {
            "xaxis": axis,
            "yaxis": {**axis, "scaleanchor": "x"},
            "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
            "legend": {"itemsizing": "constant", "orientation": "h", "y": 0, "yanchor": "top"},
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
