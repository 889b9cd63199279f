"""The method: sample, predict, select seeds, generate neighbors, check convergence, label.

One loop for both variants, which differ in their `Strategy`. Each step is a pure function of the state and draws from
a random stream named after the step and iteration, so a run can stop after any iteration and resume to the same
result. `shrink` takes a `call` that runs a step: a plain function call, or a task of a flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from lissnas.core.errors import LissnasError, UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import evaluate
from lissnas.searchers.guided import Evidence, propose
from lissnas.shrinkers.archive import FAILED, UNLABELLED, Archive
from lissnas.shrinkers.cover import MAX_SHORTFALL
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import REFERENCE, State, labels_due, uniform_labels
from lissnas.shrinkers.strategies import strategy_of
from lissnas.spaces import Archs, IntArray
from lissnas.spaces.base import is_in

EDITED = 1 << 16
"""Neighbors edited per batch."""
SEARCH_SHARE = {"space": 0.0, "network": 1.0, "both": 0.5}
"""Share of the collected labels, after the uniform ones, that a search proposes, by goal."""
PART_OF_SPACE = 0.05
"""Minimum share of the space that given labels need to be included in the sample that represents it."""

Step: TypeAlias = Callable[[State, Problem], State]
Call: TypeAlias = Callable[[Step, State, Problem], State]


def cut(result: Shrunk, size: int) -> Archs:
    """Return the best `size` architectures that a shrink saw, by its selection rule; all if there are fewer."""
    archive = result.state.archive
    strategy = strategy_of(result.problem.params)
    return archive.rows[strategy.top(result.state, np.arange(len(archive)), size, strict=True)]


def plain_call(step: Step, state: State, problem: Problem) -> State:
    """Run a step as a plain function call."""
    return step(state, problem)


def shrink(
    problem: Problem,
    call: Call = plain_call,
    state: State | None = None,
    on_iteration: Callable[[State], None] | None = None,
) -> Shrunk:
    """Shrink a space, from scratch or from the `state` of an interrupted run.

    `on_iteration` is called with the state after each iteration, e.g. to save or report it.
    """
    notify = on_iteration or (lambda state: None)
    strategy = strategy_of(problem.params)
    strategy.check(problem)
    if state is None:
        state = start(problem, call)
        notify(state)
    elif problem.predictor is not None:
        state = replace(state, predictor=problem.predictor)
    while not state.stop:
        for step in (expand, check_convergence):
            state = call(step, state, problem)
        while not state.stop and labels_due(state, problem) and strategy.label_now(state, problem):
            state = call(label, state, problem)
        notify(state)
    result = Shrunk(problem, state, *strategy.final(state, problem))
    wanted = strategy.wanted(state)
    if wanted is None or result.size >= (1 - MAX_SHORTFALL) * wanted:
        return result
    why = state.stop if result.balls is None else "too few good networks lie apart for more balls"
    short = f"the target of {wanted:,} networks was not reached, the space has {result.size:,}: {why}"
    return replace(result, state=replace(state, notes=(*state.notes, short)))


def start(problem: Problem, call: Call = plain_call) -> State:
    """Return the state with the first labels, the predictor fitted to them, and the first, uniform sample."""
    state = State(Archive.empty(problem.space))
    first: tuple[Step, ...] = (sample, label)
    if problem.predictor is not None:
        first = (adopt,)
    elif problem.source.labels is not None:
        first = (enter_labels,)
    for step in (*first, sample, predict, check_convergence):
        state = call(step, state, problem)
    return state


# -- the steps -------------------------------------------------------------------------------------
def sample(state: State, problem: Problem) -> State:
    """Draw the first, uniform sample: first the architectures to label, then the rest."""
    n_first = uniform_labels(problem) if state.predictor is None else _first_size(state, problem)
    n = len(state.archive)
    more = max(0, min(state.given + n_first, problem.space.size()) - n)
    rng = stream(problem.params.seed, "sample", n)
    rows = problem.space.sample_distinct(more, rng, without=state.archive.keys)
    state = state.extend(problem, rows, problem.space.key(rows), None, np.zeros(more, np.int64))
    state = replace(state, n_first=n + more, current=np.arange(n + more))
    if state.predictor is None:
        return state
    state = replace(state, reference=_reference(state, problem))  # the sample is complete
    return strategy_of(problem.params).strata(state, problem)


def adopt(state: State, problem: Problem) -> State:
    """Use the fitted predictor or surrogate of the problem."""
    return strategy_of(problem.params).target(replace(state, predictor=problem.predictor), problem)


def enter_labels(state: State, problem: Problem) -> State:
    """Enter the labels that are known from the start, and fit the predictor to them."""
    assert problem.source.labels is not None
    rows, values = problem.source.labels.archs, problem.source.labels.values
    state = state.extend(problem, rows, problem.space.key(rows), None, np.zeros(len(rows), np.int64))
    archive = replace(state.archive, labels=values, label_round=np.zeros(len(rows), np.int8))
    state = replace(state, given=len(rows), archive=archive, rounds=1).fit(problem)
    return strategy_of(problem.params).target(state, problem)


def predict(state: State, problem: Problem) -> State:
    """Score all unscored rows with the predictor."""
    assert state.predictor is not None, "label runs before predict"
    archive = state.archive
    new = np.flatnonzero(np.isnan(archive.scores))
    scores = archive.scores.copy()
    scores[new] = state.predictor.score(archive.rows[new], problem.threads)
    return replace(state, archive=replace(archive, scores=scores))


def expand(state: State, problem: Problem) -> State:
    """Select seeds, generate their neighbors and predict them, in the batches of one iteration.

    Each batch is selected with the scores of the one before.
    """
    strategy = strategy_of(problem.params)
    state = replace(state, iteration=state.iteration + 1, previous=state.current)
    for batch in range(strategy.batches):
        if batch:
            state = strategy.choose(state, problem)
        state = select_seeds(state, problem)
        if not len(state.seeds):
            break
        while state.expanding < len(state.seeds):  # in parts, so that memory is bounded
            state = predict(generate_neighbors(state, problem), problem)
    return state


def select_seeds(state: State, problem: Problem) -> State:
    """Select seed architectures from the current space, within the query budget."""
    params = problem.params
    seeds = strategy_of(params).seeds(state, problem)
    if params.max_queries is not None:
        seeds = seeds[: max(0, params.max_queries - state.seen) // params.method.neighbors]
    expanded = state.archive.expanded.copy()
    expanded[seeds] = True
    archive = replace(state.archive, expanded=expanded)
    return replace(state, archive=archive, seeds=seeds, expanding=0, children=seeds[:0])


def generate_neighbors(state: State, problem: Problem) -> State:
    """Draw neighbors of each seed, 1 to `max_edits` edits away, and append unseen ones as rows.

    Processes the next batch of seeds: as many as give a million neighbors, or all.
    """
    space, strategy, n_neighbors = problem.space, strategy_of(problem.params), problem.params.method.neighbors
    state = strategy.drop_rows(state, problem)
    before = state.archive
    part = state.seeds[state.expanding :][: max(1, problem.at_once // n_neighbors)]
    rng = stream(problem.params.seed, "neighbors", state.iteration, int(before.expanded.sum()), state.expanding)
    parents = np.repeat(part, n_neighbors)
    edits = rng.integers(1, problem.params.max_edits + 1, len(parents))
    drawn = [
        space.mutate(before.rows[chunk], n_edits, rng) if problem.locality else space.sample(len(chunk), rng)
        for chunk, n_edits in zip(_chunks(parents), _chunks(edits), strict=True)
    ]
    rows, keys = np.concatenate(drawn), np.concatenate([space.key(part) for part in drawn])
    changed = keys != before.keys[parents]
    rows, keys, parents, edits = rows[changed], keys[changed], parents[changed], edits[changed]

    # The first draw of each architecture counts; one seen before keeps its row. Beyond 2^64 architectures,
    # one in 2^64 has the key of another and is skipped.
    distinct, first = np.unique(keys, return_index=True)
    known = is_in(distinct, np.sort(before.keys))
    new = np.sort(first[~known])
    state = state.extend(problem, rows[new], keys[new], parents[new], edits[new])
    children = state.children
    if strategy.collects_children:
        seen = [np.flatnonzero(is_in(before.keys, distinct[known])), len(before) + np.arange(len(new))]
        children = np.concatenate([children, *seen])
    return replace(state, children=children, expanding=state.expanding + len(part))


def check_convergence(state: State, problem: Problem) -> State:
    """Select the next space, record the iteration, and decide whether to stop."""
    params, strategy = problem.params, strategy_of(problem.params)
    if state.iteration < 0:  # the first space is the first sample
        first = strategy.top(state, state.current, state.n_first)
        return replace(state, iteration=0, current=first).record(problem, 1.0)
    state = strategy.choose(state, problem)
    turnover = state.turnover()
    state = state.record(problem, turnover)
    stop, budget = strategy.converged(state, problem, turnover), params.max_queries
    if not stop and budget is not None and budget - state.seen < params.method.neighbors:
        stop = f"the query budget of {budget:,} is spent"
    if not stop and state.iteration >= params.method.max_iterations:
        stop = f"{state.iteration} iterations, the most that were allowed"
    return replace(state, stop=stop)


def label(state: State, problem: Problem) -> State:
    """Request more labels from the oracle, re-fit the predictor to all labels, and re-score all rows.

    Labels all rows, a uniform sample, the first time; later, random ones of the best rows, which improve the
    predictor more than its top members (measured), and as many as the goal demands that a search proposes.
    """
    params, archive, first = problem.params, state.archive, not state.n_labels
    rng = stream(params.seed, "label", state.rounds)
    chosen, strategy = np.arange(len(archive)), strategy_of(params)
    if not first:
        rounds_left = params.method.label_rounds - state.rounds + 1
        wanted = params.labels - archive.n_requested
        if rounds_left > 1:
            wanted = (params.labels - (state.given or uniform_labels(problem))) // params.method.label_rounds
        pool = strategy.label_pool(state)
        state, found = search(state, problem, int(SEARCH_SHARE[params.goal] * wanted), pool)
        archive = state.archive
        free = pool[(archive.label_round[pool] == UNLABELLED) & ~np.isin(pool, found)]
        chosen = np.sort(np.concatenate([found, rng.permutation(free)[: wanted - len(found)]]))
    labels, label_round = archive.labels.copy(), archive.label_round.copy()
    if len(chosen):
        assert problem.source.oracle is not None, "labels are only due with an oracle"
        labels[chosen] = evaluate(problem.source.oracle, problem.space, archive.rows[chosen], may_fail=True)
        if np.isnan(labels).all():
            raise LissnasError(
                f"all {len(chosen):,} requested labels failed. Fix the cause; the same command requests them again"
            )
    label_round[chosen] = np.where(np.isnan(labels[chosen]), FAILED, state.rounds)
    archive = replace(archive, labels=labels, label_round=label_round)
    state = replace(state, archive=archive, rounds=state.rounds + 1)
    state = state.fit(problem, full=first or not labels_due(state, problem))
    if first:
        return strategy.target(state, problem)
    assert state.predictor is not None
    scores = state.predictor.score(archive.rows, problem.threads).astype(np.float32)
    state = strategy.choose(replace(state, archive=replace(archive, scores=scores)), problem)
    return state.record(problem, state.turnover())


def search(state: State, problem: Problem, n: int, pool: IntArray) -> tuple[State, IntArray]:
    """Return up to `n` rows that a guided search for the best network proposes to label, added if they are new."""
    if not n:
        return state, pool[:0]
    archive, space = state.archive, problem.space
    known = np.flatnonzero(archive.label_round != UNLABELLED)
    labelled = Evidence(archive.rows[known], archive.labels[known], archive.rows[:0])
    rng = stream(problem.params.seed, "search", state.rounds)
    rows = propose(space, labelled, n, rng, problem.params.predictor, archive.rows[pool])
    new = rows[~is_in(space.key(rows), np.sort(archive.keys))]
    state = state.extend(problem, new, space.key(new), None, np.zeros(len(new), np.int64))
    found = np.flatnonzero(is_in(state.archive.keys, np.sort(space.key(rows))))
    return replace(state, searched=np.concatenate([state.searched, found])), found


# -- helpers of the steps --------------------------------------------------------------------------
def _chunks(values: IntArray) -> list[IntArray]:
    """Split an array into chunks: edits take many times the memory of their result."""
    return [values[lo : lo + EDITED] for lo in range(0, max(1, len(values)), EDITED)]


def _reference(state: State, problem: Problem) -> IntArray:
    """Return rows that represent the full space: of the first sample, and of the given labels in proportion.

    The first sample excludes the given labels, which matters if they are a large part of the space.
    """
    drawn = np.arange(state.given, state.n_first)[:REFERENCE]
    if state.given < PART_OF_SPACE * problem.space.size():
        return drawn
    left = problem.space.size() - state.given
    share = len(drawn) * state.given // left if left else REFERENCE
    given = stream(problem.params.seed, "reference").permutation(state.given)
    return np.concatenate([np.sort(given[:share]), drawn])


def _first_size(state: State, problem: Problem) -> int:
    first, budget = strategy_of(problem.params).first_size(state, problem), problem.params.max_queries
    first = max(first, state.n_labels - state.given)
    if budget is not None and state.given + first > budget:
        raise UserError(f"max_queries: {budget:,} does not pay for the first sample of {first:,}")
    return first
