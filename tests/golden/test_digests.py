"""Digests of samples of spaces and of results of shrinks, so that changes of behavior are noticed.

Published results depend on them. Values are integers, so that they don't depend on the processor's rounding.
`python -m tests.golden.test_digests` rewrites digests.json after an intended change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lissnas import artifacts, spaces
from lissnas.core.rng import stream
from lissnas.shrinkers import problem as problems
from lissnas.shrinkers import strategies
from lissnas.shrinkers.lissnas import shrink
from lissnas.spaces import Archs, ChoiceSpace, Space
from lissnas.spaces.base import FloatArray, IntArray
from lissnas.spaces.declared import parse_space
from tests.unit.shrinkers.test_large_shrinks import make

DIGESTS = Path(__file__).with_name("digests.json")
EXAMPLE = Path(spaces.__file__).parents[1] / "example" / "space.yaml"
FREE = ChoiceSpace("made_up", [4, 3, 4, 3, 4, 3, 4])
N = 300


def truth(archs: Archs) -> FloatArray:
    """Return an integer for each row: a sum over positions and a sum over adjacent positions."""
    wide = archs.astype(np.int64)
    weights = (np.arange(archs.shape[1]) * 37 + 11) % 23
    value: IntArray = (wide * weights % 19).sum(axis=1) + (wide[:, 1:] * wide[:, :-1] * 5 % 7).sum(axis=1)
    return value.astype(np.float64)


def sha(data: bytes) -> str:
    return artifacts.sha256(data)[:16]


def named(space: Space, rows: Archs) -> bytes:
    return "\n".join(space.format(rows)).encode()


def drawn(space: Space) -> dict[str, str]:
    """Return digests of a sample, mutations of it, costs, and features rounded to two decimals."""
    rng = stream(0, "digests", space.name)
    rows = space.sample(N, rng)
    edits = {
        kind or "any": named(space, space.mutate(rows, rng.integers(1, 4, N), rng, kind))
        for kind in (None, *space.kinds)
    }
    other = space.sample_distinct(N, rng)
    found = {"sample": named(space, rows), "distinct": named(space, other), **edits}
    found |= {name: np.asarray(values, np.int64).tobytes() for name, values in space.costs(rows).items()}
    if space.slot_choices:
        allowed = space.possible()
        allowed[1::2, 0] = False  # each second decision without its first choice
        found["slots"] = space.slots(rows).tobytes()
        if isinstance(space, ChoiceSpace) and (count := space.count_product(allowed)) is not None:
            found["product"] = str(count).encode()
            found["of the product"] = named(space, space.sample_product(allowed, N, rng))
    found["features"] = np.round(space.encode(rows).astype(np.float64), 2).tobytes()
    return {name: sha(data) for name, data in found.items()}


def shrunk(space: Space, target: int | None, **overrides: Any) -> dict[str, Any]:
    """Return the members, sizes and number of queries of a shrink with a scorer."""
    state = shrink(make(space, target, scorer=truth, **overrides)).state
    sizes = [record["size"] for record in state.records]
    members = np.sort(state.archive.keys[state.current])
    cost = {"queries": state.queries, "forgotten": state.forgotten}
    return {"members": sha(members.tobytes()), "sizes": sizes, **cost}


def spaces_of() -> dict[str, Space]:
    custom = {"example": parse_space(EXAMPLE.read_text(), "space.yaml"), "made_up": FREE}
    return {name: spaces.get(name) for name in spaces.names()} | custom


SHRINKS: dict[str, Callable[[], dict[str, Any]]] = {
    "macro": lambda: shrunk(spaces.get("nas_bench_macro"), 300),
    "macro from above": lambda: shrunk(spaces.get("nas_bench_macro"), 300, shrink__elite__first_size=1_000),
    "macro, the paper's": lambda: shrunk(
        spaces.get("nas_bench_macro"), None, shrink__variant="paper", shrink__paper__first_size=1_500
    ),
    "transnas_micro": lambda: shrunk(spaces.get("transnas_micro"), 400),
    "nasbench101": lambda: shrunk(spaces.get("nasbench101"), 2_000),
    "tiny": lambda: shrunk(ChoiceSpace("tiny", [3] * 5), 150),
    "without costs": lambda: shrunk(FREE, 300),
    "example": lambda: shrunk(parse_space(EXAMPLE.read_text(), "space.yaml"), 500),
    "shufflenetv2": lambda: shrunk(spaces.get("shufflenetv2"), 2_000),
    "ofa_mobilenetv3": lambda: shrunk(spaces.get("ofa_mobilenetv3"), 1_500),
    "nasbench301": lambda: shrunk(spaces.get("nasbench301"), 400),
    "anynetx": lambda: shrunk(spaces.get("anynetx"), 1_000),
}


@pytest.mark.parametrize("name", sorted(spaces_of()))
def test_samples_of_spaces_are_unchanged(name: str) -> None:
    assert drawn(spaces_of()[name]) == artifacts.read_json(DIGESTS)["spaces"][name]


@pytest.mark.parametrize("name", sorted(SHRINKS))
def test_results_of_shrinks_are_unchanged(name: str) -> None:
    assert SHRINKS[name]() == artifacts.read_json(DIGESTS)["shrinks"][name]


def small_parts(set_to: Callable[[Any, str, Any], None]) -> dict[str, dict[str, Any]]:
    """Return results of a shrink with little memory and of one that grows to its target, in about a second each."""
    set_to(strategies, "SEARCH_SIZE", 300)
    grown = shrunk(FREE, 1_500)
    set_to(problems, "PART", 300)
    set_to(problems, "rows_in_memory", lambda memory, length: 1_600)
    return {"grown": grown, "bounded": shrunk(spaces.get("shufflenetv2"), 500)}


def test_results_of_shrinks_in_parts_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert small_parts(monkeypatch.setattr) == artifacts.read_json(DIGESTS)["parts"]


def main() -> None:
    """Rewrite the digests."""
    found: dict[str, Any] = {"spaces": {name: drawn(space) for name, space in spaces_of().items()}}
    found["shrinks"] = {name: make() for name, make in SHRINKS.items()}
    found["parts"] = small_parts(setattr)
    artifacts.write(DIGESTS, artifacts.to_json(found))


if __name__ == "__main__":
    main()
