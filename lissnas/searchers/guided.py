"""Guided search: Thompson sampling from the posterior of a predictor, as in BANANAS (White et al., 2021).

Candidates are mutants of the best evaluated and of the best predicted architectures, uniform ones, and the members of
a given set, such as a shrunk space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from lissnas.config import PredictorConfig
from lissnas.predictors.posterior import Posterior
from lissnas.searchers.base import History, Search, Searched, can_list, inside, space_of, without
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.subspace import Subspace

FIRST = 20
"""Uniform architectures before the first model."""
BATCH = 10
"""Architectures proposed by one model; 5 to 25 give the same, 50 are slightly worse (measured)."""
PARENTS, MUTANTS = 20, 30
"""Best evaluated architectures that are mutated, and mutants of each."""
N_UNIFORM = 200
STEPS, BEST_PREDICTED = 2, 30
"""Times that the best predicted candidates are mutated in turn, and their number."""
MAX_EDITS = 2
MAX_CANDIDATES = 300
"""Candidates with the highest means, for which the deviation is computed: others have next to no chance."""
MAX_POOL = 30_000
"""Maximum size of a space or subspace of which all members are candidates; of a larger one, a uniform sample."""
DECIMALS = 5
"""Decimals of drawn values: rounding removes what depends on the order of summation."""
SETTINGS = PredictorConfig(trees=300, depth=6, eta=0.05, subsample=0.7, colsample=0.5, min_child_weight=5, held_out=1)
"""Trees of a search without a configuration: those of params.yaml."""


@dataclass(frozen=True)
class Evidence:
    """What is known when architectures are proposed; rows are distinct and canonical.

    A failed architecture counts as the worst value, so that a region that fails often is avoided (as in SMAC:
    Hutter et al., 2011).
    """

    rows: Archs
    values: FloatArray
    """`(n,)`, higher is better; NaN for a failed training."""
    pending: Archs
    """Architectures whose value is on the way."""
    repeats: IntArray | None = None
    """Number of labels of which each value is the mean."""

    @property
    def taken(self) -> Archs:
        """Architectures that may not be proposed."""
        return np.concatenate([self.rows, self.pending])

    @property
    def informative(self) -> bool:
        """Whether a model can be fitted: there are two different values."""
        finite = self.values[~np.isnan(self.values)]
        return len(finite) > 1 and float(np.ptp(finite)) > 0

    def posterior(self, space: Space, settings: PredictorConfig, seed: int) -> Posterior:
        """Return the posterior; needs `informative` evidence."""
        values = np.where(np.isnan(self.values), np.nanmin(self.values), self.values)
        return Posterior.fit(space, self.rows, values, settings, seed, self.repeats, self.pending)


def propose(
    searched: Searched,
    evidence: Evidence,
    n: int,
    rng: Generator,
    settings: PredictorConfig = SETTINGS,
    pool: Archs | None = None,
) -> Archs:
    """Return the `n` candidates with the highest draws from the posterior, best first; fewer if there are fewer.

    `pool` are further candidates. Nothing is proposed without two different values to fit a model to.
    """
    space = space_of(searched)
    if not evidence.informative or n < 1:
        return evidence.rows[:0]
    posterior = evidence.posterior(space, settings, int(rng.integers(2**31)))
    rows, mean = candidates(searched, evidence, posterior, rng, pool)
    likely = np.argsort(-mean, kind="stable")[: max(MAX_CANDIDATES, n)]
    deviation = posterior.deviation(space.encode(rows[likely]))
    drawn = np.round(mean[likely] + deviation * rng.standard_normal(len(likely)), DECIMALS)
    return rows[likely[np.argsort(-drawn, kind="stable")[:n]]]


def candidates(
    searched: Searched, evidence: Evidence, posterior: Posterior, rng: Generator, pool: Archs | None = None
) -> tuple[Archs, FloatArray]:
    """Return distinct members that are not evaluated or pending, and their posterior means.

    They are those of the pool, uniform ones, and mutants of the best.
    """
    space = space_of(searched)
    best = evidence.rows[np.argsort(-evidence.values, kind="stable")[:PARENTS]]
    new = np.concatenate([*([] if pool is None else [pool]), _listed(searched, rng), mutants(searched, best, rng)])
    rows, mean, taken = new[:0], np.empty(0), space.key(evidence.taken)
    for step in range(1 + STEPS):
        new = without(space, new, np.sort(np.concatenate([taken, space.key(rows)])))
        rows = np.concatenate([rows, new])
        mean = np.concatenate([mean, posterior.mean(space.encode(new))]) if len(new) else mean
        if step < STEPS:
            new = mutants(searched, rows[np.argsort(-mean, kind="stable")[:BEST_PREDICTED]], rng)
    return rows, mean


def mutants(searched: Searched, parents: Archs, rng: Generator) -> Archs:
    """Return members one or two edits away from the parents, `MUTANTS` drawn for each."""
    space = space_of(searched)
    repeated = np.repeat(parents, MUTANTS, axis=0)
    edits = rng.integers(1, min(MAX_EDITS, space.max_edits) + 1, len(repeated))
    return inside(searched, space.mutate(repeated, edits, rng))


def _listed(searched: Searched, rng: Generator) -> Archs:
    """Return all members of a small space or subspace, else a uniform sample."""
    if searched.size() > MAX_POOL or (isinstance(searched, Subspace) and not can_list(searched)):
        return searched.sample(N_UNIFORM, rng)
    return searched.members if isinstance(searched, Subspace) else searched.enumerate()


def by_history(searched: Searched, history: History, n: int, rng: Generator) -> Archs:
    """Propose by the posterior of all evaluated architectures; nothing, so uniform ones, at first."""
    if len(history.rows) < FIRST:
        return history.rows[:0]
    return propose(searched, Evidence(history.rows, history.scores, history.rows[:0]), n, rng)


guided = Search(by_history, BATCH)
