"""Training: same weights after interruptions and with several processes; recipes; recalibrated statistics."""

from __future__ import annotations

from collections.abc import Callable
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
    nets,
    spaces,
)
from lissnas.config import TrainingConfig  # noqa: E402
from lissnas.core.errors import DamagedFile, UserError  # noqa: E402
from lissnas.nets import (  # noqa: E402
    images,
    probe,
    samplers,
)
from lissnas.nets.base import Network  # noqa: E402
from lissnas.nets.blocks import BatchNorm  # noqa: E402
from lissnas.nets.evaluation import SupernetOracle  # noqa: E402
from lissnas.nets.images import Augmentation  # noqa: E402
from lissnas.nets.probe import accuracy, recalibrate  # noqa: E402
from lissnas.nets.training import (  # noqa: E402
    NotFinite,
    Progress,
    device_of,
    optimizer,
    scheduler,
    train,
    use_ghost_batches,
)
from tests import small_nets  # noqa: E402
from tests.small_nets import MACRO, SMALL, Changed, Interrupted, copy_weights, equal, packaged_params, stop_at  # noqa: E402

nn = torch.nn
PATH = (1, 0, 0, 1, 0, 0, 1, 0)
recipe = partial(small_nets.recipe, steps=12, batch_size=16, warmup=2, checkpoint_every=4, report_every=4)
noise = partial(small_nets.noise, n=64, validation=40)
members = partial(small_nets.members, n=6)


def a_network(seed: int = 0) -> Any:
    return nets.network("nas_bench_macro", PATH, seed=seed, **SMALL)


def a_supernet(seed: int = 0) -> Any:
    return nets.supernet("nas_bench_macro", members(), seed=seed, **SMALL)


def fair_paths() -> samplers.Sampler:
    return samplers.fair_set(MACRO, members(), 2, 0)


# -- learning ----------------------------------------------------------------------------------------
def test_the_loss_falls_on_the_packaged_images() -> None:
    data = images.MemoryData.of(images.packaged(), 0, 500, 8, Augmentation(1, True, 0))
    model = a_network()
    before = accuracy(model, data.batches("validation", 250))
    losses: list[float] = []
    settings = recipe(steps=80, batch_size=64, rate=0.1, warmup=5, report_every=20)
    train(model, data, settings, 0, on_progress=lambda p: losses.append(p.loss))
    assert losses[-1] < losses[0] - 0.15
    assert losses == sorted(losses, reverse=True)
    assert accuracy(model, data.batches("validation", 250)) > max(before, 10) + 8


def test_a_supernet_trains_only_the_drawn_paths() -> None:
    model = a_supernet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = members()[:1]
    train(model, noise(), recipe(steps=3, weight_decay=0.1), 0, samplers.over_set(path, 0))
    own = {name for name, _ in nets.network("nas_bench_macro", path[0], **SMALL).body.named_parameters()}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == own
    assert changed < {name for name, _ in model.named_parameters()}


def test_gradients_of_all_paths_of_a_step_are_summed() -> None:
    rows = members()[:2]
    settings = recipe(steps=1, warmup=0, momentum=0.0, weight_decay=0.0, clip=0.0, padding=0, flip=False)
    both, parts = a_supernet(), [a_supernet(), a_supernet()]
    start = {k: v.clone() for k, v in both.named_parameters()}
    train(both, noise(), settings, 0, lambda step: rows)
    for part, row in zip(parts, rows, strict=True):
        train(part, noise(), settings, 0, lambda step, row=row: row[None])  # type: ignore[misc]
    moved = [{k: v.detach() - start[k] for k, v in m.named_parameters()} for m in (both, *parts)]
    for name, whole in moved[0].items():
        torch.testing.assert_close(whole, moved[1][name] + moved[2][name], atol=1e-6, rtol=1e-4)


def test_training_depends_on_the_seed_and_not_on_the_global_generator() -> None:
    made = []
    for salt in (1, 2):
        torch.manual_seed(salt)
        model = nets.supernet("shufflenetv2", spaces.get("shufflenetv2").parse(["0123" * 5, "3210" * 5]), **SMALL)
        rows = spaces.get("shufflenetv2").parse(["0123" * 5, "3210" * 5])
        made.append(train(model, noise(), recipe(steps=3), 0, samplers.over_set(rows, 0)))  # it has dropout
    assert equal(*made)
    a, b = (train(a_supernet(), noise(), recipe(steps=3), 0, samplers.over_set(members(), seed)) for seed in (0, 1))
    assert not equal(a, b)


def test_progress_reports_the_mean_loss_since_the_last_report() -> None:
    every: list[Progress] = []
    some: list[Progress] = []
    train(a_network(), noise(), recipe(steps=10, report_every=1), 0, on_progress=every.append)
    train(a_network(), noise(), recipe(steps=10, report_every=4), 0, on_progress=some.append)
    assert [p.step for p in some] == [4, 8, 10]
    means = [np.mean([p.loss for p in every[a:b]]) for a, b in ((0, 4), (4, 8), (8, 10))]
    assert [p.loss for p in some] == pytest.approx(means)
    assert [p.rate for p in every] == pytest.approx(rates_of(recipe(steps=10), 10)[:-1])


# -- interruptions -----------------------------------------------------------------------------------
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.0, "clip": 0.0},
    "momentum": {"momentum": 0.9, "schedule": "linear"},
    "ema, ghost batches": {"ema": 0.9, "ghost_batch": 8},
    "mixed precision": {"mixed_precision": True, "channels_last": False},
}


@pytest.mark.parametrize(("variant", "step"), [*((variant, 6) for variant in VARIANTS), ("momentum", 7)])
def test_interrupted_training_resumes_to_the_same_weights(variant: str, step: int, tmp_path: Path) -> None:
    settings = recipe(steps=8, report_every=1, **VARIANTS[variant])
    whole = train(a_supernet(), noise(), settings, 0, fair_paths())
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    with pytest.raises(Interrupted):
        train(a_supernet(), noise(), settings, 0, fair_paths(), checkpoint, stop_at(step))
    steps: list[int] = []
    resumed = train(a_supernet(seed=9), noise(), settings, 0, fair_paths(), checkpoint, lambda p: steps.append(p.step))
    assert steps[0] == step // 4 * 4 + 1
    assert equal(resumed, whole)


def test_training_interrupted_before_the_first_checkpoint_starts_from_scratch(tmp_path: Path) -> None:
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    steps: list[int] = []
    for watch in (stop_at(3), lambda p: steps.append(p.step)):
        try:
            model = train(a_network(), noise(), recipe(report_every=1), 0, None, checkpoint, watch)
        except Interrupted:
            assert checkpoint.load() is None
    assert steps == list(range(1, 13))
    assert equal(model, train(a_network(), noise(), recipe(), 0))


def test_training_interrupted_twice_gives_the_same_weights(tmp_path: Path) -> None:
    settings = recipe(report_every=1, ema=0.5)
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    for step in (5, 9):
        with pytest.raises(Interrupted):
            train(a_network(), noise(), settings, 0, None, checkpoint, stop_at(step))
    resumed = train(a_network(), noise(), settings, 0, None, checkpoint)
    assert equal(resumed, train(a_network(), noise(), settings, 0))


def test_reported_losses_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    """The curve and table of a training must not depend on interruptions."""
    settings = recipe(steps=12, checkpoint_every=3, report_every=4)
    whole: list[Progress] = []
    train(a_network(), noise(), settings, 0, on_progress=whole.append)
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    with pytest.raises(Interrupted):
        train(a_network(), noise(), settings, 0, None, checkpoint, stop_at(8))
    after: list[Progress] = []
    train(a_network(), noise(), settings, 0, None, checkpoint, after.append)
    assert after == whole[-len(after) :]


def saved_after_4(folder: Path) -> artifacts.Checkpoint:
    checkpoint = artifacts.Checkpoint(folder / "r", {"rate": 1})
    with pytest.raises(Interrupted):
        train(a_network(), noise(), recipe(report_every=1), 0, None, checkpoint, stop_at(6))
    return checkpoint


def test_a_checkpoint_of_other_parameters_is_ignored(tmp_path: Path) -> None:
    saved_after_4(tmp_path)
    steps: list[int] = []
    other = artifacts.Checkpoint(tmp_path / "r", {"rate": 2})
    train(a_network(), noise(), recipe(report_every=1), 0, None, other, lambda p: steps.append(p.step))
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"", lambda data: data[:99] + b"x" + data[100:]]
)
def test_a_truncated_checkpoint_is_damaged(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    checkpoint = saved_after_4(tmp_path)
    (state,) = checkpoint.folder.glob("state-*.npz")
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(DamagedFile, match=r"state-.*npz is damaged: .*Delete the folder .*\.r\.checkpoint to start"):
        train(a_network(), noise(), recipe(), 0, None, checkpoint)


# -- losses that are not finite ----------------------------------------------------------------------
def nan_images(at: int) -> Changed:
    """Return images that are NaN from step `at`."""
    return Changed(noise(), lambda step, rank, x: x * float("nan") if step >= at else x)


def test_a_nan_loss_stops_training_and_names_step_and_path(tmp_path: Path) -> None:
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    rows = members()
    path = "".join(map(str, samplers.over_set(rows, 0)(6)[0]))
    with pytest.raises(NotFinite, match=f"step 6 on path {path}: the loss is nan"):
        train(a_supernet(), nan_images(6), recipe(), 0, samplers.over_set(rows, 0), checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    assert saved[1]["step"] == 4
    whole = train(a_supernet(), noise(), recipe(), 0, samplers.over_set(rows, 0))
    assert equal(train(a_supernet(), noise(), recipe(), 0, samplers.over_set(rows, 0), checkpoint), whole)


def test_a_nan_loss_of_a_network_names_the_step() -> None:
    with pytest.raises(NotFinite, match="step 0: the loss is nan"):
        train(a_network(), nan_images(0), recipe(), 0)


class RootOfZero(nn.Module):  # type: ignore[name-defined, misc]
    """A network with a finite loss and a gradient that is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 10)

    def forward(self, x: Any) -> Any:
        return self.layer(x.mean(dim=(2, 3))) + (self.layer.weight.sum() * 0).sqrt()


def test_saved_weights_are_finite(tmp_path: Path) -> None:
    """A gradient that overflows makes weights NaN before a loss is: such weights are not saved."""
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    with pytest.raises(NotFinite):
        train(RootOfZero(), noise(), recipe(checkpoint_every=1), 0, None, checkpoint)
    saved = checkpoint.load()
    assert saved is None or all(np.isfinite(v).all() for v in saved[0].values())


def test_training_does_not_return_weights_that_are_not_finite() -> None:
    with pytest.raises(NotFinite):
        train(RootOfZero(), noise(), recipe(steps=1), 0)


# -- invalid input -----------------------------------------------------------------------------------
def test_unavailable_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UserError, match="cuda was requested, but torch finds no GPU"):
            device_of(name)


@pytest.mark.parametrize("name", ["gpu", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="device"):
        device_of(name)


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size: 65 images are more than the 64 to train on"):
        train(a_network(), noise(), recipe(batch_size=65), 0)


# -- recipes -----------------------------------------------------------------------------------------
def rates_of(settings: TrainingConfig, steps: int) -> list[float]:
    """Return the learning rates of `steps` steps, and of the next one."""
    sgd = optimizer(nn.Linear(1, 1), settings)
    schedule = scheduler(sgd, settings)
    rates = []
    for _ in range(steps + 1):
        rates.append(float(sgd.param_groups[0]["lr"]))
        sgd.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_warm_up_and_fall_to_zero(schedule: str) -> None:
    rates = np.array(rates_of(recipe(steps=110, warmup=10, rate=0.4, schedule=schedule), 110))
    assert rates[:10] == pytest.approx(0.04 * np.arange(1, 11))
    done = np.arange(101) / 100
    decay = (1 + np.cos(np.pi * done)) / 2 if schedule == "cosine" else 1 - done
    assert rates[10:] == pytest.approx(0.4 * decay, abs=1e-12)


@settings(max_examples=30)
@given(st.integers(1, 100), st.integers(0, 120), st.sampled_from(["cosine", "linear"]))
def test_rates_are_positive_and_never_above_the_requested_one(steps: int, warmup: int, schedule: str) -> None:
    made = recipe(steps=steps, warmup=warmup, schedule=schedule)
    rates = rates_of(made, steps)
    assert all(0 < rate <= made.rate * (1 + 1e-12) for rate in rates[:-1])
    assert rates[0] == pytest.approx(made.rate / max(1, warmup))


@pytest.mark.parametrize("name", nets.names())
def test_norms_and_biases_do_not_decay(name: str) -> None:
    space = spaces.get(name)
    model = nets.supernet(name, space.sample(2, np.random.default_rng(0)), affine=True, **SMALL)
    groups = optimizer(model, recipe(weight_decay=0.3)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for module in model.modules():
        for part, p in module.named_parameters(recurse=False):
            weights = isinstance(module, (nn.Conv2d, nn.Linear)) and part == "weight"
            assert decay[id(p)] == (0.3 if weights else 0.0)


def test_momentum_is_of_nesterov() -> None:
    (first, *_) = optimizer(a_network(), recipe(momentum=0.8)).param_groups
    assert (first["momentum"], first["nesterov"]) == (0.8, True)
    (first, *_) = optimizer(a_network(), recipe(momentum=0.0)).param_groups
    assert (first["momentum"], first["nesterov"]) == (0.0, False)


def test_gradients_are_clipped_to_the_given_norm() -> None:
    moved = []
    for clip in (0.0, 0.01):
        model = a_network()
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
        settings = recipe(steps=1, warmup=0, momentum=0.0, weight_decay=0.0, clip=clip, rate=1.0)
        train(model, noise(), settings, 0)
        step = [(p.detach() - before[k]).ravel() for k, p in model.named_parameters()]
        moved.append(float(torch.cat(step).norm()))
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.01, rel=1e-3)


def test_labels_are_smoothed() -> None:
    def first_loss(smoothing: float) -> float:
        seen: list[float] = []
        settings = recipe(steps=1, report_every=1, label_smoothing=smoothing)
        train(a_network(), noise(), settings, 0, on_progress=lambda p: seen.append(p.loss))
        return seen[0]

    model = a_network().train()
    x, y = noise().train_batch(0, 16)
    log_p = torch.log_softmax(model(x), dim=1)
    hard, even = -log_p[torch.arange(16), y].mean(), -log_p.mean()
    assert first_loss(0.0) == pytest.approx(float(hard.detach()), rel=1e-4)
    assert first_loss(0.3) == pytest.approx(float((0.7 * hard + 0.3 * even).detach()), rel=1e-4)


# -- ghost batches -----------------------------------------------------------------------------------
def test_a_ghost_batch_norm_normalises_each_part() -> None:
    x = torch.randn(10, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    plain, ghost = BatchNorm(4), BatchNorm(4)
    use_ghost_batches(ghost, 4)
    assert ghost.ghost == 4
    expected = torch.cat([plain(part) for part in (x[:4], x[4:8], x[8:])])
    torch.testing.assert_close(ghost(x), expected)
    assert equal(ghost, plain)  # statistics too
    assert not torch.allclose(ghost(x), BatchNorm(4)(x))


def test_a_ghost_batch_norm_of_leading_channels() -> None:
    x = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    plain, ghost = BatchNorm(5), BatchNorm(5)
    use_ghost_batches(ghost, 4)
    torch.testing.assert_close(ghost(x), torch.cat([plain(x[:4]), plain(x[4:])]))
    assert equal(ghost, plain)


def test_ghost_batches_have_no_effect_in_evaluation_or_with_size_0() -> None:
    x = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, ghost, off = a_network(), a_network(), a_network()
    use_ghost_batches(ghost, 4)
    use_ghost_batches(off, 0)
    assert not any(getattr(m, "ghost", 0) for m in off.modules())
    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    assert not torch.equal(ghost.train()(x), plain.train()(x))
    assert torch.equal(off.train()(x), a_network().train()(x))


# -- the moving average ------------------------------------------------------------------------------
def test_training_returns_the_moving_average() -> None:
    """The average starts with the weights after the first step, and includes running statistics."""
    settings = recipe(steps=3, warmup=0)
    seen: list[dict[str, Any]] = []
    plain, averaged = a_network(), a_network()
    train(
        plain,
        noise(),
        settings.model_copy(update={"report_every": 1}),
        0,
        on_progress=lambda p: seen.append({k: v.clone() for k, v in plain.state_dict().items()}),
    )
    train(averaged, noise(), settings.model_copy(update={"ema": 0.75}), 0)
    for name, found in averaged.state_dict().items():
        if found.dtype.is_floating_point:
            one, two, three = (state[name] for state in seen)
            torch.testing.assert_close(found, 0.75 * (0.75 * one + 0.25 * two) + 0.25 * three, msg=name)
    assert not averaged.training


# -- several processes (more in test_parallel) ---------------------------------------------------------
def test_a_batch_that_does_not_divide_among_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(UserError, match="batch_size: 16 images can't be divided evenly among 3 processes"):
        train(a_network(), noise(), recipe(), 0)


# -- recalibrated statistics -------------------------------------------------------------------------
def batches(n: int = 3, size: int = 12) -> list[Any]:
    data = noise()
    return [data.plain("train", i * size, size)[0] for i in range(n)]


def test_recalibrated_statistics_are_the_plain_average_over_batches() -> None:
    norm = BatchNorm(3)
    for _ in range(4):
        norm.train()(5 + torch.randn(8, 3, 4, 4))
    xs = batches()
    recalibrate(norm, xs)
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in xs]).mean(dim=0)
    var = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in xs]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.momentum == 0.1
    assert not norm.training


def test_recalibration_of_leading_channels_is_the_same_average() -> None:
    norm, whole = BatchNorm(5), BatchNorm(3)
    recalibrate(norm, batches())
    recalibrate(whole, batches())
    torch.testing.assert_close(norm.running_mean[:3], whole.running_mean)  # type: ignore[index]
    torch.testing.assert_close(norm.running_var[:3], whole.running_var)  # type: ignore[index]


def evaluator(model: Any, **changes: Any) -> SupernetOracle:
    params = packaged_params()
    settings = params.search.model_copy(update={"images": 40, "batch_size": 20, **changes})
    return SupernetOracle.of(model, noise(), settings)


@pytest.fixture(scope="module")
def trained() -> Any:
    return train(a_supernet(), noise(), recipe(steps=30, rate=0.1), 0, samplers.over_set(members(), 0))


def test_recalibration_does_not_change_weights_and_settings(trained: Any) -> None:
    before = {k: v.clone() for k, v in trained.named_parameters()}
    momenta = [m.momentum for m in trained.modules() if isinstance(m, BatchNorm)]
    evaluator(trained)(members())
    assert all(torch.equal(p, before[k]) for k, p in trained.named_parameters())
    assert all(p.requires_grad and p.grad is not None for p in trained.classifier.parameters())
    assert [m.momentum for m in trained.modules() if isinstance(m, BatchNorm)] == momenta
    assert not trained.training


@pytest.mark.parametrize("name", ["nas_bench_macro", "shufflenetv2", "nasbench101"])
def test_the_accuracy_of_a_path_does_not_depend_on_earlier_evaluations(name: str) -> None:
    rows = spaces.get(name).sample_distinct(4, np.random.default_rng(1))
    model = nets.supernet(name, rows, **SMALL)
    train(model, noise(), recipe(steps=3, rate=0.1), 0, samplers.over_set(rows, 0))
    x = noise().plain("validation", 0, 40)[0]

    def logits(path: Any) -> Any:
        recalibrate(Network(model, path), batches())
        with torch.inference_mode():
            return model(x, path)

    alone = logits(rows[0])
    for other in rows[1:]:
        logits(other)
    assert torch.equal(logits(rows[0]), alone)
    forth, back = evaluator(model)(rows), evaluator(model)(rows[::-1])
    assert forth.tolist() == back[::-1].tolist()


def test_the_accuracy_of_a_path_is_that_of_its_recalibrated_network(trained: Any) -> None:
    row = members()[2]
    network = nets.network("nas_bench_macro", row, **SMALL)
    copy_weights(trained, network)
    data = noise()
    recalibrate(network, [data.plain("train", first, 20)[0] for first in (0, 20)])
    assert evaluator(trained, recalibration_batches=2).accuracy(row) == accuracy(
        network, data.batches("validation", 40)
    )


def test_recalibration_can_be_switched_off() -> None:
    model = train(a_supernet(), noise(), recipe(steps=30, rate=0.1), 0, samplers.over_set(members(), 0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    off = evaluator(model, recalibration_batches=0)
    assert off.calibration == []
    row = members()[0]
    with torch.inference_mode():
        x, y = noise().plain("validation", 0, 40)
        expected = 100 * float((model(x, row).argmax(dim=1) == y).float().mean())
    assert off.accuracy(row) == pytest.approx(expected)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert off(members()).tolist() != evaluator(model)(members()).tolist()


def test_an_oracle_uses_the_first_validation_images_in_batches_of_any_size(trained: Any) -> None:
    whole, parts = (
        evaluator(trained, recalibration_batches=0),
        evaluator(trained, recalibration_batches=0, batch_size=7),
    )
    assert whole(members()).tolist() == parts(members()).tolist()
    few = evaluator(trained, images=10, recalibration_batches=0)
    assert torch.equal(torch.cat([y for _, y in few.batches]), noise().labels["validation"][:10])
    assert sum(len(y) for _, y in evaluator(trained, images=1_000).batches) == 40


def test_more_recalibration_batches_than_available_change_nothing(trained: Any) -> None:
    """There are 64 images: 4 batches of at most 20."""
    assert evaluator(trained, recalibration_batches=6)(members()).tolist() == (
        evaluator(trained, recalibration_batches=4)(members()).tolist()
    )


def test_images_with_another_number_of_classes_are_refused(trained: Any) -> None:
    params = packaged_params()
    with pytest.raises(UserError, match="classes"):
        SupernetOracle.of(trained, noise(classes=4), params.search)


def test_missing_validation_images_are_refused(trained: Any) -> None:
    params = packaged_params()
    with pytest.raises(UserError, match="no images are held out for evaluation"):
        SupernetOracle.of(trained, noise(validation=0), params.search)


class Points:
    """A recorder that lists the points of a training."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.got: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.got.append((step, values))


@pytest.mark.parametrize("kind", ["network", "supernet"])
def test_recorded_accuracy_does_not_change_the_training(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_SHARE", 1e9)  # a probe at each report
    is_network, settings, data = kind == "network", recipe(ghost_batch=8), noise()
    trained = []
    for active in (False, True):
        record: Any = Points(active)
        model = a_network() if is_network else a_supernet()
        paths = (None,) if is_network else members()[:2]
        watch = probe.recorded(lambda progress: None, record, model, data, settings, paths)
        train(model, data, settings, 0, None if is_network else fair_paths(), on_progress=watch)
        trained.append(model)
    assert equal(*trained)
    assert [step for step, _ in record.got] == [4, 8, 12]
    assert all(values.keys() == {"accuracy", "epoch", "loss", "rate"} for _, values in record.got)
    assert all(0 <= values["accuracy"] <= 100 for _, values in record.got)
    assert record.got[-1][1]["epoch"] == 3.0
