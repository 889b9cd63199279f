"""Fair comparison of methods: same predictor, query budget and target size; one row per method and seed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from lissnas.benchmarks import Benchmark
from lissnas.config import PaperConfig, Params, ShrinkParams, shrink_params
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.metrics.diversity import DiversityReference
from lissnas.metrics.quality import (
    complexity_weights,
    edf_auc,
    error_window,
    good_threshold,
    ks,
    share_good,
    share_interval,
    shrink_index,
    top_kept,
    top_mean,
)
from lissnas.oracles.base import CountedOracle
from lissnas.predictors.accuracy import Predictor, Scorer
from lissnas.shrinkers.lissnas import cut, shrink
from lissnas.shrinkers.methods import REFERENCES, by_name, rival_on
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.selection import target_size
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.spaces import Archs, FloatArray, Keys, Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

N_EVALUATED = 10_000
"""Members sampled to evaluate a product that is too large to list."""


@dataclass(frozen=True)
class FullSpaceStatistics:
    """Values, thresholds and diversity of the full space, the same for all seeds.

    Without a table, values come from a surrogate, and a uniform sample represents the space.
    """

    source: Source
    diversity: DiversityReference
    values: FloatArray
    """Values of all architectures, or of a sample of 100,000."""

    @classmethod
    def of(cls, given: Benchmark | Source) -> FullSpaceStatistics:
        """Compute the statistics; raises UserError if methods can't be compared on the space."""
        source = source_of(given)
        space = source.space
        if space.size() < 2:
            raise UserError(f"{source.name} has one architecture; a comparison needs at least two")
        if source.truth is not None:
            values = source.truth.values
        else:
            values = source.evaluate(space.all_or_many(stream(0, "full space", space.name)))
        full_space = cls(source, DiversityReference.of(space), values)
        _ = full_space.threshold
        return full_space

    @property
    def space(self) -> Space:
        """The space that is shrunk."""
        return self.source.space

    @cached_property
    def threshold(self) -> float:
        """Value that good networks exceed."""
        return good_threshold(self.values)

    @cached_property
    def window(self) -> float:
        """Upper end of the error window for AUCs."""
        return error_window(self.values)

    def measure(
        self, archs: Archs, seed: int, values: FloatArray | None = None, size: int | None = None
    ) -> dict[str, Any]:
        """Return all metrics of a part of the space that depend only on its members.

        `values` are those of `archs`, if known. If `archs` are a sample, `size` is that of the whole part.
        Metrics relative to the best value are omitted without a table, since the best is unknown.
        """
        full, truth = self.values, self.source.truth
        values = self.source.evaluate(archs) if values is None else values
        p, p_full = share_good(values, self.threshold), share_good(full, self.threshold)
        low, high = share_interval(values, self.threshold)
        statistic, p_value = ks(values, full)
        costs = self.space.costs(archs)
        found: dict[str, Any] = {
            "size": len(archs) if size is None else size,
            "mean_true": float(values.mean()),
            "median_true": float(np.median(values)),
            "max_true": float(values.max()),
            "top10_mean": top_mean(values, 10),
        }
        if truth is not None:
            found |= {"kept_best": bool(values.max() == truth.best), "top10_kept": top_kept(values, full)}
        found |= {
            "p_good": p,
            "p_good_low": low,
            "p_good_high": high,
            "shrink_index": shrink_index(p, p_full),
            "shrink_index_10_2": shrink_index(p, p_full, 10, 2),
        }
        if truth is not None:
            found["edf_auc"] = edf_auc(values, truth.best, self.window)
        found |= {"ks": statistic, "ks_p": p_value}
        if truth is not None and "flops" in costs:
            weights = complexity_weights(costs["flops"], self.diversity.edges("flops"))
            found["edf_auc_by_flops"] = edf_auc(values, truth.best, self.window, weights)
        return found | self.diversity.measure(archs, stream(seed, "diversity"))


def source_of(given: Benchmark | Source) -> Source:
    """Return the source; raises UserError unless it has a table or a surrogate that is queried directly."""
    source = given if isinstance(given, Source) else Source.of(given)
    if source.truth is None and source.scorer is None:
        raise UserError(
            f"{source.name} has neither a table of true values nor a surrogate that is queried directly, so methods "
            "can't be compared on it: give --benchmark, --space ofa_mobilenetv3 or gpt_s, or your own space and "
            "--oracle-model"
        )
    return source


@dataclass(frozen=True)
class ComparisonRun:
    """What all methods share for a seed: the predictor, and the result of our method with it."""

    full_space: FullSpaceStatistics
    params: ShrinkParams
    paper: PaperConfig
    predictor: Scorer
    ours: Shrunk
    seconds: float
    threads: int
    _measured: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def budget(self) -> int:
        """Query budget of every method: the number that ours used."""
        return self.ours.state.queries

    @property
    def target(self) -> int:
        """The target size of every method."""
        assert self.ours.state.target is not None
        return self.ours.state.target

    def ours_at(self, size: int) -> dict[str, Any]:
        """Return the metrics of our method cut to a size; cached, since many methods have the same size."""
        if size not in self._measured:
            rows = cut(self.ours, size)
            values = self.full_space.source.evaluate(rows, self.threads)
            self._measured[size] = self.full_space.measure(rows, self.params.seed, values)
        return self._measured[size]


@dataclass(frozen=True)
class MethodResult:
    """A method's row, and keys and values of its shrunk space, best first if the method ranks.

    For a product that is too large to list, those of a uniform sample.
    """

    row: Mapping[str, Any]
    keys: Keys
    values: FloatArray


def comparison_params(params: Params, given: Benchmark | Source, seed: int) -> ShrinkParams:
    """Return the parameters of our method in a comparison; raises ConfigError if they don't fit the space."""
    source = source_of(given)
    elite = params.model_copy(update={"shrink": params.shrink.model_copy(update={"variant": "elite"})})
    known = None if source.truth is not None else 0
    p = shrink_params(elite, source.name, seed, source.space.size(), source.digest, known)
    if source.truth is None and (p.target_size is None or p.target_size > LISTABLE):
        raise UserError(f"target_size: a comparison on {source.name} needs one of at most {LISTABLE:,}")
    return p


def start_comparison(full_space: FullSpaceStatistics, params: Params, seed: int, threads: int = 0) -> ComparisonRun:
    """Draw uniform labels, fit the predictor that all methods query, and run our method with it.

    Without a table, all methods query the surrogate, which needs no labels.
    """
    source, space = full_space.source, full_space.space
    p = comparison_params(params, source, seed)
    if source.truth is None:
        assert source.scorer is not None
        predictor = source.scorer
    else:
        rows = space.sample_distinct(p.labels, stream(seed, "compare", "labels"))
        values = source.truth(rows)
        predictor = Predictor.fit(space, rows, values, p.predictor, seed, threads)
        if p.target_size is None:
            assert predictor.out_of_fold is not None
            size, _ = target_size(space, predictor.out_of_fold, values)
            p = p.model_copy(update={"target_size": size})
    started = time.perf_counter()
    ours = shrink(Problem(source, p, threads, predictor))
    seconds = time.perf_counter() - started
    return ComparisonRun(full_space, p, params.shrink.paper, predictor, ours, seconds, threads)


def run_method(run: ComparisonRun, name: str) -> MethodResult:
    """Run a method and measure its shrunk space, together with ours cut to the same size."""
    started = time.perf_counter()
    rows, queries, part = shrink_with(run, name)
    seconds = time.perf_counter() - started + (run.seconds if name == "lissnas" else 0)
    full_space, seed = run.full_space, run.params.seed
    if not len(rows):
        raise UserError(f"{name} returned an empty space of {full_space.source.name}")
    values = full_space.source.evaluate(rows, run.threads)
    ours = run.ours_at(part.size())
    tabled = full_space.source.truth is not None
    row: dict[str, Any] = {
        "method": name,
        "seed": seed,
        "size": part.size(),
        "queries": queries,
        "labels": labels_of(run, name),
        "kind": part.kind,
        **({} if tabled else {"judged": len(rows)}),
        **full_space.measure(rows, seed, values, part.size()),
        "seconds": seconds,
    }
    columns = ("size", "mean_true", "kept_best" if tabled else "max_true", "flops_coverage")
    row |= {f"ours_{c}": ours[c] for c in columns if c in ours}
    return MethodResult(row, full_space.space.key(rows), values)


def labels_of(run: ComparisonRun, name: str) -> int:
    """Return the number of labels that a method uses, those of other tasks included."""
    method = by_name(name)
    if method.transfer is not None:
        return run.params.labels + rival_on(name, run.full_space.source, run.params.seed)[1]
    return run.params.labels if method.needs_labels else 0


def diversity_curve(run: ComparisonRun, diversities: Sequence[float], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return mean and FLOPs coverage of our method at each `diversity`, cut to each method's size."""
    out = []
    for diversity in diversities:
        method = run.params.method.model_copy(update={"diversity": diversity})
        problem = replace(run.ours.problem, params=run.params.model_copy(update={"method": method}))
        result = run.ours if method == run.params.method else shrink(problem)
        measured: dict[int, dict[str, Any]] = {}
        for size in dict.fromkeys(sizes.values()):
            rows = cut(result, size)
            mean = float(run.full_space.source.evaluate(rows, run.threads).mean())
            measured[size] = {"size": len(rows), "mean_true": mean} | run.full_space.diversity.cost_coverage(rows)
        about = {"seed": run.params.seed, "diversity": diversity}
        out += [{"method": name, **about, **measured[size]} for name, size in sizes.items()]
    return out


def shrink_with(run: ComparisonRun, name: str) -> tuple[Archs, int, Subspace]:
    """Shrink with the method `name`; return the members, the number of queries, and the shrunk space.

    For a product that is too large to list, the members are a uniform sample. Raises UnknownName.
    """
    method, space = by_name(name), run.full_space.space
    if method.variant is not None:
        result = method.variant(run.ours, run.paper)
        part, queries = result.subspace, result.state.queries
    else:
        rival, _ = rival_on(name, run.full_space.source, run.params.seed)
        scores = partial(run.predictor.score, threads=run.threads)
        oracle = CountedOracle(scores, space, space.size() if method.needs_table else run.budget)
        part = rival(space, oracle, run.target, stream(run.params.seed, "compare", name))
        queries = oracle.queries
    listed = part.kind == "set" or space.size() <= LISTABLE
    rows = part.members if listed else part.sample(N_EVALUATED, stream(run.params.seed, "judge", name))
    return rows, queries, part


def against_best_known(
    full_space: FullSpaceStatistics, entries: Sequence[MethodResult]
) -> tuple[list[Mapping[str, Any]], float]:
    """Return the rows of all methods and seeds, and the error window.

    Without a table, `edf_auc` is relative to the best known value, in the uniform sample or of any method.
    """
    rows = [e.row for e in entries]
    if full_space.source.truth is not None:
        return rows, full_space.window
    best = max(float(v.max()) for v in (full_space.values, *(e.values for e in entries)))
    window = full_space.window + best - float(full_space.values.max())
    full = {
        "full_size": float(full_space.space.size()),
        "full_mean": float(full_space.values.mean()),
        "full_best": float(full_space.values.max()),
        "best_known": best,
    }
    return [{**e.row, "edf_auc": edf_auc(e.values, best, window), **full} for e in entries], window


# -- over seeds ------------------------------------------------------------------------------------
def summarise(rows: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per method: means over seeds with 95 % intervals, and ours at the same size.

    `p` is the p-value of a Wilcoxon signed-rank test, paired by seed, of ours against the method at its
    size, and `p_holm` the same with Holm's correction for the number of rivals; with fewer than six seeds it
    can't be below .05. `curve_mean` is the value of our diversity curve at the method's FLOPs coverage,
    `above_curve` whether the method's mean exceeds it.
    """
    out: list[dict[str, Any]] = []
    for name in dict.fromkeys(r["method"] for r in rows):
        group = [r for r in rows if r["method"] == name]
        column = {c: np.array([float(r[c]) for r in group]) for c in group[0] if isinstance(group[0][c], (int, float))}
        low, high = interval(column["mean_true"])
        gap = column["ours_mean_true"] - column["mean_true"]
        row: dict[str, Any] = {
            "method": name,
            "seeds": len(group),
            **{c: float(v.mean()) for c, v in column.items() if c not in ("seed", "seconds")},
            "mean_true_low": low,
            "mean_true_high": high,
            "ours_minus": float(gap.mean()),
            "ours_ahead": int((gap > 0).sum()),
            "p": None if name == "lissnas" else paired_p(gap),
        }
        if "flops_coverage" in column:
            mean = curve_at([c for c in curve if c["method"] == name], row["flops_coverage"])
            row["curve_mean"] = mean
            row["above_curve"] = None if name in REFERENCES else bool(mean is None or row["mean_true"] > mean)
        out.append(row)
    rivals = [r for r in out if r["method"] not in REFERENCES]
    for row, p in zip(rivals, holm([r["p"] for r in rivals]), strict=True):
        row["p_holm"] = p
    return [{**row, "p_holm": row.get("p_holm")} for row in out]


def interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of the mean over seeds; for one seed, the value itself."""
    from scipy.stats import t as student  # takes longer to import than a small shrink

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, mean
    half = float(student.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def paired_p(gaps: FloatArray) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test; 1 if all differences are 0."""
    from scipy.stats import wilcoxon  # takes longer to import than a small shrink

    gaps = np.round(gaps, 12)  # differences by rounding errors count as 0
    return float(wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(p_values) else scaled
    return [float(p) for p in out]


def curve_at(curve: Iterable[Mapping[str, Any]], coverage: float) -> float | None:
    """Return the mean of a diversity curve at a FLOPs coverage; None beyond its maximum coverage.

    The curve joins means over seeds by lines. Points with more coverage count too, since more coverage at
    the same mean is better; so below its minimum coverage the value is the curve's best mean.
    """
    by_diversity: dict[float, list[tuple[float, float]]] = {}
    for point in curve:
        by_diversity.setdefault(point["diversity"], []).append((point["flops_coverage"], point["mean_true"]))
    points = np.array([np.mean(p, axis=0) for p in by_diversity.values()]).reshape(-1, 2)
    if not len(points) or coverage > points[:, 0].max() + 1e-9:
        return None
    best = [float(m) for c, m in points if c >= coverage - 1e-9]
    for (c0, m0), (c1, m1) in pairwise(points):
        if min(c0, c1) < coverage < max(c0, c1):
            best.append(float(m0 + (m1 - m0) * (coverage - c0) / (c1 - c0)))
    return max(best)
