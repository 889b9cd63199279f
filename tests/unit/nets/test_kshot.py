"""K-shot supernets: K = 1 equals a single supernet, K > 1 are weighted sums; turns, files, interruptions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
    nets,
    spaces,
)
from lissnas.core.errors import ConfigError, UserError  # noqa: E402
from lissnas.nets import files, kshot, samplers  # noqa: E402
from lissnas.nets.base import Network  # noqa: E402
from lissnas.nets.blocks import BatchNorm  # noqa: E402
from lissnas.nets.build import k_shot  # noqa: E402
from lissnas.nets.evaluation import SupernetOracle  # noqa: E402
from lissnas.nets.kshot import KShotSupernet  # noqa: E402
from lissnas.nets.probe import recalibrate  # noqa: E402
from lissnas.nets.training import Progress, train  # noqa: E402
from tests import small_nets  # noqa: E402
from tests.small_nets import (  # noqa: E402
    SMALL,
    Interrupted,
    copy_weights,
    equal,
    images,
    members,
    noise,
    packaged_params,
    plain_state,
    stop_at,
)

recipe = partial(small_nets.recipe, clip=0.5, weight_decay=0.01, checkpoint_every=4)
COPIED = ("nas_bench_macro", "nasbench101", "transnas_micro", "shufflenetv2")


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the simplex network in steps 2, 5, 8, ..., so that short trainings have both kinds of turns."""
    monkeypatch.setattr(kshot, "TURN", 1)
    monkeypatch.setattr(kshot, "TURNS", 3)


def dictionary(shots: int = 3, seed: int = 0, name: str = "nas_bench_macro", affine: bool | None = None) -> Any:
    return nets.supernet(name, members(name), shots=shots, seed=seed, affine=affine, **SMALL)


def dictionary_of_one(name: str, affine: bool, seed: int = 0) -> KShotSupernet:
    """Return a dictionary of one; `nets.supernet(shots=1)` would return a single supernet."""
    space, rows = spaces.get(name), members(name)
    single = nets.supernet(name, rows, **SMALL)
    return k_shot(space, rows, single.scale, affine, seed, 1)


def as_path(row: Any) -> tuple[int, ...]:
    return tuple(int(c) for c in row)


def uneven(model: KShotSupernet, seed: int = 1) -> KShotSupernet:
    """Randomise the simplex network and the norms: paths get different, uneven weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for p in model.simplex.parameters():
            torch.nn.init.normal_(p, 0, 0.25)
        for p in model.supernet.parameters():
            if p.dim() == 1:
                torch.nn.init.normal_(p, 1.0, 0.2)
    return model


def originals(model: KShotSupernet) -> dict[str, list[Any]]:
    """Return the K tensors of each parameter, by its name in a single supernet."""
    found: dict[str, list[Any]] = {}
    for name, p in model.supernet.named_parameters():
        head, _, last = name.rpartition(".")
        found.setdefault(head.replace(".parametrizations.", "."), []).append((int(last.removeprefix("original")), p))
    return {name: [p for _, p in sorted(parts, key=lambda part: part[0])] for name, parts in found.items()}


# -- a dictionary of one -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "affine", "changes"),
    [
        ("nas_bench_macro", True, {}),
        ("nas_bench_macro", True, {"ema": 0.9, "momentum": 0.0, "clip": 0.0}),
        ("nas_bench_macro", True, {"mixed_precision": True, "channels_last": False}),
        ("shufflenetv2", False, {}),  # it has dropout
        ("nasbench101", True, {"steps": 2}),
    ],
)
def test_a_dictionary_of_one_trains_to_the_bytes_of_a_single_supernet(
    name: str, affine: bool, changes: dict[str, Any], short_turns: None
) -> None:
    made = recipe(**{"steps": 4, **changes})
    rows = members(name)
    single = nets.supernet(name, rows, affine=affine, **SMALL)
    one = dictionary_of_one(name, affine)
    start = {k: v.clone() for k, v in plain_state(one, as_path(rows[0])).items()}
    assert start.keys() == single.state_dict().keys()
    assert all(torch.equal(v, start[k]) for k, v in single.state_dict().items())
    reports: list[list[Progress]] = [[], []]
    train(single, noise(), made, 3, samplers.over_set(rows, 3), on_progress=reports[0].append)
    train(one, noise(), made, 3, samplers.over_set(rows, 3), on_progress=reports[1].append)
    assert reports[0] == reports[1]
    plain, expected = plain_state(one, as_path(rows[0])), single.state_dict()
    assert plain.keys() == expected.keys()
    assert {k for k in plain if not torch.equal(plain[k], expected[k])} == set()
    assert any(not torch.equal(start[k], expected[k]) for k in start)
    with torch.inference_mode():
        for row in rows:
            assert torch.equal(one(images(4), row), single(images(4), row))


def test_a_dictionary_of_one_does_not_train_its_simplex_network() -> None:
    one = dictionary_of_one("nas_bench_macro", True)
    before = {k: v.clone() for k, v in one.simplex.state_dict().items()}
    for step in (0, 95, 99, 990):
        one.select_trainable(step)
        assert all(p.requires_grad for p in one.supernet.parameters())
    train(one, noise(), recipe(), 0, samplers.over_set(members(), 0))
    assert all(torch.equal(v, before[k]) for k, v in one.simplex.state_dict().items())
    assert one.simplex(as_path(members()[0])).tolist() == [1.0]


def test_one_shot_is_a_single_supernet() -> None:
    assert not isinstance(nets.supernet("nas_bench_macro", members(), shots=1, **SMALL), KShotSupernet)
    assert isinstance(dictionary(2), KShotSupernet)


# -- the weighted sum --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*COPIED, "fairnas"])
def test_the_weights_of_a_path_are_the_weighted_sum(name: str) -> None:
    model = uneven(dictionary(3, name=name, affine=True))
    parts = originals(model)
    assert all(len(p) == 3 for p in parts.values())
    seen = []
    for row in members(name)[:2]:
        plain = plain_state(model, as_path(row))
        weights = model.simplex(as_path(row)).detach().double()
        seen.append(weights)
        for key, own in parts.items():
            expected = sum(w * p.detach().double() for w, p in zip(weights, own, strict=True))
            torch.testing.assert_close(plain[key].double(), expected, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            logits = model.eval()(images(4), row)
        again = nets.supernet(name, members(name), affine=True, **SMALL)
        again.load_state_dict(plain)
        torch.testing.assert_close(again.eval()(images(4), row), logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)  # else confused paths would go unnoticed


def test_the_k_parts_start_as_k_single_supernets_and_paths_as_their_plain_average() -> None:
    model = dictionary(3, seed=5)
    parts = originals(model)
    first = dict(nets.supernet("nas_bench_macro", members(), seed=5, **SMALL).named_parameters())
    assert parts.keys() == first.keys()
    assert all(torch.equal(parts[k][0], v) for k, v in first.items())
    assert not any(torch.equal(parts[k][1], parts[k][2]) for k in parts if k.endswith("0.0.weight"))
    for row in members():
        assert model.simplex(as_path(row)).tolist() == pytest.approx([1 / 3] * 3)


def test_weights_of_a_dictionary_depend_only_on_the_seed() -> None:
    state = torch.get_rng_state()
    a, b, c = (dictionary(2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(a, b)
    assert not equal(a, c)


@settings(max_examples=10)
@given(st.integers(1, 8), st.integers(0, 2**20), st.floats(0, 30), st.integers(0, 2**20))
def test_lambdas_are_on_the_simplex(k: int, seed: int, scale: float, draw: int) -> None:
    for name in ("nas_bench_macro", "nasbench101", "transnas_micro"):
        space = spaces.get(name)
        simplex = kshot.Simplex(space, k)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for p in simplex.parameters():
                torch.nn.init.normal_(p, 0, scale)
        for row in space.sample(3, np.random.default_rng(draw)):
            weights = simplex(as_path(row))
            assert weights.shape == (k,)
            assert (weights >= 0).all()
            assert float(weights.sum().detach()) == pytest.approx(1, abs=1e-5)


def test_lambdas_stay_on_the_simplex_and_diverge_in_training(short_turns: None) -> None:
    model = dictionary(3)
    train(model, noise(), recipe(steps=15, rate=0.5), 0, samplers.over_set(members(), 0))
    weights = torch.stack([model.simplex(as_path(row)).detach() for row in members()])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    assert (weights > 0).all()
    assert (weights - 1 / 3).abs().max() > 1e-3
    assert (weights[0] - weights[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["nas_bench_macro", "transnas_micro"])
def test_descriptions_of_equal_networks_have_equal_weights(name: str) -> None:
    """`Space.slots` is the same for all descriptions of a network."""
    space = spaces.get(name)
    simplex = kshot.Simplex(space, 3)
    torch.nn.init.normal_(simplex.body[2].weight)
    for row in space.sample(8, np.random.default_rng(3)):
        canonical = as_path(space.canonicalize(row[None])[0])
        assert torch.equal(simplex(canonical), simplex(as_path(row)))


# -- operations off the path --------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*COPIED, "fairnas"])
def test_gradients_reach_only_the_operations_of_the_path(name: str) -> None:
    model = uneven(dictionary(3, name=name, affine=True)).train()
    row = members(name)[1]
    own = {n for n, _ in nets.network(name, row, **SMALL).body.named_parameters()}
    before = {k: v.clone() for k, v in model.supernet.named_buffers()}
    model(images(4), row).square().sum().backward()
    parts = originals(model)
    reached = {k for k, ps in parts.items() if any(p.grad is not None for p in ps)}
    assert reached <= own if name == "transnas_micro" else reached == own
    assert all(p.grad is not None for k in reached for p in parts[k])
    changed = {k for k, v in model.supernet.named_buffers() if not torch.equal(v, before[k])}
    assert {k.rpartition(".")[0] for k in changed} <= {k.rpartition(".")[0] for k in own} | {
        k.rpartition(".")[0] for k in nets.network(name, row, **SMALL).body.state_dict()
    }


def test_operations_off_the_path_do_not_move_with_momentum_and_decay(short_turns: None) -> None:
    """First both paths are trained, so that all weights have momentum; then only one of them."""
    rows = members()[:2]
    model = nets.supernet("nas_bench_macro", rows, shots=3, **SMALL)
    assert isinstance(model, KShotSupernet)
    made = recipe(steps=8, weight_decay=0.3, momentum=0.9, rate=0.2)
    at: dict[int, dict[str, Any]] = {}

    def keep(progress: Progress) -> None:
        at[progress.step] = {k: v.clone() for k, v in model.state_dict().items()}

    train(model, noise(), made, 0, lambda step: rows if step < 4 else rows[:1], on_progress=keep)
    own = {n for n, _ in nets.network("nas_bench_macro", rows[0], **SMALL).body.named_parameters()}
    other = {n for n, _ in nets.network("nas_bench_macro", rows[1], **SMALL).body.named_parameters()} - own
    assert other
    names = {f"supernet.{k.rpartition('.')[0]}.parametrizations.{k.rpartition('.')[2]}" for k in other}
    off = [k for k in at[4] if k.rpartition(".")[0] in names]
    assert len(off) == 3 * len(other)
    assert all(torch.equal(at[4][k], at[8][k]) for k in off)
    assert any(not torch.equal(at[2][k], at[4][k]) for k in off)
    assert all(not torch.equal(at[4][k], at[8][k]) for k in at[4] if k.endswith("layers.0.1.body.0.original0"))


def test_paths_of_a_step_do_not_change_each_other_s_gradients() -> None:
    """Gradients of several paths are summed, each with the lambdas of its path."""
    rows = members()[:2]
    grads = []
    for chosen in (rows, rows[:1], rows[1:]):
        model = uneven(dictionary(3)).eval()
        for row in chosen:
            model(images(4), row).square().sum().backward()
        grads.append({k: [p.grad for p in ps] for k, ps in originals(model).items()})
    for key, whole in grads[0].items():
        for k, grad in enumerate(whole):
            parts = [g[key][k] for g in grads[1:] if g[key][k] is not None]
            assert (grad is None) == (not parts)
            if parts:
                torch.testing.assert_close(grad, sum(parts), rtol=1e-3, atol=1e-5)


# -- turns -------------------------------------------------------------------------------------------
def test_one_of_ten_turns_of_ten_steps_trains_the_simplex_network() -> None:
    model = dictionary(2)
    trains_simplex = []
    for step in range(400):
        model.select_trainable(step)
        ours = {p.requires_grad for p in model.supernet.parameters()}
        theirs = {p.requires_grad for p in model.simplex.parameters()}
        assert len(ours) == len(theirs) == 1
        assert ours != theirs
        trains_simplex.append(theirs.pop())
    assert [step for step, simplex in enumerate(trains_simplex) if simplex] == [s for s in range(400) if s % 100 >= 90]


def test_each_turn_changes_only_the_weights_it_trains(short_turns: None) -> None:
    model = dictionary(3)
    states = [{k: v.clone() for k, v in model.named_parameters()}]
    train(
        model,
        noise(),
        recipe(steps=9, weight_decay=0.1),
        0,
        samplers.over_set(members(), 0),
        on_progress=lambda p: states.append({k: v.detach().clone() for k, v in model.named_parameters()}),
    )
    for step in range(9):
        moved = {k.partition(".")[0] for k, v in states[step].items() if not torch.equal(v, states[step + 1][k])}
        assert moved == {"simplex" if step % 3 == 2 else "supernet"}


def test_a_trained_dictionary_can_be_trained_further(short_turns: None) -> None:
    """Weights without gradients in the last step are trained in the next training, and a moving average copies them."""
    model = dictionary(2)
    train(model, noise(), recipe(steps=2), 0, samplers.over_set(members(), 0))  # ends on the supernets' turn
    assert model(images(2), members()[0]).requires_grad
    before = {k: v.clone() for k, v in model.simplex.state_dict().items()}
    train(model, noise(), recipe(steps=3, ema=0.5), 0, samplers.over_set(members()[:1], 0))
    assert any(not torch.equal(v, before[k]) for k, v in model.simplex.state_dict().items())


# -- ghost batches, invalid input --------------------------------------------------------------------
def test_ghost_batches_work_with_mixed_norms() -> None:
    rows = members()
    single, one = nets.supernet("nas_bench_macro", rows, **SMALL), dictionary_of_one("nas_bench_macro", True)
    for model in (single, one):
        train(model, noise(), recipe(steps=2, ghost_batch=4), 0, samplers.over_set(rows, 0))
    plain = plain_state(one, as_path(rows[0]))
    assert all(torch.equal(v, plain[k]) for k, v in single.state_dict().items())


def test_ghost_batches_work_with_norms_without_weights() -> None:
    model = dictionary(2, name="shufflenetv2")
    train(model, noise(), recipe(steps=2, ghost_batch=4), 0, samplers.over_set(members("shufflenetv2"), 0))
    assert all(m.ghost == 4 for m in model.modules() if isinstance(m, BatchNorm))


@pytest.mark.parametrize("shots", [0, -1])
def test_fewer_than_one_supernet_is_refused(shots: int) -> None:
    with pytest.raises(UserError):
        dictionary(shots)


@pytest.mark.parametrize("shots", [0, 65, 1.5, "2"])
def test_shots_out_of_range_are_refused_in_the_parameters(shots: Any) -> None:
    with pytest.raises(ConfigError, match=r"supernet\.shots"):
        config.load(None, {"supernet.shots": shots}, benchmarks.names())


def test_a_dictionary_names_the_choice_that_was_not_built() -> None:
    model = nets.supernet("fairnas", spaces.get("fairnas").parse(["0" * 19]), shots=2, **SMALL)
    with pytest.raises(UserError, match="layer 2 has no choice 4; built choices: 0"):
        model(images(2), [0, 0, 4] + [0] * 16)


@pytest.mark.parametrize("path", [[0, 0, 0], [0] * 20])
def test_a_dictionary_refuses_a_path_of_the_wrong_length(path: list[int]) -> None:
    model = nets.supernet("fairnas", spaces.get("fairnas").parse(["0" * 19]), shots=2, **SMALL)
    with pytest.raises(UserError, match=f"expected 19 numbers for fairnas, found {len(path)}"):
        model(images(2), path)


# -- copies ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "affine"), [*((name, True) for name in COPIED), ("shufflenetv2", False)])
def test_a_network_with_copied_weights_gives_the_logits_of_its_path(name: str, affine: bool) -> None:
    model = uneven(dictionary(3, name=name, affine=affine))
    rows = members(name)
    x = images(8)
    model.train()
    for i, row in enumerate(rows):
        model(images(8, seed=i), row)
    for i, row in enumerate(rows[:2]):
        network = nets.network(name, row, seed=i, **SMALL)
        model(images(2), rows[-1])  # earlier paths must not matter
        copy_weights(model, network)
        for mode in (False, True, False):
            model.train(mode)
            network.train(mode)
            with torch.no_grad():
                torch.manual_seed(0)  # dropout
                expected = model(x, row)
                torch.manual_seed(0)
                torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_copying_leaves_the_dictionary_as_it_is() -> None:
    model = uneven(dictionary(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network = nets.network("nas_bench_macro", members()[0], seed=1, **SMALL)
    copy_weights(model, network)
    for value in network.state_dict().values():
        value.add_(1)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_accuracy_of_a_path_does_not_depend_on_earlier_evaluations() -> None:
    model = uneven(dictionary(3))
    rows = members()
    x = noise().plain("train", 0, 16)[0]

    def logits(row: Any) -> Any:
        recalibrate(Network(model, row), [x])
        with torch.inference_mode():
            return model(x, row)

    alone = logits(rows[0])
    for row in rows[1:]:
        logits(row)
    assert torch.equal(logits(rows[0]), alone)
    params = packaged_params()
    oracle = SupernetOracle.of(model, noise(), params.search.model_copy(update={"batch_size": 12}))
    forth, back = oracle(rows), oracle(rows[::-1])
    assert forth.tolist() == back[::-1].tolist()
    train(model, noise(), recipe(steps=2), 0, samplers.over_set(rows, 0))  # evaluation left the model trainable


# -- files -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["nas_bench_macro", "shufflenetv2"])
def test_a_dictionary_is_loaded_as_it_was_saved(name: str, tmp_path: Path) -> None:
    rows = members(name)
    model = uneven(dictionary(3, name=name))
    train(model, noise(), recipe(steps=2), 0, samplers.over_set(rows, 0))
    about = files.describe_supernet(model, rows)
    assert (about["shots"], about["affine"], about["networks"]) == (3, name != "shufflenetv2", 4)
    content = {files.SUPERNET_WEIGHTS: files.weights(model), files.SUPERNET_ABOUT: artifacts.to_json(about)}
    artifacts.publish(tmp_path / "supernet", content)
    loaded = files.load_supernet(tmp_path / "supernet", rows[::-1])
    assert isinstance(loaded, KShotSupernet)
    assert not loaded.training
    assert equal(loaded, model)
    assert files.weights(loaded) == content[files.SUPERNET_WEIGHTS]
    assert files.describe_supernet(loaded, rows) == about
    with torch.inference_mode():
        for row in rows:
            torch.testing.assert_close(loaded(images(4), row), model(images(4), row), rtol=1e-4, atol=1e-5)


def test_weights_of_another_number_of_shots_are_refused(tmp_path: Path) -> None:
    for shots, claimed in ((1, 2), (2, 1), (2, 3)):
        model = dictionary(shots)
        about = {**files.describe_supernet(model, members()), "shots": claimed}
        content = {files.SUPERNET_WEIGHTS: files.weights(model), files.SUPERNET_ABOUT: artifacts.to_json(about)}
        folder = tmp_path / f"{shots}-{claimed}"
        artifacts.publish(folder, content)
        with pytest.raises(UserError, match="don't fit"):
            files.load_supernet(folder, members())


# -- interruptions -----------------------------------------------------------------------------------
def test_interrupted_training_of_a_dictionary_resumes_to_the_same_bytes(short_turns: None, tmp_path: Path) -> None:
    """Checkpoints at steps 2, 4, ... are before, in and after turns of the simplex network."""
    made = recipe(steps=8, checkpoint_every=2, ema=0.9)
    sampler = samplers.over_set(members(), 0)
    histories: list[list[Progress]] = [[], []]
    whole = train(dictionary(2), noise(), made, 0, sampler, history=histories[0])
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    for step in (3, 5, 7):
        with pytest.raises(Interrupted):
            train(dictionary(2), noise(), made, 0, sampler, checkpoint, stop_at(step))
    resumed = train(dictionary(2, seed=9), noise(), made, 0, sampler, checkpoint, history=histories[1])
    assert files.weights(resumed) == files.weights(whole)
    assert histories[0] == histories[1]


def test_training_of_a_dictionary_depends_only_on_the_seed() -> None:
    made = []
    for salt in (1, 2):
        torch.manual_seed(salt)
        made.append(train(dictionary(2), noise(), recipe(), 0, samplers.over_set(members(), 0)))
    assert equal(*made)
    assert not equal(made[0], train(dictionary(2), noise(), recipe(), 0, samplers.over_set(members(), 1)))
