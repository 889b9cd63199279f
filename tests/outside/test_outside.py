"""What a stranger does: the wheel in a new environment, no constraints, an empty folder, nothing of the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.settings import free_port

pytestmark = pytest.mark.outside
ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 600.0
"""A resolver that tries hundreds of releases takes longer; 4 minutes are the aim."""
SPACE = """\
name: conv_net
kind: product
metric: {name: val_acc, direction: maximize}
positions:
  - {name: depth, choices: [2, 4, 8]}
  - {name: width, choices: [8, 16, 32, 64]}
  - {name: kernel, choices: [3, 5]}
  - {name: skip, choices: [no, yes]}
  - {name: norm, choices: [none, batch, group]}
costs:
  params:
    depth: {2: 2, 4: 4, 8: 8}
    width: {8: 1, 16: 4, 32: 16, 64: 64}
"""
PROGRAM = """\
import sys
for line in sys.stdin:
    depth, width, kernel, skip, norm = line.strip().split("|")
    print(50 + int(depth) + int(width) / 8 + 3 * (skip == "yes") + 2 * (norm != "none") - int(kernel) / 9)
"""
FACE = """\
import csv, itertools, pathlib
import lissnas
space = lissnas.read_space("conv_net.yaml")
result = lissnas.shrink(space, labels="labels.csv", target_size=30)
assert result.subspace.size() <= 45 < space.size()
result.save("from_python")
assert lissnas.load_result("from_python").subspace.size() == result.subspace.size()
print(pathlib.Path(lissnas.__file__).parent)
"""


def clean() -> dict[str, str]:
    """Return the environment without anything that leads to the repository or pins versions."""
    drop = ("PYTHON", "VIRTUAL_ENV", "PIP_CONSTRAINT", "MLFLOW", "PREFECT", "DVC", "LISSNAS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    path = [part for part in kept["PATH"].split(":") if not part.startswith(str(ROOT))]
    return kept | {"PATH": ":".join(path), "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}


def call(folder: Path, *words: str | Path, limit: float = 300, env: dict[str, str] | None = None) -> str:
    """Run a command in a folder and return what it prints; fail with its output."""
    given, command = clean() | (env or {}), [str(word) for word in words]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the wheel and the sdist from a clone of the committed tree."""
    folder = tmp_path_factory.mktemp("packages")
    call(folder, "git", "clone", "--quiet", ROOT, "clone")
    call(folder, sys.executable, "-m", "build", "--outdir", folder, "clone")
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def environment(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that installs the wheel with an extra into a new environment, once, and returns its bin."""

    @cache
    def made(extra: str) -> Path:
        home = tmp_path_factory.mktemp(f"env-{extra or 'bare'}")
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        call(home, python, "-m", "venv", home)
        what = packages[1] if extra == "sdist" else f"{packages[0]}[{extra}]" if extra else packages[0]
        start = time.monotonic()
        call(home, home / "bin" / "pip", "install", "--quiet", what, limit=INSTALL_SECONDS)
        print(f"\npip install lissnas[{extra}]: {time.monotonic() - start:.0f} s")
        call(home, home / "bin" / "pip", "check")
        return home / "bin"

    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder with a space, a labelling program and labels of a user's own."""
    (tmp_path / "conv_net.yaml").write_text(SPACE)
    (tmp_path / "train.py").write_text(PROGRAM)
    names = [
        f"{d}|{w}|{k}|{s}|{n}"
        for d in (2, 4, 8) for w in (8, 16, 32, 64) for k in (3, 5) for s in ("no", "yes") for n in ("none", "batch")
    ]  # fmt: skip
    values = call(tmp_path, "sh", "-c", f"printf '%s\\n' '{chr(10).join(names)}' | {sys.executable} train.py").split()
    rows = "\n".join(f"{name},{value}" for name, value in zip(names, values, strict=True))
    (tmp_path / "labels.csv").write_text(f"arch,val_acc\n{rows}\n")
    return tmp_path


@pytest.mark.parametrize("extra", ["", "sdist", "pipeline", "torch", "all"])
def test_quick_start_of_the_readme(environment: Callable[[str], Path], folder: Path, extra: str) -> None:
    """Each extra installs without constraints, and the two files of `init` can be shrunk."""
    bin_, mine = environment(extra), ("--space", "my_space/space.yaml", "--labels", "my_space/labels.csv")
    lissnas = bin_ / "lissnas"
    call(folder, lissnas, "init", "my_space")
    call(folder, lissnas, "shrink", *mine, "--out", "shrunk")
    assert "shrunk" in call(folder, lissnas, "show", "shrunk")
    call(folder, lissnas, "suggest", *mine, "--n", "20", "--out", "next.csv")
    assert len((folder / "next.csv").read_text().splitlines()) == 21
    call(folder, lissnas, "verify", "shrunk")
    if extra == "all":
        assert call(folder, bin_ / "python", "-c", "import lissnas.nets, torch, mlflow, prefect, dvc; print('ok')")


def test_python_face_and_a_labelling_program(environment: Callable[[str], Path], folder: Path) -> None:
    bin_ = environment("")
    used = call(folder, bin_ / "python", "-c", FACE).strip()
    assert used.startswith(str(bin_.parent))
    assert (Path(used) / "py.typed").is_file()
    shrink = (bin_ / "lissnas", "shrink", "--space", "conv_net.yaml", "--out", "shrunk")
    call(folder, *shrink, "--oracle-command", f"{bin_}/python train.py", "--label-budget", "60")
    metrics = json.loads((folder / "shrunk" / "metrics.json").read_text())
    assert metrics["labels"] == 60


@contextmanager
def running(folder: Path, *words: str | Path, **more: str) -> Iterator[None]:
    """Run a program in the background."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in words], cwd=folder, env=clean() | more, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def until(what: Callable[[], Any], folder: Path, seconds: float = 240) -> Any:
    """Wait until a function returns something true; fail with the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except httpx.HTTPError:
            pass
        time.sleep(2)
    raise AssertionError((folder / "log").read_text()[-4000:])


def runs_by_schedule(url: str) -> list[Any]:
    """Return the completed runs that a schedule started; the run by hand is in the same database."""
    completed = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    found = httpx.post(f"{url}/flow_runs/filter", json=completed).json()
    return [run for run in found if run["auto_scheduled"]]


def test_flow_run_and_schedule_with_what_the_resolver_chose(
    environment: Callable[[str], Path], packages: tuple[Path, Path], folder: Path
) -> None:
    """The flows of the sdist run with the installed package, by hand and on a schedule, and log to their own MLflow."""
    bin_ = environment("pipeline")
    with tarfile.open(packages[1]) as sdist:
        sdist.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    for name in ("flows", "infra"):
        (source / name).rename(folder / name)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    given = {"PREFECT_HOME": str(folder / "prefect"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mine/mlflow.db"}
    (folder / "mine").mkdir()
    own = ("--space", "conv_net.yaml", "--labels", "labels.csv")
    call(folder, bin_ / "python", "-m", "flows.shrink", *own, "--out", "shrunk", env=given)
    assert (folder / "mine" / "mlflow.db").is_file()
    runs = "import mlflow; print(len(mlflow.search_runs(search_all_experiments=True)))"
    assert int(call(folder, bin_ / "python", "-c", runs, env=given)) >= 1

    served = given | {"PREFECT_API_URL": url}
    prefect, what = bin_ / "prefect", '{"space": "conv_net.yaml", "labels": "labels.csv"}'
    with running(folder, prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port), **given):
        until(lambda: httpx.get(f"{url}/health").is_success, folder)
        call(folder, prefect, "work-pool", "create", "mine", "--type", "process", env=served)
        deploy = (prefect, "--no-prompt", "deploy", "flows/shrink.py:shrink", "--name", "outside", "--pool", "mine")
        scheduled = ("--interval", "20", "--param", f"what={what}", "--param", "out=scheduled")
        call(folder, *deploy, *scheduled, env=served)
        with running(folder, prefect, "worker", "start", "--pool", "mine", **served):
            until(lambda: runs_by_schedule(url), folder)
    assert (folder / "scheduled" / "subspace.parquet").is_file()
