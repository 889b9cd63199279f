"""The method: sample, predict, select seeds, generate neighbours, check convergence, label.

One loop for both variants. They differ in `choose` (which architectures are the next space) and in
`converged` (when to stop), nowhere else:

* `elite`, the default: the best of everything seen, down to a target size;
* `paper`: the seeds and all their neighbours, while the mean prediction rises (paper, section 4.3).

Each step is a pure function of the state, and draws from a stream named after the step and the
iteration, so that a run can stop after any iteration and go on to the same result. `shrink` takes a
`call` that runs a step: plain Python calls it, a flow runs it as a task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lissnas.errors import UserError
from lissnas.oracles import ask
from lissnas.predictor import Predictor
from lissnas.rng import stream
from lissnas.shrinkers.selection import USELESS, Strata, best, target_size
from lissnas.shrinkers.state import Problem, State
from lissnas.spaces import Archs, IntArray
from lissnas.subspace import Subspace

Step: TypeAlias = Callable[[State, Problem], State]
Call: TypeAlias = Callable[[Step, State, Problem], State]


@dataclass(frozen=True)
class ShrinkResult:
    """The shrunk space, and the state that it came from: `members` are indices into its rows."""

    problem: Problem
    state: State
    members: IntArray

    @property
    def subspace(self) -> Subspace:
        """The shrunk space itself, best predicted first."""
        return Subspace(self.problem.space, listed=self.state.rows[self.members])


def cut(result: ShrinkResult, size: int) -> Archs:
    """Return the best `size` of everything that a shrink saw, as its own rule chooses; all, where there are fewer."""
    state = result.state
    return state.rows[_best(state, result.problem, np.arange(len(state.rows)), size, strict=True)]


def plain_call(step: Step, state: State, problem: Problem) -> State:
    """Run a step here and now."""
    return step(state, problem)


def shrink(
    problem: Problem,
    call: Call = plain_call,
    state: State | None = None,
    on_iteration: Callable[[State], None] | None = None,
) -> ShrinkResult:
    """Shrink a space, from the beginning or from a `state` that an earlier run left.

    `on_iteration` sees the state after each iteration (to save it, to report it).
    """
    seen = on_iteration or (lambda state: None)
    if state is None:
        state = State.empty(problem.space)
        first = (sample, label) if problem.predictor is None else (adopt,)
        for step in (*first, sample, predict, check_convergence):
            state = call(step, state, problem)
        seen(state)
    while not state.stop:
        for step in (select_seeds, generate_neighbors, predict, check_convergence):
            state = call(step, state, problem)
        if not state.stop and _labels_due(state, problem):
            state = call(label, state, problem)
        seen(state)
    return ShrinkResult(problem, state, _final(state, problem))


# -- the steps -------------------------------------------------------------------------------------
def sample(state: State, problem: Problem) -> State:
    """Draw the first, uniform sample: what is labelled first, then as many more as it needs."""
    n_first = _uniform_labels(problem) if state.predictor is None else _first_size(state, problem)
    more = max(0, n_first - len(state.rows))
    rng = stream(problem.params.seed, "sample", len(state.rows))
    rows = problem.space.sample_distinct(more, rng, without=state.keys)
    state = state.extended(problem, rows, None, np.zeros(more, np.int64))
    state = replace(state, n_first=len(state.rows), current=np.arange(len(state.rows)))
    if state.predictor is not None:  # the sample is complete
        elite = problem.params.elite
        if elite is not None and elite.diversity > 0:
            strata = Strata.of(problem.space, state.rows, stream(problem.params.seed, "strata"))
            state = replace(state, strata=strata, stratum=strata.of_each(problem.space, state.rows))
    return state


def adopt(state: State, problem: Problem) -> State:
    """Take the predictor that the problem brings; the target size must be given then."""
    if problem.params.target_size is None and problem.params.elite is not None:
        raise UserError("target_size: needed with a predictor that is fitted already")
    return replace(state, predictor=problem.predictor, target=problem.params.target_size)


def predict(state: State, problem: Problem) -> State:
    """Let the predictor score what it has not seen."""
    assert state.predictor is not None, "label comes before predict"
    new = np.flatnonzero(np.isnan(state.scores))
    scores = state.scores.copy()
    scores[new] = state.predictor.score(state.rows[new], problem.threads)
    return replace(state, scores=scores)


def select_seeds(state: State, problem: Problem) -> State:
    """Choose the best of the current space as seeds, within what the query budget pays for."""
    params = problem.params
    method = params.method
    k = math.ceil(method.seed_fraction * len(state.current))
    seeds = _best(state, problem, state.current, k)
    if params.elite is not None:
        seeds = seeds[~state.expanded[seeds]]
    if params.max_queries is not None:
        seeds = seeds[: max(0, params.max_queries - len(state.rows)) // method.neighbors]
    expanded = state.expanded.copy()
    expanded[seeds] = True
    return replace(state, seeds=seeds, expanded=expanded, iteration=state.iteration + 1)


def generate_neighbors(state: State, problem: Problem) -> State:
    """Draw neighbours of each seed, at 1 to `max_edits` edits of the parameters; those not seen before are new rows."""
    method, space = problem.params.method, problem.space
    rng = stream(problem.params.seed, "neighbors", state.iteration)
    parents = np.repeat(state.seeds, method.neighbors)
    edits = rng.integers(1, problem.params.max_edits + 1, len(parents))
    rows = space.mutate(state.rows[parents], edits, rng) if problem.locality else space.sample(len(parents), rng)
    keys = space.key(rows)
    changed = keys != state.keys[parents]
    rows, keys, parents, edits = rows[changed], keys[changed], parents[changed], edits[changed]

    # The first draw of each architecture counts; one seen before is the row that it was.
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(state.keys, kind="stable")
    at = np.minimum(np.searchsorted(state.keys, distinct, sorter=order), len(order) - 1)
    known = state.keys[order[at]] == distinct
    new = np.sort(first[~known])
    index = np.empty(len(distinct), np.int64)
    index[known] = order[at[known]]
    index[inverse[new]] = len(state.rows) + np.arange(len(new))
    state = state.extended(problem, rows[new], parents[new], edits[new])
    return replace(state, children=index)


def check_convergence(state: State, problem: Problem) -> State:
    """Make the next space, record the iteration, and decide whether to stop."""
    if state.iteration < 0:  # the first sample is the first space
        state = replace(state, iteration=0, capacity=state.n_first)
        return replace(state, current=_best(state, problem, state.current, state.n_first)).record(problem, 1.0)
    before = state.current
    state = choose(state, problem)
    state = replace(state, previous=before)
    turnover = _turnover(state)
    state = state.record(problem, turnover)
    stop = converged(state, problem, turnover)
    budget = problem.params.max_queries
    if not stop and budget is not None and budget - len(state.rows) < problem.params.method.neighbors:
        stop = f"the query budget of {budget:,} is spent"
    if not stop and state.iteration >= problem.params.method.max_iterations:
        stop = f"{state.iteration} iterations, the most that were allowed"
    return replace(state, stop=stop)


def label(state: State, problem: Problem) -> State:
    """Ask the oracle for more labels, fit the predictor to all of them, and score everything anew.

    The first time all rows there are, a uniform sample; later random members of the current space,
    which teach more than its top (measured).
    """
    params, first = problem.params, not state.n_labels
    rng = stream(params.seed, "label", state.rounds)
    chosen = np.arange(len(state.rows))
    if not first:
        rounds_left = params.method.label_rounds - state.rounds + 1
        wanted = params.labels - state.n_labels
        wanted = (
            wanted if rounds_left == 1 else (params.labels - _uniform_labels(problem)) // params.method.label_rounds
        )
        free = state.current[state.label_round[state.current] < 0]
        chosen = np.sort(rng.permutation(free)[:wanted])
    labels, label_round = state.labels.copy(), state.label_round.copy()
    if len(chosen):
        labels[chosen] = ask(problem.oracle, problem.space, state.rows[chosen])
    label_round[chosen] = state.rounds
    have = np.flatnonzero(label_round >= 0)
    model = Predictor.fit(problem.space, state.rows[have], labels[have], params.predictor, params.seed, problem.threads)
    state = replace(state, labels=labels, label_round=label_round, rounds=state.rounds + 1, predictor=model)
    if first:
        return _with_target(state, problem)
    state = replace(state, scores=model.score(state.rows, problem.threads))
    state = choose(state, problem, shrinking=False)
    return state.record(problem, _turnover(state))


# -- the two rules in which the variants differ ----------------------------------------------------
def choose(state: State, problem: Problem, shrinking: bool = True) -> State:
    """Return the state with its next space: the best of all (elite), or seeds and neighbours (paper)."""
    elite = problem.params.elite
    if elite is None:
        members = np.unique(np.concatenate([state.seeds, state.children]))
        return replace(state, current=_best(state, problem, members, len(members)))
    assert state.target is not None
    capacity = state.capacity
    if shrinking:
        capacity = max(state.target, math.ceil(elite.shrink_rate * capacity))
    members = _best(state, problem, np.arange(len(state.rows)), capacity)
    return replace(state, current=members, capacity=capacity)


def converged(state: State, problem: Problem, turnover: float) -> str:
    """Return why the method is done, or nothing."""
    elite = problem.params.elite
    if elite is None:
        rise = state.records[-1]["mean_predicted"] - state.records[-2]["mean_predicted"]
        tolerance = problem.params.method.tolerance * problem.point  # type: ignore[union-attr]
        if rise < tolerance:
            first = " in the first iteration: the first sample is returned" if state.iteration == 1 else ""
            return f"the mean prediction rose by {rise:.3g}, less than {tolerance:.3g}{first}"
        if state.target is not None and len(state.current) <= state.target:
            return f"the target size of {state.target:,} is reached"
        return ""
    if _labels_due(state, problem):
        return ""
    if not len(state.seeds):
        return "no seed is left to expand"
    if state.capacity == state.target and turnover < elite.min_turnover:
        return f"{100 * turnover:.2f} % of the space is new, less than {100 * elite.min_turnover:g} %"
    return ""


def _final(state: State, problem: Problem) -> IntArray:
    """Return the space to return: the target's best of all (elite), or the last that rose (paper)."""
    if problem.params.elite is not None:
        assert state.target is not None
        return _best(state, problem, np.arange(len(state.rows)), state.target, strict=True)
    return state.previous if state.stop.startswith("the mean prediction rose") else state.current


# -- what the steps share --------------------------------------------------------------------------
def _best(state: State, problem: Problem, among: IntArray, k: int, strict: bool = False) -> IntArray:
    elite = problem.params.elite
    weight = state.strata.weight if state.strata is not None else np.ones(1)
    diversity = elite.diversity if elite is not None and state.strata is not None else 0.0
    return among[best(state.scores[among], state.stratum[among], weight, k, diversity, strict)]


def _turnover(state: State) -> float:
    """The share of the current space that was not in the previous one."""
    return float(1 - np.isin(state.current, state.previous).mean())


def _uniform_labels(problem: Problem) -> int:
    return math.ceil(problem.params.method.first_labels * problem.params.labels)


def _labels_due(state: State, problem: Problem) -> bool:
    params = problem.params
    due = state.n_labels < params.labels and state.rounds <= params.method.label_rounds
    return due and problem.predictor is None


def _first_size(state: State, problem: Problem) -> int:
    first = problem.params.method.first_size
    if first is None:
        assert state.target is not None
        first = int(min(max(state.target / 2, 250), problem.space.size() / 2))
    budget = problem.params.max_queries
    if budget is not None and max(first, state.n_labels) > budget:
        raise UserError(f"max_queries: {budget:,} does not pay for the first sample of {first:,}")
    return max(first, state.n_labels)


def _with_target(state: State, problem: Problem) -> State:
    """Set the target size: the one asked for, or by rule (elite only; the paper's has none)."""
    params = problem.params
    if params.target_size is not None or params.elite is None:
        return replace(state, target=params.target_size)
    rng = stream(params.seed, "target")
    have = np.flatnonzero(state.label_round >= 0)
    size, share = target_size(
        problem.space,
        state.rows[have],
        state.labels[have],
        params.predictor,
        params.seed,
        rng,
        problem.threads,
    )
    note = f"target size {size:,}: by cross-validation the best {100 * share:.0f} % hold 9 in 10 of the best"
    if share >= USELESS:
        note += "; the labels say next to nothing about this space, more or better ones are needed"
    return replace(state, target=size, notes=(*state.notes, note))
