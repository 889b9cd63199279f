"""Data-parallel training, and prefetched batches."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")


from infra.settings import free_port  # noqa: E402
from lissnas import (  # noqa: E402
    artifacts,
    nets,
)
from lissnas.core.errors import UserError  # noqa: E402
from lissnas.nets import kshot, parallel, samplers, training  # noqa: E402
from lissnas.nets.images import MemoryData  # noqa: E402
from lissnas.nets.training import NotFinite, check_batches, train  # noqa: E402
from tests.small_nets import MACRO, SMALL, Changed, members, noise, recipe  # noqa: E402

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["lissnas.nets.training", "tests.unit.nets.test_parallel"])


def a_supernet(shots: int = 1) -> Any:
    return nets.supernet("nas_bench_macro", members(), shots=shots, **SMALL)


class Recorder(MemoryData):
    """Images that record the requested batches, and fail from a step on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        data = noise()
        super().__init__(data.pixels, data.labels, 10, 0, data.augmentation)
        self.fails_at = fails_at
        self.requested: list[tuple[int, int, int, int]] = []

    def train_batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Any, Any]:
        self.requested.append((step, size, rank, world))
        if step >= self.fails_at:
            raise OSError(f"the image of step {step} can't be read")
        return super().train_batch(step, size, rank, world)


# -- two processes -----------------------------------------------------------------------------------
def run_two(target: Callable[..., None], folder: Path, *args: Any, codes: tuple[int, ...] = (0, 0)) -> list[Any]:
    """Run `target(rank, folder, *args)` in two processes; return the contents of their RANK.json files."""
    children = [FORK.Process(target=target, args=(rank, folder, *args)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    found = [child.exitcode for child in children]
    for child in children:
        child.kill()  # if it hangs
    assert [code if code is None else min(abs(code), 1) for code in found] == list(codes)
    return [json.loads((folder / f"{r}.json").read_text()) for r in range(2) if (folder / f"{r}.json").exists()]


def join_group(rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def average_some(rank: int, folder: Path) -> None:
    join_group(rank, folder)
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


def test_an_average_is_the_mean_over_processes_for_any_memory_layout(tmp_path: Path) -> None:
    (a, strides, dtypes, first), (b, _, _, second) = run_two(average_some, tmp_path)
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
    """Join the group by the variables of `torchrun`."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "TORCHELASTIC_RUN_ID": "none", "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    announced: list[int] = []
    with parallel.process_group():
        if parallel.leads():
            for number in (0, 3, 2**40):
                parallel.announce(number)
            if fails:
                raise SystemExit(1)
        else:
            parallel.announce(7)  # ignored: a follower can't announce
            announced += parallel.announced()
    assert not torch.distributed.is_initialized()
    assert parallel.leads()
    (folder / f"{rank}.json").write_text(json.dumps(announced))


def test_followers_receive_all_announcements(tmp_path: Path) -> None:
    assert run_two(announce_some, tmp_path, free_port(), False) == [[], [0, 3, 2**40]]


def test_followers_do_not_wait_for_a_leader_that_failed(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run_two(announce_some, tmp_path, free_port(), True, codes=(1, 1)) == []
    assert time.monotonic() - started < 40


def test_a_single_process_leads_and_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with parallel.process_group():
        assert not torch.distributed.is_initialized()
        assert parallel.leads()
        parallel.announce(3)


def nan_images(nan_rank: int) -> Changed:
    """Return images that are NaN for one process from step 3."""
    return Changed(noise(), lambda step, rank, x: x * float("nan") if step >= 3 and rank == nan_rank else x)


def train_on_nan(rank: int, folder: Path, nan_rank: int) -> None:
    join_group(rank, folder)
    checkpoint = artifacts.Checkpoint(folder / "r", {})
    try:
        train(a_supernet(), nan_images(nan_rank), recipe(), 0, samplers.over_set(members(), 0), checkpoint)
    except NotFinite as error:
        (folder / f"{rank}.json").write_text(json.dumps(str(error)))
    torch.distributed.destroy_process_group()


def test_a_nan_loss_in_one_process_stops_both(tmp_path: Path) -> None:
    a, b = run_two(train_on_nan, tmp_path, 1)
    path = "".join(map(str, samplers.over_set(members(), 0)(3)[0]))
    assert a == b
    assert a.startswith(f"step 3 on path {path}: the loss is nan")
    saved = artifacts.Checkpoint(tmp_path / "r", {}).load()
    assert saved is not None
    assert saved[1]["step"] == 2
    assert all(np.isfinite(v).all() for v in saved[0].values())


def train_k_shot(checkpoint: artifacts.Checkpoint | None = None) -> Any:
    """Train the simplex network in every third step; norms have no weights, as ghost batches require.

    Images are doubles, so that the order of sums does not flip a ReLU.
    """
    kshot.TURN, kshot.TURNS = 1, 3
    model = nets.supernet("nas_bench_macro", members(), shots=2, affine=False, **SMALL).double()
    paths = samplers.fair_set(MACRO, members(), 2, 0)
    return train(model, Changed(noise(), lambda step, rank, x: x.double()), recipe(ghost_batch=4), 0, paths, checkpoint)


def train_part(rank: int, folder: Path) -> None:
    join_group(rank, folder)
    model = train_k_shot(artifacts.Checkpoint(folder / "r", {}))
    np.savez(folder / f"{rank}.npz", **{k: v.detach().numpy() for k, v in model.named_parameters()})
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_weights_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has half of each batch; ghost batches of that size give the statistics of a single process."""
    for name in ("TURN", "TURNS"):
        monkeypatch.setattr(kshot, name, getattr(kshot, name))  # restored after `train_k_shot`
    run_two(train_part, tmp_path)
    alone = train_k_shot()
    a, b = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    start = nets.supernet("nas_bench_macro", members(), shots=2, affine=False, **SMALL).state_dict()
    for name, p in alone.named_parameters():
        assert (a[name] == b[name]).all()
        assert np.abs(a[name] - p.detach().numpy()).max() < 1e-6
    moved = {k.partition(".")[0] for k in a.files if np.abs(a[k] - start[k].numpy()).max() > 1e-4}
    assert moved == {"simplex", "supernet"}


# -- batches -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        (
            {"batch_size": 8, "ghost_batch": 3},
            1,
            "ghost_batch: the 8 images of a process can't be divided",
        ),
        ({"batch_size": 8, "ghost_batch": 16}, 1, "ghost_batch: the 8 images"),
        (
            {"batch_size": 8, "ghost_batch": 8},
            2,
            "ghost_batch: the 4 images of a process can't be divided",
        ),
        ({"batch_size": 12, "ghost_batch": 4}, 2, "ghost_batch: the 6 images"),
        ({"batch_size": 8}, 3, "batch_size: 8 images can't be divided evenly among 3 processes"),
        ({"batch_size": 33}, 1, "batch_size: 33 images are more than the 32 to train on"),
    ],
)
def test_batches_that_do_not_fit_are_refused(changes: dict[str, Any], world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_batches(recipe(**changes), noise(), world)
    if world == 1:
        model = a_supernet()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(UserError, match=message):
            train(model, noise(), recipe(**changes), 0, samplers.over_set(members(), 0))
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 6))
def test_batches_are_refused_exactly_if_parts_have_different_sizes(size: int, ghost: int, world: int) -> None:
    made = BASE.model_copy(update={"batch_size": size, "ghost_batch": ghost})
    parts = [len(part) for part in np.array_split(np.arange(size), world)]
    fits = size <= 32 and len(set(parts)) == 1 and (not ghost or all(p % ghost == 0 and p >= ghost for p in parts))
    if fits:
        check_batches(made, DATA, world)
    else:
        with pytest.raises(UserError):
            check_batches(made, DATA, world)


BASE = recipe()
DATA = noise()


@pytest.mark.parametrize("steps", [range(0), range(1), range(4, 9), range(6)])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_prefetched_batches_are_the_same_in_order(steps: range, rank: int, world: int) -> None:
    data = Recorder()
    found = list(training._prefetched(data, steps, 8, rank, world))
    assert data.requested == [(step, 8, rank, world) for step in steps]
    assert len(found) == len(steps)
    for step, (x, y) in zip(steps, found, strict=True):
        expected, labels = noise().train_batch(step, 8, rank, world)
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)


def test_at_most_one_batch_is_prefetched() -> None:
    data = Recorder()
    batches = training._prefetched(data, range(9), 8, 0, 1)
    for step in range(4):
        next(batches)
        time.sleep(0.05)
        assert len(data.requested) <= step + 2
    batches.close()  # type: ignore[attr-defined]
    assert len(data.requested) <= 6


@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_unreadable_image_stops_training_at_its_step(at: int, tmp_path: Path) -> None:
    seen: list[int] = []
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    sampler = samplers.over_set(members(), 0)
    with pytest.raises(OSError, match=f"the image of step {at} can't be read"):
        train(a_supernet(), Recorder(at), recipe(), 0, sampler, checkpoint, lambda p: seen.append(p.step))
    assert seen == list(range(1, at + 1))  # all earlier steps were done
    resumed = train(a_supernet(), noise(), recipe(), 0, sampler, checkpoint)
    whole = train(a_supernet(), noise(), recipe(), 0, sampler)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in resumed.state_dict().items())


def test_a_failed_training_leaves_no_running_thread() -> None:
    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        raise Stop

    data = Recorder()
    with pytest.raises(Stop):
        train(a_supernet(), data, recipe(steps=100), 0, samplers.over_set(members(), 0), on_progress=stop)
    time.sleep(0.1)
    assert len(data.requested) <= 3
