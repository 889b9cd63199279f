"""params.imagenet.yaml at small scale: full-size networks, a folder of images, two processes under torchrun."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from PIL import Image  # noqa: E402

from lissnas import (  # noqa: E402
    artifacts,
    nets,
    spaces,
)
from lissnas.config.resolve import recipe_of  # noqa: E402
from lissnas.nets import images  # noqa: E402
from lissnas.shrinkers import description  # noqa: E402

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.imagenet.yaml"
CLASSES = 3
"""Number of classes in the small substitute for ImageNet."""
TRAIN = 16
"""Number of training images in each class."""
VAL = 4
"""Number of validation images in each class."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return {train,val}/CLASS/IMAGE from the packaged images, enlarged to different sizes."""
    where = tmp_path_factory.mktemp("images")
    table = pq.read_table(io.BytesIO((files("lissnas.nets") / "data" / images.SUBSET).read_bytes()))
    labels, jpegs = table["label"].to_numpy(), table["jpeg"].to_pylist()
    for label in range(CLASSES):
        for i, at in enumerate(np.flatnonzero(labels == label)[: TRAIN + VAL].tolist()):
            place = where / ("train" if i < TRAIN else "val") / f"class{label}" / f"{i}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.open(io.BytesIO(jpegs[at])).resize((64, 48 + i)).save(place)
    return where


@pytest.fixture(scope="module")
def params(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return params.imagenet.yaml with small images, steps and width; all other parameters are as published."""
    small = {"steps": 3, "warmup": 1, "batch_size": 16, "ghost_batch": 8, "rate": 0.05, "report_every": 1}
    overrides = {
        "images.folder": str(folder),
        "images.side": 32,
        "images.validation": 6,
        "supernet.width": 0.25,
        **{f"recipes.appendix_f_imagenet.{key}": value for key, value in small.items()},
    }
    checked = description.load_params(PARAMS, overrides)
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_bytes(artifacts.to_json(checked.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def subspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return subspace.parquet with eight architectures of FairNAS's space."""
    space = spaces.get("fairnas")
    rows = space.sample_distinct(8, np.random.default_rng(0))
    path = tmp_path_factory.mktemp("subspace") / "subspace.parquet"
    path.write_bytes(artifacts.to_parquet({"arch": space.format(rows)}))
    return path


@pytest.mark.parametrize("name", ["shufflenetv2", "fairnas", "mobilenet"])
def test_full_size_networks_are_built_and_run(name: str) -> None:
    space = spaces.get(name)
    row = space.sample(1, np.random.default_rng(0))
    network = nets.network(name, row[0].tolist()).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    costs = {k: int(v[0]) for k, v in space.costs(row).items()}
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(costs["params"], rel=0.02)


@pytest.mark.parametrize("recipe", ["appendix_f_imagenet", "fairnas", "imagenet_retrain"])
def test_recipes_load_a_folder_at_full_resolution(folder: Path, recipe: str) -> None:
    params = description.load_params(PARAMS, {"images.folder": str(folder), "images.validation": 6})
    data = images.load(params.images, recipe_of(params, recipe, "recipe"))
    pixels, labels = data.train_batch(0, 4)
    assert pixels.shape == (4, 3, 224, 224)
    assert set(labels.tolist()) <= set(range(CLASSES))
    again, _ = images.load(params.images, recipe_of(params, recipe, "recipe")).train_batch(0, 4)
    assert torch.equal(pixels, again)
    assert (data.n_train, data.n_of("test")) == (CLASSES * TRAIN - 6, CLASSES * VAL)


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a flow like a user, with a separate server and database."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(cwd / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{cwd / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def launch(params: Path, subspace: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = ["-m", "flows.supernet", "--benchmark", "fairnas", "--subspace", str(subspace), "--params", str(params)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run([*torchrun, *words, "--out", str(cwd / "together")], cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_torchrun_trains_a_supernet_of_fairnas_in_two_processes(params: Path, subspace: Path, tmp_path: Path) -> None:
    launch(params, subspace, tmp_path)
    about = json.loads((tmp_path / "together" / "supernet.json").read_bytes())
    assert (about["space"], about["networks"], about["classes"]) == ("fairnas", 8, CLASSES)
    artifacts.verify(tmp_path / "together")


@pytest.mark.slow
def test_torchrun_reuses_a_finished_result(params: Path, subspace: Path, tmp_path: Path) -> None:
    """The leader finds the result, and the other process does nothing."""
    launch(params, subspace, tmp_path)
    assert "Nothing was done" in launch(params, subspace, tmp_path).stdout
