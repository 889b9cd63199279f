"""Angles between initial and trained weights, as known answers; supernets that judge for shrinkers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    nets,
    shrinkers,
    spaces,
)
from lissnas.core.errors import LissnasError, UserError  # noqa: E402
from lissnas.nets import samplers  # noqa: E402
from lissnas.nets.angle import AngleOracle  # noqa: E402
from lissnas.nets.evaluation import SupernetOracle  # noqa: E402
from lissnas.nets.training import train  # noqa: E402
from lissnas.oracles.base import CountedOracle  # noqa: E402
from lissnas.shrinkers import abs as abs_  # noqa: E402
from lissnas.spaces import Archs, Space  # noqa: E402
from tests.small_nets import MACRO, SMALL, members, noise, packaged_params, recipe  # noqa: E402

nn = torch.nn


@pytest.fixture(params=nets.names())
def space(request: pytest.FixtureRequest) -> Space:
    return spaces.get(request.param)


def a_supernet(space: Space = MACRO, rows: Archs | None = None, seed: int = 0, **changes: Any) -> Any:
    rows = members(space.name) if rows is None else rows
    return nets.supernet(space.name, rows, seed=seed, **{**SMALL, "affine": True, **changes})


def changed(model: Any, how: Callable[[str, Any], Any]) -> Any:
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(how(name, p))
    return model


def weight_names(space: Space, row: Any) -> set[str]:
    """Return names of the convolutions and the classifier of a path's own network, an independent listing."""
    body = nets.network(space.name, row, **SMALL).body
    return {f"{n}.weight" for n, m in body.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def by_hand(initial: Any, trained: Any, names: set[str]) -> float:
    """Return the angle in radians, from whole vectors and another formula than the arc cosine."""
    before, after = initial.state_dict(), trained.state_dict()
    a, b = (np.concatenate([s[n].numpy().ravel() for n in sorted(names)]).astype(np.float64) for s in (before, after))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


# -- known answers -----------------------------------------------------------------------------------
def test_angles_of_turned_and_scaled_weights(space: Space) -> None:
    rows = members(space.name)
    initial, trained = a_supernet(space, rows), a_supernet(space, rows)
    for factor, angle in ((1, 0.0), (2, 0.0), (0.15, 0.0), (-1, math.pi), (-5, math.pi)):

        def scaled(name: str, p: Any, by: float = factor) -> Any:
            return by * p

        found = AngleOracle(initial, changed(trained, scaled))(rows)
        assert found.shape == (4,)
        assert found.dtype == np.float64
        assert found == pytest.approx(np.full(4, angle), abs=1e-5)
        trained.load_state_dict(initial.state_dict())


class Tiny(nets.Supernet):
    """Two operations of two weights each and a classifier of one: angles can be worked out on paper."""

    def __init__(self, first: list[float], second: list[float], classifier: float) -> None:
        super().__init__(MACRO, a_supernet().scale)
        self.layers = nn.ModuleList([nn.Conv2d(3, 1, 1) for _ in range(2)])
        self.norm = nn.BatchNorm2d(1)
        self.classifier = nn.Linear(1, 1)
        with torch.no_grad():
            for layer, (a, b) in zip(self.layers, (first, second), strict=True):
                layer.weight.copy_(torch.tensor([a, b, 0.0]).view(1, 3, 1, 1))
            self.classifier.weight.fill_(classifier)

    def features(self, x: Any, path: tuple[int, ...]) -> Any:
        return self.norm(self.layers[path[0]](x)).mean(dim=(2, 3))


def test_an_angle_worked_out_by_hand() -> None:
    # Path 0: (1, 0, 1) and (0, 2, 2), cosine 2 / (sqrt(2) sqrt(8)). Path 1: (3, 4, 1) and (4, 3, 2), 26 / sqrt(754).
    oracle = AngleOracle(Tiny([1, 0], [3, 4], 1), Tiny([0, 2], [4, 3], 2))
    rows = np.array([[0] * 8, [1] * 8, [0] * 8], np.int8)
    expected = [math.pi / 3, math.acos(26 / math.sqrt(26 * 29)), math.pi / 3]
    assert oracle(rows) == pytest.approx(expected, abs=1e-12)


def test_biases_and_norms_do_not_count() -> None:
    turned = Tiny([0, 2], [4, 3], 2)
    with torch.no_grad():
        turned.norm.weight.fill_(-7)
        turned.classifier.bias.fill_(100)
        turned.layers[0].bias.fill_(100)
    rows = np.array([[0] * 8, [1] * 8], np.int8)
    plain = AngleOracle(Tiny([1, 0], [3, 4], 1), Tiny([0, 2], [4, 3], 2))(rows)
    assert AngleOracle(Tiny([1, 0], [3, 4], 1), turned)(rows).tolist() == plain.tolist()


def test_weights_that_are_all_zero_have_no_angle_that_a_shrinker_would_take() -> None:
    oracle = AngleOracle(Tiny([1, 0], [3, 4], 1), Tiny([0, 0], [4, 3], 0))
    with np.errstate(invalid="ignore"), pytest.raises(LissnasError, match="the oracle gave nan"):
        CountedOracle(oracle, MACRO, 9)(np.zeros((1, 8), np.int8))


def test_random_turns_are_the_angle_of_the_whole_vectors(space: Space) -> None:
    rows = members(space.name)
    initial, trained = a_supernet(space, rows), a_supernet(space, rows)
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(p.shape, generator=generator) for n, p in trained.named_parameters()}
    changed(trained, lambda name, p: p + 0.5 * float(p.detach().square().mean().sqrt()) * noise[name])
    found = AngleOracle(initial, trained)(rows)
    expected = [by_hand(initial, trained, weight_names(space, row)) for row in rows]
    if space.name == "transnas_micro":  # operations that nothing reads may be run or not
        assert found == pytest.approx(expected, rel=0.02)
    else:
        assert found == pytest.approx(expected, abs=1e-7)
    assert len({round(a, 9) for a in found}) > 1


@settings(max_examples=15)
@given(st.floats(1e-3, 3.1), st.floats(1e-3, 1e3))
def test_a_turn_by_an_angle_gives_the_angle_at_any_scale(angle: float, scale: float) -> None:
    """Weights turned in the plane of two orthogonal vectors of all weights."""
    row = np.zeros((1, 8), np.int8)
    initial, trained = Tiny([1, 0], [1, 0], 0), Tiny([math.cos(angle), math.sin(angle)], [1, 0], 0)
    changed(trained, lambda name, p: scale * p)
    found = AngleOracle(initial, trained)(row)[0]
    assert found == pytest.approx(angle, abs=1e-4)


# -- what counts -------------------------------------------------------------------------------------
def test_only_operations_on_the_path_count(space: Space) -> None:
    """Whatever else is ruined, the angle of a path is the same to the bit; what is on it counts."""
    rows = members(space.name)
    initial, trained = a_supernet(space, rows), a_supernet(space, rows, seed=1)
    own = weight_names(space, rows[0])
    before = AngleOracle(initial, trained)(rows)
    ruined = changed(
        a_supernet(space, rows, seed=1), lambda name, p: p if name in own or p.dim() == 1 else 99 * torch.ones_like(p)
    )
    after = AngleOracle(initial, ruined)(rows)
    assert after[0] == before[0]
    assert (after[1:] != before[1:]).all()
    turned = changed(a_supernet(space, rows, seed=1), lambda name, p: -p if name in own else p)
    assert AngleOracle(initial, turned)(rows[:1]) == pytest.approx(math.pi - before[:1], abs=1e-9)


def test_an_angle_is_the_same_whatever_was_asked_before(space: Space) -> None:
    rows = members(space.name)
    oracle = AngleOracle(a_supernet(space, rows), a_supernet(space, rows, seed=1))
    forth, back = oracle(rows), oracle(rows[::-1])
    assert forth.tolist() == back[::-1].tolist()
    assert [float(oracle(row[None])[0]) for row in rows] == forth.tolist()
    assert oracle(rows[:0]).shape == (0,)


def test_angles_leave_the_supernets_as_they_are() -> None:
    initial, trained = a_supernet(), a_supernet(seed=1).train()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (initial, trained)]
    AngleOracle(initial, trained)(members())
    for state, model in zip(before, (initial, trained), strict=True):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_two_oracles_on_one_supernet_do_not_mix() -> None:
    rows = members()
    trained = a_supernet(seed=1)
    one, other = AngleOracle(a_supernet(seed=2), trained), AngleOracle(a_supernet(seed=3), trained)
    expected = AngleOracle(a_supernet(seed=2), a_supernet(seed=1))(rows)
    assert one(rows).tolist() == expected.tolist()
    assert other(rows).tolist() != expected.tolist()
    assert one(rows).tolist() == expected.tolist()


def test_supernets_that_do_not_match_are_refused() -> None:
    initial = a_supernet()
    others = [
        a_supernet(rows=members(n=2, seed=9)),
        a_supernet(width=0.5),
        a_supernet(classes=4),
        a_supernet(affine=False),
        a_supernet(spaces.get("fairnas")),
    ]
    for other in others:
        for pair in ((initial, other), (other, initial)):
            with pytest.raises(UserError, match="not of the same operations and widths"):
                AngleOracle(*pair)


def test_a_path_that_was_not_built_is_a_mistake() -> None:
    rows = np.ones((1, 8), np.int8)
    oracle = AngleOracle(a_supernet(rows=rows), a_supernet(rows=rows, seed=1))
    with pytest.raises(UserError, match="layer 3 has no choice 2"):
        oracle(np.array([[1, 1, 1, 2, 1, 1, 1, 1]], np.int8))


def test_k_shot_supernets_have_angles_or_are_refused() -> None:
    initial, trained = (nets.supernet("nas_bench_macro", members(), shots=2, seed=s, **SMALL) for s in (0, 1))
    try:
        found = AngleOracle(initial, trained)(members())
    except UserError:
        return
    assert ((found > 0) & (found < math.pi)).all()


def test_training_turns_weights() -> None:
    rows = members()
    trained = a_supernet(rows=rows)
    train(trained, noise(), recipe(steps=6), 0, samplers.over_set(rows[:1], 0))
    initial = a_supernet(rows=rows)
    angles = AngleOracle(initial, trained)(rows)
    assert ((angles > 1e-4) & (angles < math.pi / 2)).all()
    assert angles[0] == pytest.approx(by_hand(initial, trained, weight_names(MACRO, rows[0])), abs=1e-7)


# -- oracles of shrinkers ----------------------------------------------------------------------------
def whole() -> Any:
    return nets.supernet("nas_bench_macro", **SMALL)


@pytest.fixture(scope="module")
def trained() -> Any:
    return train(whole(), noise(), recipe(), 0, samplers.uniform(MACRO, 0))


def test_angles_drive_abs_to_a_smaller_product(trained: Any) -> None:
    made = []
    for _ in range(2):
        oracle = CountedOracle(AngleOracle(whole(), trained), MACRO, 60)
        made.append(abs_.shrink(MACRO, oracle, 300, np.random.default_rng(0)))
        assert 0 < oracle.queries <= 60
    subspace, again = made
    assert subspace.kind == "product"
    assert 150 <= subspace.size() <= 600
    assert subspace.size() == len(subspace.members)
    assert (subspace.members == again.members).all()
    AngleOracle(whole(), trained)(subspace.members[:5])


def test_abs_drops_the_choices_whose_weights_did_not_turn() -> None:
    """Only the operations of choice 2 turn, so those of choice 1 go."""
    turned = changed(whole(), lambda name, p: -p if name.split(".")[2:3] == ["2"] and name.startswith("layers") else p)
    oracle = CountedOracle(AngleOracle(whole(), turned), MACRO, 200)
    subspace = abs_.shrink(MACRO, oracle, 30, np.random.default_rng(0))
    assert subspace.allowed is not None
    used = (subspace.members == 2).mean()
    assert used > (subspace.members == 1).mean()
    angles = AngleOracle(whole(), turned)
    full = MACRO.enumerate()[::82]
    assert angles(subspace.members[:40]).mean() > angles(full).mean() + 0.2


@pytest.mark.parametrize("name", ["abs", "no_neighbors"])
def test_a_supernet_judges_for_shrinkers(name: str, trained: Any) -> None:
    params = packaged_params()
    judge = params.search.model_copy(update={"images": 24, "batch_size": 24, "recalibration_batches": 1})
    made = []
    for _ in range(2):
        oracle = CountedOracle(SupernetOracle.of(trained, noise(), judge), MACRO, 30)
        made.append(shrinkers.get(name)(MACRO, oracle, 20, np.random.default_rng(0)))
        rows, values = oracle.asked()
        assert 0 < len(rows) <= 30
        assert ((values >= 0) & (values <= 100)).all()
        assert len(np.unique(values)) > 1
    subspace, again = made
    assert 0 < subspace.size() <= 40
    assert subspace.contains(subspace.members).all()
    assert (subspace.members == again.members).all()
