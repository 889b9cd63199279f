"""A rival, or a shrinker of the user, alone: labels, predictor, the method within a query budget, result files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lissnas import artifacts
from lissnas.config import Params
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.lissnas import Call, plain_call, shrink, start
from lissnas.shrinkers.methods import by_name
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.result import files_of
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import State
from lissnas.spaces import Archs
from lissnas.spaces.base import LISTABLE, is_in
from lissnas.spaces.subspace import Subspace

INSTEAD = {
    "lissnas": "it is the default; leave --method out",
    "lissnas_collect": "it is the default; leave --method out",
    "lissnas_paper": "give --variant paper",
}
"""How to run the variants of our method, which are no shrinkers with the shared signature."""
MAX_DRAWN = 1_000_000
"""Maximum size of a product that is listed by drawing from it."""
DRAWN = 4
"""Draws per member and batch."""
MAX_DRAWS = 64
"""Batches, of which a million members need about five."""


def check_method(name: str | None, params: Params | None = None) -> None:
    """Raise UserError unless the method can run alone, with these parameters if given; None is our method."""
    if name is None:
        return
    if by_name(name).rival is None:
        raise UserError(f"--method {name}: {INSTEAD.get(name, 'it runs in `lissnas compare` only')}")
    if params is not None and params.shrink.variant != "elite":
        raise UserError(f"--variant {params.shrink.variant} is a variant of lissnas; remove it, or --method {name}")


@dataclass(frozen=True)
class Alone:
    """The space that a method returned."""

    method: str
    shrunk: Shrunk
    """Its members, best predicted first."""
    queries: int
    budget: int

    def files(self) -> dict[str, bytes]:
        """Return the files of a shrink's folder; `iterations.parquet` has one row, for the method's space."""
        files = files_of(self.shrunk)
        del files["iterations.png"]
        metrics = json.loads(files["metrics.json"])
        del metrics["variant"]
        metrics |= {"method": self.method, "queries": self.queries, "max_queries": self.budget}
        return {**files, "metrics.json": artifacts.to_json(metrics)}


def shrink_alone(
    problem: Problem, name: str, call: Call = plain_call, on_iteration: Callable[[State], None] | None = None
) -> Alone:
    """Draw uniform labels, fit the predictor, and shrink with the method within the query budget.

    The budget is `max_queries`, by default what lissnas uses with the same predictor; `on_iteration` reports that
    shrink. Raises UserError for a target, or a product of choices, that is too large to list.
    """
    params, space = problem.params, problem.space
    method = by_name(name)
    assert method.rival is not None
    uniform = params.method.model_copy(update={"first_labels": 1.0, "label_rounds": 0})
    changed = params.model_copy(update={"method": uniform, "max_queries": None})
    state = start(replace(problem, params=changed), call)
    assert state.predictor is not None
    assert state.target is not None
    if max(state.target, space.size() if method.needs_listing else 0) > LISTABLE:
        raise UserError(f"--method {name} needs a target, or a space, of at most {LISTABLE:,} architectures")
    budget = params.max_queries
    if method.needs_listing:
        budget = space.size()
    if budget is None:
        budget = shrink(replace(problem, fitted=state.predictor), call, None, on_iteration).state.queries
    oracle = CountedOracle(partial(state.predictor.score, threads=problem.threads), space, budget)
    part = method.rival(space, oracle, state.target, stream(params.seed, "shrink", name))
    rows = _listed(part, name)
    if not len(rows):
        raise UserError(f"{name} returned an empty space of {space.name}")
    return Alone(name, _shrunk(problem, state, rows, name, oracle.queries), oracle.queries, budget)


def _shrunk(problem: Problem, state: State, rows: Archs, name: str, queries: int) -> Shrunk:
    """Return the members as rows of the state's archive, best predicted first, with the record of one iteration."""
    keys, known = problem.space.key(rows), state.archive.keys
    new = ~is_in(keys, np.sort(known))
    state = state.extend(problem, rows[new], keys[new], None, np.zeros(int(new.sum()), np.int64))
    archive, scores = state.archive, state.archive.scores.copy()
    assert state.predictor is not None
    todo = np.flatnonzero(np.isnan(scores))
    scores[todo] = state.predictor.score(archive.rows[todo], problem.threads)
    order = np.argsort(archive.keys)
    members = order[np.searchsorted(archive.keys, keys, sorter=order)]
    members = members[np.argsort(-scores[members], kind="stable")]
    stop = f"{name} returned its space"
    state = replace(state, archive=replace(archive, scores=scores), current=members, stop=stop).record(problem, 1.0)
    record = {**state.records[-1], "queries": queries}
    return Shrunk(problem, replace(state, records=(record,)), members)


def _listed(part: Subspace, name: str) -> Archs:
    """Return the members of a set or a product; raises UserError for a product that is too large to list.

    In a space that is too large to list, uniform draws are repeated until all members were drawn.
    """
    space, size = part.space, part.size()
    if part.allowed is None or space.size() <= LISTABLE:
        return part.members
    rows, rng = np.empty((0, space.genome_len), np.int8), stream(0, "members", space.name)
    for _ in range(MAX_DRAWS if size <= MAX_DRAWN else 0):
        rows = np.concatenate([rows, part.sample(DRAWN * size, rng)])
        rows = rows[np.unique(space.key(rows), return_index=True)[1]]
        if len(rows) == size:
            return rows
    raise UserError(
        f"{name} returned a product of {size:,} architectures of {space.name}, which can't be listed; "
        "`lissnas compare` evaluates it on a sample"
    )
