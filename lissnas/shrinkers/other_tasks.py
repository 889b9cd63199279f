"""Labels of the other tasks on a benchmark's space, for methods that transfer knowledge."""

from __future__ import annotations

from lissnas import benchmarks, spaces
from lissnas.core.rng import stream
from lissnas.shrinkers.problem import Source
from lissnas.spaces import Archs, FloatArray


def names(source: Source) -> list[str]:
    """Return the packaged benchmarks of other tasks on the space of a packaged benchmark; none for other sources."""
    task = source.name.partition("@")[0]
    if source.truth is None or task not in benchmarks.names():
        return []
    space = benchmarks.space_of(task)
    if type(source.space) is not type(spaces.get(space)):  # declared by the user, under the same name
        return []
    return [name for name in benchmarks.names() if name != task and benchmarks.space_of(name) == space]


def labelled(source: Source, n: int, seed: int) -> list[tuple[Archs, FloatArray]]:
    """Return for each other task `n` uniform architectures, or all of them, and their values on it."""
    tasks = []
    for name in names(source):
        rows = source.space.sample_distinct(min(n, source.space.size()), stream(seed, "other tasks", name))
        tasks.append((rows, benchmarks.get(name)(rows)))
    return tasks
