"""Processes that train as one, batches made ahead, and how training images are jittered and cropped."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from PIL import Image  # noqa: E402

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
    nets,
    spaces,
)
from lissnas.config import TrainingConfig  # noqa: E402
from lissnas.core.errors import UserError  # noqa: E402
from lissnas.core.rng import stream  # noqa: E402
from lissnas.nets import kshot, parallel, samplers, training  # noqa: E402
from lissnas.nets.images import Augmentation, FolderData, MemoryData, jitter, random_crop  # noqa: E402
from lissnas.nets.training import NotFinite, check_batches, train  # noqa: E402
from lissnas.spaces import Archs  # noqa: E402

SMALL: dict[str, Any] = {"width": 0.25, "stem_stride": 1, "classes": 10}
MACRO = spaces.get("nas_bench_macro")
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["lissnas.nets.training", "tests.unit.test_parallel", "tests.unit.test_training"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(**changes: Any) -> TrainingConfig:
    small = {
        "steps": 6,
        "batch_size": 8,
        "rate": 0.05,
        "warmup": 1,
        "curriculum": 0.0,
        "padding": 1,
        "checkpoint_every": 2,
        "report_every": 1,
    }
    params = config.load(None, {}, benchmarks.names())
    return TrainingConfig.model_validate({**params.recipes["cpu"].model_dump(), **small, **changes})


def noise(jitter: float = 0.0, n: int = 32) -> MemoryData:
    generator = torch.Generator().manual_seed(0)
    sizes = {"train": n, "validation": 8, "test": 8}
    pixels = {k: torch.randint(0, 256, (m, 3, 8, 8), generator=generator).to(torch.uint8) for k, m in sizes.items()}
    labels = {k: torch.randint(0, 10, (m,), generator=generator) for k, m in sizes.items()}
    return MemoryData(pixels, labels, 10, 0, Augmentation(1, True, 2, jitter))


def members() -> Archs:
    return MACRO.sample_distinct(4, np.random.default_rng(0))


def a_supernet(shots: int = 1) -> Any:
    return nets.supernet("nas_bench_macro", members(), shots=shots, **SMALL)


class Recorder(MemoryData):
    """Images that tell what was asked of them, and break at a step."""

    def __init__(self, breaks: int = 10**9) -> None:
        sound = noise()
        super().__init__(sound.pixels, sound.labels, 10, 0, sound.augmentation)
        self.breaks = breaks
        self.asked: list[tuple[int, int, int, int]] = []

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
        self.asked.append((step, size, rank, world))
        if step >= self.breaks:
            raise OSError(f"the image of step {step} can't be read")
        return super().train_batch(step, size, rank, world)


class Hurt(MemoryData):
    """Images of which one process' are no numbers from a step on."""

    def __init__(self, at: int, hurt_rank: int) -> None:
        sound = noise()
        super().__init__(sound.pixels, sound.labels, 10, 0, sound.augmentation)
        self.at, self.hurt_rank = at, hurt_rank

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
        x, y = super().train_batch(step, size, rank, world)
        return (x * float("nan") if step >= self.at and rank == self.hurt_rank else x), y


# -- two processes -----------------------------------------------------------------------------------
def together(target: Callable[..., None], folder: Path, *args: Any, codes: tuple[int, ...] = (0, 0)) -> list[Any]:
    """Run `target(rank, folder, *args)` in two processes; return what each left in RANK.json."""
    children = [FORK.Process(target=target, args=(rank, folder, *args)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    found = [child.exitcode for child in children]
    for child in children:
        child.kill()  # one that hangs
    assert [code if code is None else min(abs(code), 1) for code in found] == list(codes)
    return [json.loads((folder / f"{r}.json").read_text()) for r in range(2) if (folder / f"{r}.json").exists()]


def meet(rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def average_some(rank: int, folder: Path) -> None:
    meet(rank, folder)
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) + 100 * rank
    values = [
        base.to(memory_format=torch.channels_last),
        base[:, :, 0, 0].t(),  # a view that is not contiguous
        torch.tensor(float(rank)),
        torch.full((3,), rank, dtype=torch.float64),
        torch.zeros(0),
        torch.tensor([float("nan") if rank else 1.0, 5.0]),
    ]
    leaf = torch.ones(2, requires_grad=True)
    (leaf * (rank + 1)).sum().backward()
    assert leaf.grad is not None
    parallel.average([*values, leaf.grad])
    strides = values[0].is_contiguous(memory_format=torch.channels_last)
    dtypes = [str(v.dtype) for v in values]
    (folder / f"{rank}.json").write_text(
        json.dumps([[v.tolist() for v in [*values, leaf.grad]], strides, dtypes, parallel.leads()])
    )
    torch.distributed.destroy_process_group()


def test_an_average_is_the_mean_over_processes_whatever_the_layout(tmp_path: Path) -> None:
    (a, strides, dtypes, first), (b, _, _, second) = together(average_some, tmp_path)
    assert json.dumps(a) == json.dumps(b)
    base = np.arange(24.0).reshape(2, 3, 2, 2) + 50
    assert a[0] == base.tolist()
    assert a[2] == 0.5
    assert a[3] == [0.5] * 3
    assert a[4] == []
    assert np.isnan(a[5][0])
    assert a[5][1] == 5
    assert a[6] == [1.5, 1.5]
    assert strides
    assert dtypes == ["torch.float32"] * 3 + ["torch.float64"] + ["torch.float32"] * 2
    assert (first, second) == (True, False)


def announce_some(rank: int, folder: Path, port: int, fails: bool) -> None:
    """Meet as `torchrun` has it."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "TORCHELASTIC_RUN_ID": "none", "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    assert parallel.launched()
    heard: list[int] = []
    with parallel.process_group():
        if parallel.leads():
            for number in (0, 3, 2**40):
                parallel.announce(number)
            if fails:
                raise SystemExit(1)
        else:
            parallel.announce(7)  # a follower's is nobody's business
            heard += parallel.announced()
    assert not torch.distributed.is_initialized()
    assert parallel.leads()
    (folder / f"{rank}.json").write_text(json.dumps(heard))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_followers_hear_every_training_and_the_end(tmp_path: Path) -> None:
    assert together(announce_some, tmp_path, free_port(), False) == [[], [0, 3, 2**40]]


def test_followers_do_not_wait_for_a_leader_that_failed(tmp_path: Path) -> None:
    started = time.monotonic()
    assert together(announce_some, tmp_path, free_port(), True, codes=(1, 1)) == []
    assert time.monotonic() - started < 40


def test_a_process_alone_leads_and_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not parallel.launched()
    with parallel.process_group():
        assert not torch.distributed.is_initialized()
        assert parallel.leads()
        parallel.announce(3)


def train_hurt(rank: int, folder: Path, hurt_rank: int) -> None:
    meet(rank, folder)
    checkpoint = artifacts.Checkpoint(folder / "r", {})
    try:
        train(a_supernet(), Hurt(3, hurt_rank), recipe(), 0, samplers.over_set(members(), 0), checkpoint)
    except NotFinite as error:
        (folder / f"{rank}.json").write_text(json.dumps(str(error)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("hurt_rank", [0, 1])
def test_a_loss_of_one_process_that_is_no_number_ends_both(hurt_rank: int, tmp_path: Path) -> None:
    a, b = together(train_hurt, tmp_path, hurt_rank)
    path = "".join(map(str, samplers.over_set(members(), 0)(3)[0]))
    assert a == b
    assert a.startswith(f"step 3 on path {path}: the loss is nan")
    saved = artifacts.Checkpoint(tmp_path / "r", {}).load()
    assert saved is not None
    assert saved[1]["step"] == 2
    assert all(np.isfinite(v).all() for v in saved[0].values())


class Doubles(MemoryData):
    """Images as doubles: sums in another order then move no activation over a ReLU's edge."""

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
        x, y = super().train_batch(step, size, rank, world)
        return x.double(), y


def train_k_shot() -> Any:
    """Train where the simplex network has every third step; norms have no weights, so that they can be ghosts'."""
    kshot.TURN, kshot.TURNS = 1, 3
    sound = noise(jitter=0.3)
    data = Doubles(sound.pixels, sound.labels, 10, 0, sound.augmentation)
    model = nets.supernet("nas_bench_macro", members(), shots=2, affine=False, **SMALL).double()
    return train(model, data, recipe(ghost_batch=4), 0, samplers.over_set(members(), 0))


def train_part(rank: int, folder: Path) -> None:
    meet(rank, folder)
    model = train_k_shot()
    np.savez(folder / f"{rank}.npz", **{k: v.detach().numpy() for k, v in model.named_parameters()})
    torch.distributed.destroy_process_group()


def test_two_processes_train_a_dictionary_on_jittered_images_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TURN", "TURNS"):
        monkeypatch.setattr(kshot, name, getattr(kshot, name))  # put back after `train_k_shot`
    together(train_part, tmp_path)
    alone = train_k_shot()
    a, b = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    start = nets.supernet("nas_bench_macro", members(), shots=2, affine=False, **SMALL).state_dict()
    for name, p in alone.named_parameters():
        assert (a[name] == b[name]).all()
        assert np.abs(a[name] - p.detach().numpy()).max() < 1e-6
    assert any(k.startswith("simplex") and np.abs(a[k] - start[k].numpy()).max() > 1e-4 for k in a.files)


# -- batches -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"batch_size": 8, "ghost_batch": 3}, 1, "ghost_batch: the 8 images of a process can't be parted into 3 each"),
        ({"batch_size": 8, "ghost_batch": 16}, 1, "ghost_batch: the 8 images"),
        ({"batch_size": 8, "ghost_batch": 8}, 2, "ghost_batch: the 4 images of a process can't be parted into 8"),
        ({"batch_size": 12, "ghost_batch": 4}, 2, "ghost_batch: the 6 images"),
        ({"batch_size": 8}, 3, "batch_size: 8 images can't be shared evenly by 3 processes"),
        ({"batch_size": 33}, 1, "batch_size: 33 images are more than the 32 to train on"),
    ],
)
def test_batches_that_do_not_fit_are_a_mistake(changes: dict[str, Any], world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_batches(recipe(**changes), noise(), world)
    if world == 1:
        model = a_supernet()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(UserError, match=message):
            train(model, noise(), recipe(**changes), 0, samplers.over_set(members(), 0))
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 6))
def test_batches_are_refused_exactly_where_a_process_has_a_part_of_another_size(
    size: int, ghost: int, world: int
) -> None:
    made = BASE.model_copy(update={"batch_size": size, "ghost_batch": ghost})
    parts = [len(part) for part in np.array_split(np.arange(size), world)]
    fits = size <= 32 and len(set(parts)) == 1 and (not ghost or all(p % ghost == 0 and p >= ghost for p in parts))
    if fits:
        check_batches(made, DATA, world)
    else:
        with pytest.raises(UserError):
            check_batches(made, DATA, world)


BASE, DATA = recipe(), noise()


@pytest.mark.parametrize("steps", [range(0), range(1), range(4, 9), range(6)])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_batches_made_ahead_are_the_very_batches_in_order(steps: range, rank: int, world: int) -> None:
    data = Recorder()
    found = list(training._prefetched(data, steps, 8, rank, world))
    assert data.asked == [(step, 8, rank, world) for step in steps]
    assert len(found) == len(steps)
    for step, (x, y) in zip(steps, found, strict=True):
        expected, labels = noise().train_batch(step, 8, rank, world)
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)


def test_at_most_one_batch_is_made_ahead() -> None:
    data = Recorder()
    batches = training._prefetched(data, range(9), 8, 0, 1)
    for step in range(4):
        next(batches)
        time.sleep(0.05)
        assert len(data.asked) <= step + 2
    batches.close()  # type: ignore[attr-defined]
    assert len(data.asked) <= 6


@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_image_that_can_t_be_read_ends_training_at_its_step(at: int, tmp_path: Path) -> None:
    seen: list[int] = []
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    sampler = samplers.over_set(members(), 0)
    with pytest.raises(OSError, match=f"the image of step {at} can't be read"):
        train(a_supernet(), Recorder(at), recipe(), 0, sampler, checkpoint, lambda p: seen.append(p.step))
    assert seen == list(range(1, at + 1))  # all steps before it were done
    goes_on = train(a_supernet(), noise(), recipe(), 0, sampler, checkpoint)
    whole = train(a_supernet(), noise(), recipe(), 0, sampler)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in goes_on.state_dict().items())


def test_a_training_that_fails_leaves_no_thread_at_work() -> None:
    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        raise Stop

    data = Recorder()
    with pytest.raises(Stop):
        train(a_supernet(), data, recipe(steps=100), 0, samplers.over_set(members(), 0), on_progress=stop)
    time.sleep(0.1)
    assert len(data.asked) <= 3


# -- jitter ------------------------------------------------------------------------------------------
def generator(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def pixels(n: int, side: int, seed: int = 0) -> Any:
    return torch.randint(0, 256, (n, 3, side, side), generator=generator(seed)).to(torch.uint8)


@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(1, 9))
def test_no_jitter_is_no_change_and_draws_nothing(seed: int, n: int, side: int) -> None:
    x, g = pixels(n, side, seed), generator(seed)
    before = g.get_state()
    assert torch.equal(jitter(x, 0.0, g), x)
    assert torch.equal(g.get_state(), before)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(1e-6, 1, exclude_max=True), st.integers(1, 4), st.integers(1, 6))
def test_jittered_images_are_bytes_within_what_the_factors_allow(seed: int, strength: float, n: int, side: int) -> None:
    x = pixels(n, side, seed)
    x[0] = torch.tensor([0, 255, 255], dtype=torch.uint8).view(3, 1, 1)  # extremes
    before = x.clone()
    y = jitter(x, strength, generator(seed))
    assert y.dtype == torch.uint8
    assert y.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(y, jitter(x, strength, generator(seed)))
    # Wrapping around would take 255 to nearly 0: three factors move a value by less than this.
    most = 255 * ((1 + strength) ** 3 - 1) + 1
    assert (y.float() - x.float()).abs().max() <= most


@pytest.mark.parametrize("strength", [0.4, 0.99])
def test_grey_images_stay_grey(strength: float) -> None:
    grey = pixels(50, 4)[:, :1].expand(-1, 3, -1, -1).contiguous()
    y = jitter(grey, strength, generator())
    assert torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[:, 0], y[:, 2])
    assert not torch.equal(y, grey)


def test_black_stays_black_and_flat_grey_changes_by_its_brightness_alone() -> None:
    black = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    assert torch.equal(jitter(black, 0.9, generator()), black)
    flat = torch.full((2000, 3, 2, 2), 100, dtype=torch.uint8)
    y = jitter(flat, 0.4, generator()).float()
    assert (y.flatten(1) == y[:, :1, :1, :1].flatten(1)).all()
    factors = y[:, 0, 0, 0] / 100
    assert float(factors.min()) >= 0.595
    assert float(factors.max()) <= 1.405
    assert float(factors.min()) < 0.42 + 0.2
    assert float(factors.max()) > 1.38
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_each_image_has_its_own_factors() -> None:
    same = pixels(1, 4).expand(20, -1, -1, -1)
    y = jitter(same, 0.4, generator())
    assert len({image.numpy().tobytes() for image in y}) == 20


# -- crops -------------------------------------------------------------------------------------------
class Spied:
    """An image of which only the part that is taken matters."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.box: tuple[int, int, int, int] = (0, 0, 0, 0)

    def resize(self, size: tuple[int, int], how: Any, box: tuple[int, int, int, int]) -> Any:
        self.box = box
        return Image.new("RGB", size)


def box_of(width: int, height: int, seed: int) -> tuple[int, int, int, int]:
    spied = Spied(width, height)
    assert random_crop(spied, 4, True, np.random.default_rng(seed)).shape == (3, 4, 4)  # type: ignore[arg-type]
    return spied.box


@settings(max_examples=200)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**31))
def test_a_crop_lies_within_the_image(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = box_of(width, height, seed)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@settings(max_examples=200)
@given(st.integers(100, 1000), st.floats(0.5, 2), st.integers(0, 2**31))
def test_a_crop_is_8_to_100_percent_of_an_image_of_usual_shape(width: int, ratio: float, seed: int) -> None:
    height = round(width * ratio)
    left, top, right, bottom = box_of(width, height, seed)
    w, h = right - left, bottom - top
    middle = w == h == min(width, height)
    share = w * h / (width * height)
    slack = (w + h + 1) / (2 * width * height)  # sides are rounded to whole pixels
    assert 0.08 - slack <= share <= 1
    assert middle or 3 / 4 * (1 - 1.1 / w) <= w / h <= 4 / 3 * (1 + 1.1 / w)


def test_shares_of_the_area_are_uniform_and_places_reach_all_edges() -> None:
    boxes = np.array([box_of(400, 400, seed) for seed in range(1500)])
    share = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 160_000
    assert share.min() < 0.1
    assert share.max() > 0.9
    # A large part of an uneven ratio doesn't fit and is drawn again, which tells above .75 only.
    low = share[share < 0.74]
    counts = np.histogram(low, 6, (0.08, 0.74))[0]
    assert counts.min() > 0.75 * counts.mean()
    assert boxes[:, 0].min() == boxes[:, 1].min() == 0
    assert boxes[:, 2].max() == boxes[:, 3].max() == 400


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 2), (1, 5000), (5000, 1), (7, 900), (2, 2)])
def test_tiny_and_extreme_images_are_cropped(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    for seed in range(40):
        crop = random_crop(image, 8, True, np.random.default_rng(seed))
        assert crop.shape == (3, 8, 8)
        assert crop.dtype == torch.uint8
    left, top, right, bottom = box_of(*size, seed=0)
    assert right - left >= 1
    assert bottom - top >= 1


def test_of_an_image_that_no_ratio_fits_the_middle_is_taken() -> None:
    assert box_of(1001, 10, 3) == (495, 0, 505, 10)
    assert box_of(10, 1001, 3) == (0, 495, 10, 505)


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def test_a_crop_is_a_function_of_its_generator_alone_in_any_thread() -> None:
    image = photo()
    alone = [random_crop(image, 16, True, stream(0, "crop", i)) for i in range(64)]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    with ThreadPoolExecutor(8) as pool:
        order = list(range(64))[::-1]
        crops = list(pool.map(lambda i: random_crop(image, 16, True, stream(0, "crop", i)), order))[::-1]
    assert all(torch.equal(a, b) for a, b in zip(alone, crops, strict=True))
    assert len({c.numpy().tobytes() for c in alone}) == 64


def test_half_of_the_crops_are_mirrored_and_none_if_not_asked_for() -> None:
    """The same stream draws the same place with and without a flip, which comes last."""
    image = photo()
    pairs = [[random_crop(image, 8, flip, stream(0, "crop", i)) for flip in (False, True)] for i in range(300)]
    same = [torch.equal(a, b) for a, b in pairs]
    mirrored = [torch.equal(a.flip(2), b) for a, b in pairs]
    assert all(s != m for s, m in zip(same, mirrored, strict=True))
    assert 110 < sum(mirrored) < 190


def test_a_crop_of_a_flat_image_is_flat() -> None:
    image = Image.new("RGB", (33, 21), (10, 200, 77))
    for seed in range(20):
        crop = random_crop(image, 8, True, np.random.default_rng(seed))
        assert torch.equal(crop, torch.tensor([10, 200, 77], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8))


# -- folders -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("folder")
    for part, each in (("train", 8), ("val", 2)):
        for i, name in enumerate(("cat", "dog")):
            (where / part / name).mkdir(parents=True)
            for j in range(each):
                photo(100 * i + j + (50 if part == "val" else 0)).save(where / part / name / f"{j}.png")
    # Not all images of the world are RGB: grey ones, and ones with a palette.
    photo(7).convert("L").save(where / "train" / "cat" / "0.png")
    photo(8).convert("P").save(where / "train" / "dog" / "0.png")
    return where


def folder_data(folder: Path, strength: float, **changes: Any) -> FolderData:
    return FolderData(folder, 0, 4, 16, Augmentation(0, True, 0, strength), **changes)


@pytest.mark.parametrize("world", [2, 4])
def test_parts_of_a_folder_s_batch_are_the_batch_of_one_process(folder: Path, world: int) -> None:
    for step in range(3):
        whole, labels = folder_data(folder, 0).train_batch(step, 8)
        parts = [folder_data(folder, 0).train_batch(step, 8, rank, world) for rank in range(world)]
        assert torch.equal(torch.cat([y for _, y in parts]), labels)
        assert torch.equal(torch.cat([x for x, _ in parts]), whole)


def test_jittered_parts_of_a_folder_s_batch_are_the_batch_of_one_process_too(folder: Path) -> None:
    """How images are changed is a function of seed and step alone, says the module; of rank it is not."""
    data = folder_data(folder, 0.4)
    whole, _ = data.train_batch(0, 8)
    parts = [data.train_batch(0, 8, rank, 2)[0] for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_jittered_parts_of_a_batch_in_memory_are_the_batch_of_one_process() -> None:
    data = noise(jitter=0.4)
    whole, _ = data.train_batch(1, 8)
    parts = [data.train_batch(1, 8, rank, 4)[0] for rank in range(4)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, noise().train_batch(1, 8)[0])


def test_a_jittered_batch_of_a_folder_is_a_function_of_seed_step_and_rank(folder: Path) -> None:
    data, twin = folder_data(folder, 0.4), folder_data(folder, 0.4)
    forth = [data.train_batch(step, 4, rank, 2) for step in range(3) for rank in range(2)]
    torch.manual_seed(3)
    back = [twin.train_batch(step, 4, rank, 2) for step in (2, 1, 0) for rank in (1, 0)][::-1]
    for (x, y), (x2, y2) in zip(forth, back, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    plain = folder_data(folder, 0).train_batch(0, 4, 0, 2)
    assert torch.equal(forth[0][1], plain[1])
    assert not torch.equal(forth[0][0], plain[0])


def test_a_folder_s_epoch_has_every_image_once_whatever_its_mode(folder: Path) -> None:
    data = folder_data(folder, 0.4)
    assert data.n_train == 12
    batches = [data.train_batch(step, 4) for step in range(3)]
    assert all(x.shape == (4, 3, 16, 16) and bool(torch.isfinite(x).all()) for x, _ in batches)
    assert sorted(torch.cat([y for _, y in batches]).tolist()) == sorted(label for _, label in data._samples["train"])


def test_a_folder_s_image_that_is_no_image_surfaces_in_training(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "broken")
    data = folder_data(tmp_path / "broken", 0.0)
    bad = Path(data._samples["train"][int(stream(0, "epoch", 0).permutation(12)[5])][0])
    bad.write_bytes(b"no image")
    model = nets.supernet("nas_bench_macro", members(), **{**SMALL, "classes": 2})
    with pytest.raises(Exception, match=bad.name):
        train(model, data, recipe(batch_size=4), 0, samplers.over_set(members(), 0))


@pytest.mark.parametrize("changes", [{"cutout": 4}, {"padding": 2}])
def test_a_recipe_s_augmentation_is_not_passed_over_in_silence(folder: Path, changes: dict[str, int]) -> None:
    plain = FolderData(folder, 0, 4, 16, Augmentation(0, True, 0)).train_batch(0, 8)[0]
    how = Augmentation(**{"padding": 0, "flip": True, "cutout": 0, **changes})  # type: ignore[arg-type]
    try:
        changed = FolderData(folder, 0, 4, 16, how).train_batch(0, 8)[0]
    except UserError:
        return
    assert not torch.equal(changed, plain)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_ranks_share_a_folder_s_batch_of_any_size(world: int, each: int, step: int) -> None:
    assume(world * each <= 12)
    data = SHARED[0]
    whole, labels = data.train_batch(step, world * each)
    parts = [data.train_batch(step, world * each, rank, world) for rank in range(world)]
    assert torch.equal(torch.cat([x for x, _ in parts]), whole)
    assert torch.equal(torch.cat([y for _, y in parts]), labels)


SHARED: list[FolderData] = []


@pytest.fixture(scope="module", autouse=True)
def shared(folder: Path) -> Iterator[None]:
    SHARED.append(folder_data(folder, 0.0))
    yield
    SHARED.clear()
