"""Images: packaged subset, CIFAR, folders; batches depend only on seed and step."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from PIL import Image  # noqa: E402
from scipy.stats import ks_2samp  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision.transforms import RandomResizedCrop, v2  # noqa: E402

from lissnas.config import Params  # noqa: E402
from lissnas.core.errors import DamagedFile, UserError  # noqa: E402
from lissnas.nets import images  # noqa: E402
from lissnas.nets.images import Augmentation, FolderData, MemoryData, augment, crop_box, indices, normalise  # noqa: E402

PLAIN = Augmentation(padding=0, flip=False, cutout=0)
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def packaged() -> MemoryData:
    return MemoryData.of(images.packaged(), 0, 2_000, 32, Augmentation())


def resplit(data: MemoryData, seed: int = 0, validation: int = 50, side: int = 32) -> MemoryData:
    """Split a few of the packaged images, which are decoded already."""
    pixels = torch.cat([data.pixels["train"][:200], data.pixels["test"][:40]])
    labels = torch.cat([data.labels["train"][:200], data.labels["test"][:40]])
    part = images.Images(pixels, labels, np.arange(240) < 200, 10)
    return MemoryData.of(part, seed, validation, side, Augmentation())


def fingerprints(data: MemoryData, split: str) -> list[bytes]:
    return [image.numpy().tobytes() for image in data.pixels[split]]


def memory(n: int, side: int = 8, augmentation: Augmentation = PLAIN, seed: int = 0) -> MemoryData:
    """Return data in which image i has the constant value i and the label i modulo 10."""
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, side, side).contiguous()
    labels = torch.arange(n) % 10
    return MemoryData({"train": pixels}, {"train": labels}, 10, seed, augmentation)


def rng(seed: int) -> Any:
    return torch.Generator().manual_seed(seed)


def random_pixels(n: int, side: int, seed: int = 0) -> Any:
    return torch.randint(0, 256, (n, 3, side, side), generator=rng(seed)).to(torch.uint8)


# -- the packaged subset -----------------------------------------------------------------------------
def test_the_packaged_subset_has_12000_different_images_balanced_by_class(packaged: MemoryData) -> None:
    assert [packaged.n_of(split) for split in SPLITS] == [8_000, 2_000, 2_000]
    assert packaged.n_train == 8_000
    assert (packaged.classes, packaged.side) == (10, 32)
    drawn = torch.cat([packaged.labels["train"], packaged.labels["validation"]])
    assert torch.bincount(drawn).tolist() == [1_000] * 10
    assert torch.bincount(packaged.labels["test"]).tolist() == [200] * 10
    assert len({f for split in SPLITS for f in fingerprints(packaged, split)}) == 12_000


def test_images_and_labels_stay_together(packaged: MemoryData) -> None:
    """In every split, frogs are greener than ships, and ships bluer than frogs."""
    for split in SPLITS:
        pixels, labels = packaged.pixels[split].float(), packaged.labels[split]
        frog, ship = (pixels[labels == label].mean(dim=(0, 2, 3)) for label in (6, 8))
        assert frog[1] - frog[2] > 10
        assert ship[2] - ship[1] > 0


@pytest.mark.parametrize("change", ["bit", "end"])
def test_a_damaged_package_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((files("lissnas.nets") / "data" / images.SUBSET).read_bytes())
    if change == "bit":
        data[len(data) // 2] ^= 1
    else:
        del data[-1]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / images.SUBSET).write_bytes(data)
    monkeypatch.setattr(images, "files", lambda package: tmp_path)
    with pytest.raises(DamagedFile, match=r"parquet is damaged: expected sha256 c38437.*Install the package again"):
        images.packaged.__wrapped__()  # without the cache


# -- splits ------------------------------------------------------------------------------------------
def test_splits_are_disjoint_and_depend_on_the_seed(packaged: MemoryData) -> None:
    a, b, c = (resplit(packaged, seed) for seed in (0, 0, 1))
    assert [a.n_of(split) for split in SPLITS] == [150, 50, 40]
    parts = {split: fingerprints(a, split) for split in SPLITS}
    assert len(set().union(*parts.values())) == 240
    assert all(fingerprints(b, split) == parts[split] for split in SPLITS)
    assert set(fingerprints(c, "validation")) != set(parts["validation"])
    assert set(fingerprints(c, "train")) | set(fingerprints(c, "validation")) == {*parts["train"], *parts["validation"]}
    assert fingerprints(c, "test") == parts["test"]


def test_a_reduced_image_is_the_mean_of_squares_of_pixels(packaged: MemoryData) -> None:
    full = resplit(packaged)
    for side in (16, 8):
        small = resplit(packaged, side=side)
        assert small.side == side
        factor = 32 // side
        for split in SPLITS:
            squares = full.pixels[split].numpy().reshape(-1, 3, side, factor, side, factor)
            exact = squares.astype(np.float64).mean(axis=(3, 5))
            assert small.pixels[split].shape == (full.n_of(split), 3, side, side)
            assert np.abs(small.pixels[split].numpy() - exact).max() <= 0.5
            assert torch.equal(small.labels[split], full.labels[split])


@pytest.mark.parametrize("side", [12, 31, 64])
def test_a_side_that_does_not_divide_is_refused(packaged: MemoryData, side: int) -> None:
    with pytest.raises(UserError, match=f"images of 32 pixels can't be reduced to {side}"):
        resplit(packaged, side=side)


@pytest.mark.parametrize("validation", [200, 201, 0])
def test_a_validation_that_leaves_nothing_is_refused(packaged: MemoryData, validation: int) -> None:
    with pytest.raises(UserError, match=f"validation: {validation} of 200 training images can't be held out"):
        resplit(packaged, validation=validation)


# -- batches -----------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_every_image_is_seen_once_an_epoch(n: int, size: int, seed: int, first: int) -> None:
    epochs = 3
    steps = -(-(first * size + epochs * n) // size)
    seen = np.concatenate([indices(n, seed, step, size) for step in range(steps)])
    assert len(seen) == steps * size
    for epoch in range(len(seen) // n):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [tuple(indices(50, seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_batches_depend_only_on_seed_and_step(packaged: MemoryData) -> None:
    data, twin, other = resplit(packaged), resplit(packaged), resplit(packaged, seed=1)
    forth = [data.train_batch(step, 32) for step in range(8)]
    torch.manual_seed(99)  # the global generator is not used
    np.random.seed(99)  # noqa: NPY002
    back = [twin.train_batch(step, 32) for step in reversed(range(8))][::-1]
    for (x, y), (x2, y2) in zip(forth, back, strict=True):
        assert x.shape == (32, 3, 32, 32)
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(other.train_batch(0, 32)[0], forth[0][0])


def test_an_image_is_augmented_differently_in_each_epoch() -> None:
    data = memory(16, augmentation=Augmentation(4, True, 0))
    epochs = [data.train_batch(epoch, 16) for epoch in range(4)]
    by_label = [x[torch.argsort(y, stable=True)] for x, y in epochs]
    assert not any(torch.equal(by_label[0], x) for x in by_label[1:])


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 30), st.booleans())
def test_ranks_share_the_batch_of_one(world: int, each: int, step: int, changed: bool) -> None:
    data = memory(60, augmentation=Augmentation(2, True, 4, 0.4) if changed else PLAIN)
    size = each * world
    whole, labels = data.train_batch(step, size)
    parts = [data.train_batch(step, size, rank, world) for rank in range(world)]
    assert [len(x) for x, _ in parts] == [each] * world
    assert torch.equal(torch.cat([x for x, _ in parts]), whole)
    assert torch.equal(torch.cat([y for _, y in parts]), labels)


@given(st.integers(1, 7), st.integers(1, 30), st.integers(0, 5))
def test_ranks_share_a_batch_that_does_not_divide(world: int, size: int, step: int) -> None:
    data = memory(60)
    parts = [data.train_batch(step, size, rank, world)[1] for rank in range(world)]
    assert torch.equal(torch.cat(parts), data.train_batch(step, size)[1])
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_plain_images_come_in_order_unchanged(packaged: MemoryData) -> None:
    data = resplit(packaged)
    for split in SPLITS:
        n = data.n_of(split)
        parts = [data.plain(split, first, 32) for first in range(0, n, 32)]
        assert [len(y) for _, y in parts] == [32] * (n // 32) + [n % 32] * (n % 32 > 0)
        assert torch.equal(torch.cat([x for x, _ in parts]), normalise(data.pixels[split]))
        assert torch.equal(torch.cat([y for _, y in parts]), data.labels[split])


def test_normalised_images_are_centred_by_channel(packaged: MemoryData) -> None:
    x, _ = packaged.plain("train", 0, 4_000)
    assert x.dtype == torch.float32
    assert x.mean(dim=(0, 2, 3)).abs().max() < 0.3
    assert (x.std(dim=(0, 2, 3)) - 1).abs().max() < 0.2
    grey = normalise(torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)).ravel()
    assert grey.tolist() == pytest.approx(
        [(128 / 255 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))], rel=1e-5
    )


# -- augmentation ------------------------------------------------------------------------------------
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_without_padding_flip_and_cutout_nothing_changes(seed: int, side: int) -> None:
    x = random_pixels(5, side, seed)
    assert torch.equal(augment(x, PLAIN, rng(seed)), x)


@settings(max_examples=40)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_a_crop_is_a_window_of_the_padded_image(padding: int, flip: bool, seed: int) -> None:
    x = random_pixels(6, 8, seed)
    before = x.clone()
    y = augment(x, Augmentation(padding, flip), rng(seed))
    assert torch.equal(x, before)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    wide = torch.nn.functional.pad(x, [padding] * 4)
    span = range(2 * padding + 1)
    for image, result in zip(wide, y, strict=True):
        windows = [image[:, i : i + 8, j : j + 8] for i in span for j in span]
        mirrored = [w.flip(2) for w in windows] if flip else []
        assert any(torch.equal(w, result) for w in [*windows, *mirrored])


def test_every_window_is_drawn() -> None:
    x = random_pixels(1, 4).expand(600, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in augment(x, Augmentation(1, False), rng(0))}) == 9
    assert len({image.numpy().tobytes() for image in augment(x, Augmentation(1, True), rng(0))}) == 18


def test_half_of_the_images_are_mirrored() -> None:
    x = random_pixels(1_000, 4)
    y = augment(x, Augmentation(0, True), rng(1))
    same, mirrored = ((y == other).flatten(1).all(dim=1) for other in (x, x.flip(3)))
    assert (same ^ mirrored).all()
    assert 420 < int(mirrored.sum()) < 580


@pytest.mark.parametrize("cutout", [1, 2, 3, 4, 5, 8])
def test_a_cutout_is_one_square_of_the_given_side(cutout: int) -> None:
    """The square is clipped at the edges of the image."""
    x = torch.full((500, 3, 16, 16), 255, dtype=torch.uint8)
    y = augment(x, Augmentation(0, False, cutout), rng(0))
    gone = y == 0
    assert ((y == 255) | gone).all()
    assert torch.equal(gone.all(dim=1), gone.any(dim=1))  # in all channels
    rows, columns = gone[:, 0].any(dim=2), gone[:, 0].any(dim=1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])  # a rectangle without gaps
    for line in (rows, columns):
        assert ((line.int().diff(dim=1).abs().sum(dim=1)) <= 2).all()
        assert int(line.sum(dim=1).max()) == cutout
    assert len({g.numpy().tobytes() for g in gone}) > 50


# -- jitter ------------------------------------------------------------------------------------------
def test_jitter_multiplies_brightness_contrast_and_saturation_of_bytes() -> None:
    x = random_pixels(1, 6)[0]
    before = x.clone()
    assert torch.equal(images.jitter(x, [1, 1, 1]), x)
    assert torch.equal(images.jitter(x, [0.5, 1, 1]), (x.float() * 0.5).to(torch.uint8))
    flat = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    assert torch.equal(images.jitter(flat, [1.4, 1, 1]), torch.full_like(flat, 255))  # no overflow
    grey = x[:1].expand(3, -1, -1)
    changed = images.jitter(grey, [0.8, 1.3, 1.4])
    assert changed.dtype == torch.uint8
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed, grey)
    assert torch.equal(x, before)


def test_each_image_of_a_batch_has_its_own_jitter() -> None:
    same = random_pixels(1, 4).expand(20, -1, -1, -1)
    how = Augmentation(0, False, 0, 0.4)
    y = augment(same, how, rng(0))
    assert len({image.numpy().tobytes() for image in y}) == 20
    assert torch.equal(y, augment(same, how, rng(0)))


# -- crops -------------------------------------------------------------------------------------------
def box_of(width: int, height: int, seed: int) -> tuple[int, int, int, int]:
    return crop_box(width, height, np.random.default_rng(seed))


@settings(max_examples=200)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**31))
def test_a_crop_lies_within_the_image(width: int, height: int, seed: int) -> None:
    top, left, h, w = box_of(width, height, seed)
    assert 0 <= top < top + h <= height
    assert 0 <= left < left + w <= width


def test_crops_have_the_distribution_of_torchvision() -> None:
    """Positions, sizes and aspect ratios have the distributions of RandomResizedCrop."""
    ours = np.array([box_of(400, 300, seed) for seed in range(1_500)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.zeros(3, 300, 400)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1_500)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 1e-3


def test_an_image_that_no_aspect_ratio_fits_gets_a_centre_crop() -> None:
    assert box_of(1001, 10, 3) == (0, 495, 10, 10)
    assert box_of(10, 1001, 3) == (495, 0, 10, 10)


# -- configuration -----------------------------------------------------------------------------------
def test_a_configuration_selects_the_images(make_params: Callable[..., Params]) -> None:
    params = make_params(images__side=8, images__validation=500, images__seed=3)
    data = images.load(params.images, params.recipes["cpu_retrain"])
    assert isinstance(data, MemoryData)
    assert (data.side, data.n_of("validation"), data.seed) == (8, 500, 3)
    assert data.augmentation == Augmentation(padding=2, flip=True, cutout=4)


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "folder"])
def test_a_source_without_a_folder_is_refused(make_params: Callable[..., Params], source: str) -> None:
    params = make_params(images__source=source)
    with pytest.raises(UserError, match=rf"images\.folder: missing; images\.source {source} requires it"):
        images.load(params.images, params.recipes["cpu"])


# -- CIFAR -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", [10, 100])
def test_the_error_for_missing_cifar_says_how_to_fix_it(
    make_params: Callable[..., Params], tmp_path: Path, classes: int
) -> None:
    params = make_params(images__source=f"cifar{classes}", images__folder=str(tmp_path / "none"))
    with pytest.raises(UserError, match=rf"CIFAR-{classes} is not in .*none .*set images\.download"):
        images.load(params.images, params.recipes["cpu"])
    assert not (tmp_path / "none").exists()


def write_cifar(folder: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write a small CIFAR in the published format; return its pixels and labels by file."""
    kind = datasets.CIFAR10 if classes == 10 else datasets.CIFAR100
    key, names = ("labels", "label_names") if classes == 10 else ("fine_labels", "fine_label_names")
    base = folder / kind.base_folder
    base.mkdir(parents=True)
    written: dict[str, Any] = {}

    def put(name: str, content: Any) -> str:
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    for what in ("train_list", "test_list"):
        listed = []
        for i, (name, _) in enumerate(getattr(kind, what)):
            pixels = np.random.default_rng([i, len(name)]).integers(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
            written[name] = (pixels, [(i + j) % classes for j in range(20)])
            listed.append([name, put(name, {"data": pixels, key: written[name][1]})])
        monkeypatch.setattr(kind, what, listed)
    digest = put(kind.meta["filename"], {names: [str(i) for i in range(classes)]})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest})
    return written


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_read_as_published(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path, classes, monkeypatch)
    data = MemoryData.of(images.cifar(tmp_path, classes, download=False), 0, 5, 32, PLAIN)
    test = next(name for name in written if name.startswith("test"))
    n = 20 * (len(written) - 1)
    assert (data.classes, [data.n_of(split) for split in SPLITS]) == (classes, [n - 5, 5, 20])
    assert torch.equal(data.pixels["test"], torch.from_numpy(written[test][0]).view(20, 3, 32, 32))
    assert data.labels["test"].tolist() == written[test][1]
    trained = [part for name, part in written.items() if name != test]
    expected = {p.tobytes(): label for part in trained for p, label in zip(*part, strict=True)}
    found = {
        p: int(label)
        for split in ("train", "validation")
        for p, label in zip(fingerprints(data, split), data.labels[split], strict=True)
    }
    assert found == expected


def test_a_damaged_cifar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, 10, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    data = bytearray(batch.read_bytes())
    data[len(data) // 2] ^= 1
    batch.write_bytes(data)
    with pytest.raises(UserError, match="CIFAR-10 is not in"):
        images.cifar(tmp_path, 10, download=False)


# -- folders -----------------------------------------------------------------------------------------
CLASSES = ("cat", "dog", "frog")


def write_folder(folder: Path, packaged: MemoryData) -> Path:
    for part, each in (("train", 8), ("val", 3)):
        for i, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for j in range(each):
                at = 100 * (part == "val") + 10 * i + j
                image = Image.fromarray(packaged.pixels["train"][at].permute(1, 2, 0).numpy())
                # Images with grey levels or a palette, too.
                mode = {0: "L", 1: "P"}.get(j, "RGB") if part == "train" else "RGB"
                image.convert(mode).save(folder / part / name / f"{j}.png")
    return folder


@pytest.fixture(scope="module")
def folder(packaged: MemoryData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"), packaged)


def folder_data(folder: Path, strength: float = 0.4, seed: int = 0) -> FolderData:
    return FolderData(folder, seed, 6, 16, Augmentation(0, True, 0, strength))


def sample_names(data: FolderData, split: str) -> list[str]:
    return [path for path, _ in data._samples[split]]


def test_a_folder_has_classes_and_splits(folder: Path) -> None:
    data, twin, other = (FolderData(folder, seed, 6, 16) for seed in (0, 0, 1))
    assert (data.classes, data.side, data.n_train) == (3, 16, 18)
    assert [data.n_of(split) for split in SPLITS] == [18, 6, 9]
    train, validation, test = (set(sample_names(data, split)) for split in SPLITS)
    assert len(train | validation | test) == 33
    assert all("/val/" in name for name in test)
    assert sample_names(twin, "validation") == sample_names(data, "validation")
    assert set(sample_names(other, "validation")) != validation


@pytest.mark.parametrize("strength", [0.0, 0.4])
def test_batches_of_a_folder_depend_only_on_seed_and_step(folder: Path, strength: float) -> None:
    data, twin, other = (folder_data(folder, strength, seed) for seed in (0, 0, 1))
    forth = [data.train_batch(step, 6) for step in range(3)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    back = [twin.train_batch(step, 6) for step in (2, 1, 0)][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    for (x, y), (x2, y2) in zip(forth, back, strict=True):
        assert x.shape == (6, 3, 16, 16)
        assert x.dtype == torch.float32
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(forth[0][0], other.train_batch(0, 6)[0])
    seen = torch.cat([y for _, y in forth])
    assert sorted(seen.tolist()) == sorted(label for _, label in data._samples["train"])


def test_images_of_a_folder_are_flipped_and_jittered_by_the_recipe(folder: Path) -> None:
    """Crops don't depend on flip, and flips don't depend on jitter: the draws come from the same stream."""
    plain, flipped, jittered = (
        torch.cat([FolderData(folder, 0, 6, 16, how).train_batch(step, 18)[0] for step in range(8)])
        for how in (Augmentation(0, False), Augmentation(0, True), Augmentation(0, True, 0, 0.4))
    )
    same, mirrored = ((flipped == other).flatten(1).all(dim=1) for other in (plain, plain.flip(3)))
    assert (same ^ mirrored).all()
    assert 45 < int(mirrored.sum()) < 99
    assert not torch.isclose(jittered, flipped).flatten(1).all(dim=1).any()


@pytest.mark.parametrize(("world", "strength"), [(2, 0.0), (3, 0.4)])
def test_ranks_share_the_batch_of_a_folder(folder: Path, world: int, strength: float) -> None:
    data = folder_data(folder, strength)
    whole, labels = data.train_batch(1, 6)
    parts = [data.train_batch(1, 6, rank, world) for rank in range(world)]
    assert torch.equal(torch.cat([y for _, y in parts]), labels)
    assert torch.equal(torch.cat([x for x, _ in parts]), whole)


def test_an_unreadable_image_of_a_folder_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    data = folder_data(tmp_path / "broken", 0.0)
    bad = Path(data._samples["train"][int(indices(18, 0, 0, 18)[5])][0])
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"{bad.name} can't be read as an image"):
        data.train_batch(0, 18)


@pytest.mark.parametrize("how", [Augmentation(0, True, 4), Augmentation(2, True)])
def test_a_folder_decides_its_transforms(folder: Path, how: Augmentation) -> None:
    """Random crops replace the padding and the cutout of a recipe."""
    given, expected = (FolderData(folder, 0, 6, 16, h).train_batch(0, 18) for h in (how, Augmentation(0, True)))
    assert torch.equal(given[0], expected[0])
    found = FolderData(folder, 0, 6, 16, how).describe()
    assert found == (
        f"18 train, 6 validation, 9 test images of 3 classes in {folder}; training images are random crops, resized to "
        "16 pixels, flip"
    )


def test_plain_images_of_a_folder_are_centre_crops_in_order(folder: Path) -> None:
    data = FolderData(folder, 0, 6, 16)
    first, second = data.plain("test", 0, 5), data.plain("test", 5, 5)
    assert [len(first[1]), len(second[1])] == [5, 4]
    assert [*first[1].tolist(), *second[1].tolist()] == [0] * 3 + [1] * 3 + [2] * 3
    assert torch.equal(data.plain("test", 0, 5)[0], first[0])
    how = v2.Compose([v2.Resize(18, antialias=True), v2.CenterCrop(16), v2.ToImage()])
    expected = how(datasets.folder.default_loader(str(folder / "val" / "cat" / "2.png")))
    assert torch.equal(first[0][2], normalise(expected[None])[0])


def test_plain_images_past_the_end_are_empty(packaged: MemoryData, folder: Path) -> None:
    for data, side in ((resplit(packaged), 32), (FolderData(folder, 0, 6, 16), 16)):
        x, y = data.plain("test", 500, 5)
        assert x.shape == (0, 3, side, side)
        assert len(y) == 0


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_folder_without_a_part_is_refused(packaged: MemoryData, tmp_path: Path, missing: str) -> None:
    write_folder(tmp_path, packaged)
    (tmp_path / missing).rename(tmp_path / "moved")
    with pytest.raises(UserError, match=f"has no folder {missing}; expected {missing}/CLASS/IMAGE"):
        FolderData(tmp_path, 0, 6, 16)


def test_parts_of_different_classes_are_refused(packaged: MemoryData, tmp_path: Path) -> None:
    write_folder(tmp_path, packaged)
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "cow")
    with pytest.raises(UserError, match="train/ and val/ have different classes"):
        FolderData(tmp_path, 0, 6, 16)


@pytest.mark.parametrize(("validation", "expected"), [(1, 1), (12, 12), (13, 4), (24, 4), (2_000, 4)])
def test_the_validation_share_adapts_to_a_folder(folder: Path, validation: int, expected: int) -> None:
    data = FolderData(folder, 0, validation, 16)
    assert (data.n_of("validation"), data.n_train) == (expected, 24 - expected)


@pytest.mark.parametrize("what", ["no classes", "no images"])
def test_a_folder_without_images_is_refused(tmp_path: Path, what: str) -> None:
    for part in ("train", "val"):
        (tmp_path / part / ("cat" if what == "no images" else "")).mkdir(parents=True)
    with pytest.raises(UserError, match=str(tmp_path)):
        FolderData(tmp_path, 0, 6, 16)
