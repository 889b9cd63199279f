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
from functools import cached_property
from typing import TypeAlias

import numpy as np

from lissnas.config import LEAST_FIRST, ShrinkParams
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import ask
from lissnas.predictors.accuracy import Predictor
from lissnas.shrinkers.cover import SHORT, cover, radii_for, with_balls
from lissnas.shrinkers.memory_budget import memory_for
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import USELESS, Strata, best, target_size
from lissnas.shrinkers.state import BY_INDEX, FAILED, REFERENCE, UNLABELLED, State
from lissnas.spaces import Archs, FloatArray, IntArray
from lissnas.spaces.balls import Balls
from lissnas.spaces.base import LISTABLE, is_in
from lissnas.spaces.subspace import Subspace

MOST_FIRST = 20_000
"""Largest first sample by rule; a larger target is grown to."""
EDITED = 1 << 16
"""Neighbours edited at once."""
FEWEST_ROWS = 3
"""Rows in memory for each network of the target: with fewer the result gets worse (measured)."""
KEPT = 3
"""Quarters of the memory's rows that stay when the worst ones are forgotten."""
SMALL, GROWTH, SETTLED = 30_000, 4, 0.3
"""A larger target is reached from a space of so many, which grows so many times once less than that share
of it is new: the search for the best regions takes a quarter of the queries, for the same mean (measured)."""
PART_OF_SPACE = 0.05
"""Given labels that are a smaller share of the space are left out of the sample that stands for it."""
JUDGED = 10_000
"""Networks that stand for a union of balls."""
CENTRES = 400_000
"""Best networks that the centres of balls are chosen from."""

Step: TypeAlias = Callable[[State, Problem], State]
Call: TypeAlias = Callable[[Step, State, Problem], State]


@dataclass(frozen=True)
class ShrinkResult:
    """The shrunk space, and the state that it came from: `members` are indices into its rows.

    Where the space is a union of `balls`, members are what its centres were chosen from.
    """

    problem: Problem
    state: State
    members: IntArray
    balls: Balls | None = None

    @property
    def subspace(self) -> Subspace:
        """The shrunk space itself, best predicted first."""
        if self.balls is not None:
            return Subspace(self.problem.space, balls=self.balls)
        return Subspace(self.problem.space, listed=self.state.rows[self.members])

    @property
    def size(self) -> int:
        """How many architectures the shrunk space has; measured where balls overlap."""
        return len(self.members) if self.balls is None else self.balls.size.value

    @cached_property
    def sampled_values(self) -> FloatArray:
        """Predicted values of the members; of a uniform sample where they are too many to list."""
        if self.balls is None:
            return self.state.values(self.members)
        assert self.state.predictor is not None
        rows = self.balls.sample(JUDGED, stream(self.problem.params.seed, "judge balls"))
        return self.state.predictor.value(self.state.predictor.score(rows, self.problem.threads))


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
    _check_target(problem)
    if state is None:
        state = State.empty(problem.space)
        start: tuple[Step, ...] = (sample, label)
        if problem.predictor is not None:
            start = (adopt,)
        elif problem.labels is not None:
            start = (enter_labels,)
        for step in (*start, sample, predict, check_convergence):
            state = call(step, state, problem)
        seen(state)
    elif problem.predictor is not None:
        state = replace(state, predictor=problem.predictor)
    while not state.stop:
        state = call(select_seeds, state, problem)
        while True:  # in parts where there are many, so that memory is bounded
            for step in (generate_neighbors, predict):
                state = call(step, state, problem)
            if state.expanding >= len(state.seeds):
                break
        state = call(check_convergence, state, problem)
        if not state.stop and _labels_due(state, problem):
            state = call(label, state, problem)
        seen(state)
    result = ShrinkResult(problem, state, _final(state, problem), _balls(state, problem))
    return replace(result, state=replace(state, notes=(*state.notes, *_shortfall(result))))


def _shortfall(result: ShrinkResult) -> list[str]:
    """Say that the space is smaller than asked for, where it is (elite only; the paper's stops by another rule)."""
    params = result.problem.params
    wanted = params.target_size if _unlisted(params) else result.state.target
    if params.elite is None or wanted is None or result.size >= (1 - SHORT) * wanted:
        return []
    why = result.state.stop if result.balls is None else "too few good networks lie apart for more balls"
    return [f"the target of {wanted:,} networks was not reached, the space has {result.size:,}: {why}"]


# -- the steps -------------------------------------------------------------------------------------
def sample(state: State, problem: Problem) -> State:
    """Draw the first, uniform sample: what is labelled first, then as many more as it needs."""
    n_first = _uniform_labels(problem) if state.predictor is None else _first_size(state, problem)
    more = max(0, min(state.given + n_first, problem.space.size()) - len(state.rows))
    rng = stream(problem.params.seed, "sample", len(state.rows))
    rows = problem.space.sample_distinct(more, rng, without=state.keys)
    state = state.extended(problem, rows, problem.space.key(rows), None, np.zeros(more, np.int64))
    state = replace(state, n_first=len(state.rows), current=np.arange(len(state.rows)))
    if state.predictor is not None:  # the sample is complete
        state = replace(state, reference=_reference(state, problem))
        elite = problem.params.elite
        if elite is not None and elite.diversity > 0:
            strata = Strata.of(problem.space, state.rows[state.uniform], stream(problem.params.seed, "strata"))
            state = replace(state, strata=strata, stratum=strata.of_each(problem.space, state.rows).astype(np.int16))
    return state


def adopt(state: State, problem: Problem) -> State:
    """Take the predictor that the problem brings; the target size must be given then."""
    if problem.params.target_size is None and problem.params.elite is not None:
        raise UserError("target_size: needed with a predictor that is fitted already")
    return replace(state, predictor=problem.predictor, target=_listed_target(problem.params))


def enter_labels(state: State, problem: Problem) -> State:
    """Take the labels that are known from the start, and fit the predictor to them."""
    assert problem.labels is not None
    rows, values = problem.labels
    state = state.extended(problem, rows, problem.space.key(rows), None, np.zeros(len(rows), np.int64))
    params, zeros = problem.params, np.zeros(len(rows), np.int8)
    model = Predictor.fit(problem.space, rows, values, params.predictor, params.seed, problem.threads)
    state = replace(state, given=len(rows), labels=values, label_round=zeros, rounds=1, predictor=model)
    return _with_target(state, problem)


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
        seeds = seeds[: max(0, params.max_queries - state.seen) // method.neighbors]
    expanded = state.expanded.copy()
    expanded[seeds] = True
    return replace(
        state, seeds=seeds, expanding=0, children=seeds[:0], expanded=expanded, iteration=state.iteration + 1
    )


def generate_neighbors(state: State, problem: Problem) -> State:
    """Draw neighbours of each seed, 1 to `max_edits` edits away; those not seen before are new rows.

    Of the next part of the seeds, as many as give a million neighbours; with few seeds of all of them.
    """
    method, space = problem.params.method, problem.space
    state = _forget(state, problem)
    part = state.seeds[state.expanding :][: max(1, problem.at_once // method.neighbors)]
    names = () if state.expanding == 0 else (state.expanding,)
    rng = stream(problem.params.seed, "neighbors", state.iteration, *names)
    parents = np.repeat(part, method.neighbors)
    edits = rng.integers(1, problem.params.max_edits + 1, len(parents))
    drawn = [
        space.mutate(state.rows[at], how_many, rng) if problem.locality else space.sample(len(at), rng)
        for at, how_many in zip(_chunks(parents), _chunks(edits), strict=True)
    ]
    rows, keys = np.concatenate(drawn), np.concatenate([space.key(part) for part in drawn])
    changed = keys != state.keys[parents]
    rows, keys, parents, edits = rows[changed], keys[changed], parents[changed], edits[changed]

    # The first draw of each architecture counts; one seen before is the row that it was. Beyond 2^64
    # architectures a key may be another network's: one in 2^64, and it is passed over.
    distinct, first = np.unique(keys, return_index=True)
    known = is_in(distinct, np.sort(state.keys))
    new = np.sort(first[~known])
    before = state
    state = state.extended(problem, rows[new], keys[new], parents[new], edits[new])
    children = state.children
    if problem.params.elite is None:  # its next space is made of them
        seen = np.concatenate(
            [np.flatnonzero(is_in(before.keys, distinct[known])), len(before.rows) + np.arange(len(new))]
        )
        children = np.concatenate([children, seen])
    return replace(state, children=children, expanding=state.expanding + len(part))


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
    if not stop and budget is not None and budget - state.seen < problem.params.method.neighbors:
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
        wanted = params.labels - state.n_asked
        if rounds_left > 1:
            wanted = (params.labels - (state.given or _uniform_labels(problem))) // params.method.label_rounds
        free = state.current[state.label_round[state.current] == UNLABELLED]
        chosen = np.sort(rng.permutation(free)[:wanted])
    labels, label_round = state.labels.copy(), state.label_round.copy()
    if len(chosen):
        assert problem.oracle is not None, "labels are due only where somebody gives them"
        labels[chosen] = ask(problem.oracle, problem.space, state.rows[chosen], may_fail=True)
    label_round[chosen] = np.where(np.isnan(labels[chosen]), FAILED, state.rounds)
    have = np.flatnonzero(label_round >= 0)
    model = Predictor.fit(problem.space, state.rows[have], labels[have], params.predictor, params.seed, problem.threads)
    state = replace(state, labels=labels, label_round=label_round, rounds=state.rounds + 1, predictor=model)
    if first:
        return _with_target(state, problem)
    state = replace(state, scores=model.score(state.rows, problem.threads).astype(np.float32))
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
        grown = max(SMALL, capacity if _turnover(state) > SETTLED else GROWTH * capacity)
        capacity = max(min(state.target, grown), math.ceil(elite.shrink_rate * capacity))
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
    if not len(state.seeds) and len(state.current) <= len(state.previous):  # one that grew has others
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


def _forget(state: State, problem: Problem) -> State:
    """Drop the worst rows where the next part of the neighbours would not fit in memory (elite only).

    What is kept: the best of all, as many as fit in three quarters of the memory; what has been a seed, since
    rows say what they were made from; labelled ones, the space itself, and what stands for the full space.
    """
    if problem.params.elite is None or len(state.rows) + problem.at_once <= problem.memory_rows:
        return state
    keep = state.expanded | (state.label_round != UNLABELLED)
    for name in BY_INDEX:
        keep[getattr(state, name)] = True
    free = max(0, KEPT * problem.memory_rows // 4 - int(keep.sum()))
    rest = np.flatnonzero(~keep)
    keep[_best(state, problem, rest, free)] = True
    return state.keeping(keep)


def _check_target(problem: Problem) -> None:
    """Raise UserError for a target that can't be reached, before anything is drawn."""
    target, space = problem.params.target_size, problem.space
    if target is None or problem.params.elite is None:
        return
    if _unlisted(problem.params):
        radii_for(with_balls(space, target), target)
    needed = FEWEST_ROWS * (_listed_target(problem.params) or 0)
    if problem.memory_rows < needed:
        gib = memory_for(needed, space.genome_len)
        raise UserError(
            f"memory: {problem.params.memory:g} GiB holds {problem.memory_rows:,} networks of {space.name} and what "
            f"is known of them; a target of {target:,} needs {needed:,} at least: --memory {gib:.1f}"
        )


def _unlisted(params: ShrinkParams) -> bool:
    """Return whether the target is too large to list, so that the result is a union of balls (elite only)."""
    return params.elite is not None and params.target_size is not None and params.target_size > LISTABLE


def _listed_target(params: ShrinkParams) -> int | None:
    """Return how many networks to look for: the target, or enough to put balls round where it can't be listed."""
    return SMALL if _unlisted(params) else params.target_size


def _balls(state: State, problem: Problem) -> Balls | None:
    """Return the union of balls that a target too large to list means, round the best of all seen."""
    target = problem.params.target_size
    if not _unlisted(problem.params):
        return None
    assert target is not None
    assert state.predictor is not None
    ranked = state.rows[_best(state, problem, np.arange(len(state.rows)), CENTRES)]
    rng = stream(problem.params.seed, "balls")
    return cover(problem.space, ranked, target, state.predictor, rng, problem.threads)


# -- what the steps share --------------------------------------------------------------------------
def _best(state: State, problem: Problem, among: IntArray, k: int, strict: bool = False) -> IntArray:
    elite = problem.params.elite
    weight = state.strata.weight if state.strata is not None else np.ones(1)
    diversity = elite.diversity if elite is not None and state.strata is not None else 0.0
    return among[best(state.scores[among], state.stratum[among], weight, k, diversity, strict)]


def _chunks(values: IntArray) -> list[IntArray]:
    """Return an array in parts for edits, which take many times the memory of the rows they make."""
    return [values[lo : lo + EDITED] for lo in range(0, max(1, len(values)), EDITED)]


def _turnover(state: State) -> float:
    """The share of the current space that was not in the previous one."""
    return float(1 - np.isin(state.current, state.previous).mean())


def _uniform_labels(problem: Problem) -> int:
    return math.ceil(problem.params.method.first_labels * problem.params.labels)


def _labels_due(state: State, problem: Problem) -> bool:
    params = problem.params
    due = state.n_asked < params.labels and state.rounds <= params.method.label_rounds
    return due and problem.predictor is None and problem.oracle is not None


def _reference(state: State, problem: Problem) -> IntArray:
    """Return rows that stand for the full space: the start of the first sample, and given labels by their share.

    The first sample is drawn from what the given labels leave of the space, which matters where they are a good
    part of it.
    """
    drawn = np.arange(state.given, state.n_first)[:REFERENCE]
    if state.given < PART_OF_SPACE * problem.space.size():
        return drawn
    left = problem.space.size() - state.given
    share = len(drawn) * state.given // left if left else REFERENCE
    given = stream(problem.params.seed, "reference").permutation(state.given)
    return np.concatenate([np.sort(given[:share]), drawn])


def _first_size(state: State, problem: Problem) -> int:
    first = problem.params.method.first_size
    if first is None:
        assert state.target is not None
        first = int(min(max(state.target / 2, LEAST_FIRST), MOST_FIRST, problem.space.size() / 2))
    budget = problem.params.max_queries
    first = max(first, state.n_labels - state.given)
    if budget is not None and state.given + first > budget:
        raise UserError(f"max_queries: {budget:,} does not pay for the first sample of {first:,}")
    return first


def _with_target(state: State, problem: Problem) -> State:
    """Set the target size: the one asked for, or by rule (elite only; the paper's has none)."""
    params = problem.params
    if params.target_size is not None or params.elite is None:
        return replace(state, target=_listed_target(params))
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
