"""Fair comparison of methods: same predictor, query budget and target size; one row per method and seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from lissnas.benchmarks import Benchmark
from lissnas.config import EliteConfig, PaperConfig, Params, ShrinkParams, shrink_params
from lissnas.core.errors import LissnasError, UserError
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
from lissnas.predictors.score_table import ScoreTable
from lissnas.shrinkers.comparison_summary import SHARES
from lissnas.shrinkers.lissnas import cut, shrink
from lissnas.shrinkers.methods import by_name, labels_of_others, rival_on, within
from lissnas.shrinkers.own_table import n_learned, split, with_table
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.selection import select_top, target_size
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.spaces import Archs, FloatArray, Keys, Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

MAX_TABULATED = 1_000_000
"""Maximum size of a space of which all scores are computed; packaged tables are smaller."""
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
    """Values of all architectures, of the labelled ones, or of a sample of 100,000."""

    @classmethod
    def of(cls, given: Benchmark | Source) -> FullSpaceStatistics:
        """Compute the statistics; raises UserError if methods can't be compared on the space."""
        source = source_of(given)
        space = source.space
        if space.size() < 2:
            raise UserError(f"{source.name} has one architecture; a comparison needs at least two")
        if source.truth is not None:
            values = source.truth.values
        elif source.labels is not None:
            values = source.labels.values
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
    """Return the source, with complete labels as its table.

    Raises UserError unless it has a table, labels, or a surrogate that is queried directly.
    """
    source = with_table(given if isinstance(given, Source) else Source.of(given))
    if source.labels is not None and source.oracle is not None:
        raise UserError(
            f"{source.name} has labels and an oracle that collects more; methods are compared on the labels only, so "
            "leave the oracle out"
        )
    if source.truth is None and source.scorer is None and source.labels is None:
        raise UserError(
            f"{source.name} has neither true values nor a surrogate that is queried directly, so methods can't be "
            "compared on it: give --benchmark, --space ofa_mobilenetv3 or gpt_s, or your own space and --labels or "
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
    """Of a tabulated space, the table of its scores."""
    ours: Shrunk
    seconds: float
    threads: int
    _measured: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    _within: dict[int, Shrunk] = field(default_factory=dict, repr=False)

    @property
    def budget(self) -> int:
        """Query budget of every method: the number that ours used."""
        return self.ours.state.queries

    @property
    def ours_diversity(self) -> float:
        """The share of the space that ours reserves for strata of FLOPs."""
        assert isinstance(self.params.method, EliteConfig)
        return self.params.method.diversity

    @property
    def target(self) -> int:
        """The target size of every method."""
        assert self.ours.state.target is not None
        return self.ours.state.target

    def ours_within(self, budget: int) -> Shrunk:
        """Return our method's result within a smaller query budget; cached, since all methods have the same budgets."""
        if budget not in self._within:
            self._within[budget] = within(self.ours, budget)
        return self._within[budget]

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
    known = None if source.truth is not None else 0 if source.labels is None else n_learned(params, source)
    p = shrink_params(elite, source.name, seed, source.space.size(), source.digest, known)
    unknown = p.target_size is None and source.scorer is not None
    if unknown or (p.target_size or 0) > LISTABLE:
        raise UserError(f"target_size: a comparison on {source.name} needs one of at most {LISTABLE:,}")
    return p


def start_comparison(full_space: FullSpaceStatistics, params: Params, seed: int, threads: int = 0) -> ComparisonRun:
    """Draw uniform labels, fit the predictor that all methods query, and run our method with it.

    The predictor scores a space that can be listed once, and methods look its answers up. Without a table, labels are a
    part of the given ones. A surrogate is queried directly and needs no labels.
    """
    source, space = full_space.source, full_space.space
    p = comparison_params(params, source, seed)
    predictor: Scorer
    if source.scorer is not None:
        predictor = source.scorer
    else:
        if source.truth is not None:
            rows = space.sample_distinct(p.labels, stream(seed, "compare", "labels"))
            values = source.truth(rows)
        else:
            learned = split(source, p.labels, seed)
            rows, values = learned.learned, learned.learned_values
        fitted = Predictor.fit(space, rows, values, p.predictor, seed, threads)
        if p.target_size is None:
            assert fitted.out_of_fold is not None
            size, _ = target_size(space, fitted.out_of_fold, values)
            p = p.model_copy(update={"target_size": size})
        predictor = fitted if space.size() > MAX_TABULATED else ScoreTable.of(space, fitted, threads)
    started = time.perf_counter()
    ours = shrink(Problem(source, p, threads, predictor))
    seconds = time.perf_counter() - started
    return ComparisonRun(full_space, p, params.shrink.paper, predictor, ours, seconds, threads)


@dataclass(frozen=True)
class Attempt:
    """A method's shrunk space, the architectures whose scores it queried, and its own time."""

    part: Subspace
    scored: Archs
    scores: FloatArray
    seconds: float
    members: Archs
    """For a product that is too large to list, a uniform sample."""

    @property
    def queries(self) -> int:
        """Number of distinct architectures scored."""
        return len(self.scores)


def run_method(run: ComparisonRun, name: str) -> MethodResult:
    """Run a method and measure its shrunk space, together with ours cut to the same size.

    On a tabulated space `seconds` is the method's own time plus that of the predictions it queried; else it is the
    elapsed time.
    """
    found = attempt(run, name, run.budget)
    seconds = found.seconds + (run.seconds if name == "lissnas" else 0)
    if isinstance(run.predictor, ScoreTable) and name != "lissnas_collect":
        seconds += found.queries * run.predictor.seconds
    full_space, seed, part, method = run.full_space, run.params.seed, found.part, by_name(name)
    if not len(found.members):
        raise UserError(f"{name} returned an empty space of {full_space.source.name}")
    values = full_space.source.evaluate(found.members, run.threads)
    ours = run.ours_at(part.size())
    tabled = full_space.source.truth is not None
    row: dict[str, Any] = {
        "method": name,
        "seed": seed,
        "size": part.size(),
        "queries": found.queries,
        "labels": (run.params.labels if method.needs_labels else 0) + labels_of_others(method, full_space.source),
        "kind": part.kind,
        **({} if tabled else {"judged": len(found.members)}),
        **full_space.measure(found.members, seed, values, part.size()),
        "seconds": seconds,
    }
    columns = ("size", "mean_true", "kept_best" if tabled else "max_true", "flops_coverage")
    row |= {f"ours_{c}": ours[c] for c in columns if c in ours}
    row |= with_quota(run, found)
    return MethodResult(row, full_space.space.key(found.members), values)


def with_quota(run: ComparisonRun, found: Attempt) -> dict[str, Any]:
    """Return mean and FLOPs coverage of the best that a method scored, at its size, with our quota of each stratum.

    None if it scored too few, or if ours is without quota.
    """
    size, strata = found.part.size(), run.ours.state.strata
    if len(found.scores) < size or strata is None:
        return {"quota_mean_true": None, "quota_flops_coverage": None}
    stratum, diversity = strata.of_each(run.full_space.space, found.scored), run.ours_diversity
    rows = found.scored[select_top(found.scores, stratum, strata.weight, size, diversity, strict=True)]
    mean = float(run.full_space.source.evaluate(rows, run.threads).mean())
    coverage = run.full_space.diversity.cost_coverage(rows).get("flops_coverage")
    return {"quota_mean_true": mean, "quota_flops_coverage": coverage}


def with_part_of_budget(run: ComparisonRun, name: str) -> dict[str, float | None]:
    """Return the mean that a method reaches with each of `SHARES` percent of the query budget, and ours at that size.

    None if the method needs the full budget or fails with less.
    """
    out: dict[str, float | None] = {}
    method, source = by_name(name), run.full_space.source
    for share in SHARES:
        budget = run.budget * share // 100
        values: list[float] | list[None] = [None, None]
        if not (method.needs_table or method.needs_listing):
            with suppress(LissnasError):
                ours = run.ours_within(budget)
                found = None if name == "lissnas" else attempt(run, name, budget)
                same_size = cut(ours, ours.size if found is None else found.part.size())
                rows = same_size if found is None else found.members
                values = [float(source.evaluate(archs, run.threads).mean()) for archs in (rows, same_size)]
        out |= dict(zip((f"mean_true_{share}", f"ours_mean_true_{share}"), values, strict=True))
    return out


def diversity_curve(run: ComparisonRun, diversities: Sequence[float]) -> list[dict[str, Any]]:
    """Return mean and FLOPs coverage of our method at each `diversity`."""
    out = []
    for diversity in diversities:
        method = run.params.method.model_copy(update={"diversity": diversity})
        problem = replace(run.ours.problem, params=run.params.model_copy(update={"method": method}))
        result = run.ours if method == run.params.method else shrink(problem)
        rows = cut(result, run.target)
        mean = float(run.full_space.source.evaluate(rows, run.threads).mean())
        about = {"seed": run.params.seed, "diversity": diversity, "size": len(rows), "mean_true": mean}
        out.append(about | run.full_space.diversity.cost_coverage(rows))
    return out


def attempt(run: ComparisonRun, name: str, budget: int) -> Attempt:
    """Shrink with the method `name` within a query budget; raises UnknownName."""
    method, space = by_name(name), run.full_space.space
    started = time.perf_counter()
    if method.variant is not None:
        result = method.variant(run.ours, run.paper, budget)
        archive = result.state.archive
        part, scored, scores = result.subspace, archive.rows, archive.scores.astype(np.float64)
    else:
        rival = rival_on(method, run.full_space.source, run.params.seed)
        scorer = partial(run.predictor.score, threads=run.threads)
        oracle = CountedOracle(scorer, space, space.size() if method.needs_listing else budget)
        part = rival(space, oracle, run.target, stream(run.params.seed, "compare", name))
        scored, scores = oracle.queried()
    seconds = time.perf_counter() - started
    listed = part.kind == "set" or space.size() <= LISTABLE
    members = part.members if listed else part.sample(N_EVALUATED, stream(run.params.seed, "judge", name))
    return Attempt(part, scored, scores, seconds, members)


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
