"""Label collection in this process, after a kill and restart, and on a Dask cluster gives the same bytes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")
pytest.importorskip("prefect_dask", reason="prefect-dask is not installed (the extra `pipeline`)")

from lissnas import artifacts, config, spaces
from lissnas.artifacts.journal import LOG
from lissnas.nets.labels import train_label
from lissnas.oracles.label_collection import Attempt, LabellerUnavailable
from lissnas.oracles.label_table import read_archs, read_labels
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import get_space
from lissnas.stages.label import label_stage

ROOT = Path(__file__).parents[2]
SPACE = "nas_bench_macro"
TINY = {
    "images.validation": 200,
    "torch.device": "cpu",
    "label.networks": 4,
    "label.width": 0.25,
    "label.side": 8,
    "label.time_limit": 120.0,
    **{f"recipes.cpu_label.{k}": v for k, v in (("steps", 6), ("batch_size", 16), ("warmup", 2), ("report_every", 2))},
    "recipes.cpu_label.checkpoint_every": 2,
    "recipes.cpu_label.rate": 0.5,
}
PLAIN = f"""
from pathlib import Path
from lissnas import spaces
from lissnas.shrinkers.description import load_params
from lissnas.stages.label import label_stage
label_stage(load_params(Path("params.yaml"), {{}}), spaces.get({SPACE!r}), 0, Path("out"))
"""


def write_params(folder: Path, **more: Any) -> config.Params:
    overrides = {**TINY, **{k.replace("__", "."): v for k, v in more.items()}}
    checked = description.load_params(None, overrides)
    (folder / "params.yaml").write_bytes(artifacts.to_json(checked.model_dump(mode="json")))
    return checked


def flow(*words: str, code: int = 0) -> str:
    """Run `python -m flows.label` in this process; return its output on one line."""
    output, argv = io.StringIO(), sys.argv
    sys.argv = ["flows.label", "--space", SPACE, *words]
    try:
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
            runpy.run_module("flows.label", run_name="__main__")
    finally:
        sys.argv = argv
    assert ended.value.code == code, output.getvalue()
    return " ".join(output.getvalue().split())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    label_stage(write_params(folder), spaces.get(SPACE), 0, folder / "out")
    return folder / "out"


def labels_of(folder: Path) -> dict[str, float]:
    lines = (folder / "labels.csv").read_text().splitlines()
    assert lines[0] == '"arch","accuracy"'
    return {arch.strip('"'): float(value) for arch, value in (line.split(",") for line in lines[1:])}


def test_files_of_collected_labels(collected: Path) -> None:
    artifacts.verify(collected)
    labels, space = labels_of(collected), spaces.get(SPACE)
    assert len(labels) == len(set(space.key(space.parse(list(labels))).tolist())) == 4
    assert space.format(space.parse(list(labels))) == list(labels)
    assert all(0 <= value <= 100 for value in labels.values())
    metrics = artifacts.read_json(collected / "metrics.json")
    assert (metrics["networks"], metrics["labels"], metrics["failed"]) == (4, 4, [])
    assert read_archs(collected / "labels.csv", space) == list(labels)
    assert not list(collected.parent.glob(".out.tasks/*"))


def test_label_depends_on_parameters_seed_and_architecture(collected: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path)
    arch, value = list(labels_of(collected).items())[-1]
    assert train_label(params, SPACE, arch, 0) == value
    weak = params.model_copy(update={"label": params.label.model_copy(update={"width": 0.5})})
    assert {train_label(weak, SPACE, arch, 0), train_label(params, SPACE, arch, 1)} != {value}


def test_finished_labels_are_reused_and_extended(tmp_path: Path) -> None:
    write_params(tmp_path)
    out = tmp_path / "out"
    flow("--workers", "0", "--out", str(out))
    before, log = labels_of(out), (out / LOG).read_bytes()
    assert "Nothing was done" in flow("--workers", "0", "--out", str(out))
    others = [a for a in spaces.get(SPACE).format(spaces.get(SPACE).enumerate()[:3]) if a not in before]
    wanted = [*list(before)[:2], *others]
    (tmp_path / "more.csv").write_text("accuracy,arch\n" + "".join(f",{arch}\n" for arch in wanted))
    flow("--workers", "0", "--out", str(out), "--archs", "more.csv")
    assert list(labels_of(out)) == [*before, *others]
    assert before.items() <= labels_of(out).items()
    assert (out / LOG).read_bytes().startswith(log)
    assert (out / LOG).read_bytes().count(b"\n") == log.count(b"\n") + len(others)
    text = (out / "labels.csv").read_bytes()
    assert "Nothing was done" in flow("--workers", "0", "--out", str(out), "--archs", "more.csv")
    flow("--workers", "0", "--out", str(out), "--seed", "1", code=2)
    flow("--workers", "0", "--out", str(out), "--set", "label.width=0.5", code=2)
    assert (out / "labels.csv").read_bytes() == text


YAML = """
name: mine
metric: {name: ms, direction: minimize}
positions:
  - {name: depth, choices: [1, 2, 3]}
  - {name: op, choices: [a, b, c, d]}
"""
PROGRAM = """
import pathlib, sys
name = sys.stdin.readline().strip()
calls = pathlib.Path("calls")
before = calls.read_text().split() if calls.exists() else []
calls.write_text(" ".join([*before, name]))
if name == "2|b":
    print("failed")
elif name == "2|a" and name not in before:
    sys.exit("the node went down")
else:
    print(10 * int(name[0]) + ord(name[-1]))
"""


def test_program_labels_a_custom_space(tmp_path: Path) -> None:
    write_params(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "oracle.py").write_text(PROGRAM)
    (tmp_path / "next.csv").write_text("depth,op,ms\n" + "".join(f"2,{op},\n" for op in "abc"))
    words = ("--space", "mine.yaml", "--program", f"{sys.executable} oracle.py", "--workers", "0", "--out", "out")
    flow(*words, "--archs", "next.csv")
    assert (tmp_path / "out/labels.csv").read_text().splitlines() == ['"arch","ms"', '"2|a",117', '"2|c",119']
    assert artifacts.read_json(tmp_path / "out/metrics.json")["failed"] == ["2|b"]
    assert (tmp_path / "calls").read_text().split() == ["2|a", "2|b", "2|c", "2|a", "2|b"]
    flow(*words, "--networks", "4")
    labels = read_labels(tmp_path / "out/labels.csv", get_space("mine.yaml"), min_labels=0)
    assert labels.negated
    assert len(labels.values) > 3
    assert (tmp_path / "calls").read_text().split().count("2|a") == 2


def test_next_run_retries_failed_labels_and_force_requests_all_again(tmp_path: Path) -> None:
    write_params(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    answer = "name = input()\nopen('calls', 'a').write(name + '\\n')\nexec(open('answer.txt').read())\n"
    (tmp_path / "oracle.py").write_text(answer)  # stays the same: another program has other answers
    words = ("--space", "mine.yaml", "--program", f"{sys.executable} oracle.py", "--workers", "0", "--out", "out")

    def calls(program: str, *more: str, code: int = 0) -> list[str]:
        (tmp_path / "answer.txt").write_text(program)
        (tmp_path / "calls").write_text("")
        flow(*words, "--networks", "4", *more, code=code)
        return (tmp_path / "calls").read_text().split()

    first = calls("print('failed')", code=1)
    assert len(first) == 8
    assert calls("print('failed')", "--keep-failed", code=1) == []
    bad = first[1]
    assert sorted(calls(f"print('failed' if name == {bad!r} else 1)")) == sorted([*first[:4], bad])
    assert artifacts.read_json(tmp_path / "out/metrics.json")["failed"] == [bad]
    assert calls("print(2)", "--keep-failed") == []
    assert calls("print(2)") == [bad]
    assert calls("print(3)") == []
    assert calls("print(3)", "--force") == first[:4]
    assert (tmp_path / "out/labels.csv").read_text().count(",3") == 4
    (tmp_path / "mine.yaml").write_text(YAML.replace("depth", "width"))  # names mean other networks
    assert calls("print(4)", code=2) == []
    (tmp_path / "mine.yaml").write_text("# a comment" + YAML)
    assert calls("print(4)") == []


def test_labels_of_another_program_are_left_or_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "oracle.py").write_text("print(1 if input() != '1|a' else 'failed')")
    (tmp_path / "archs.csv").write_text("arch\n1|a\n1|b\n1|c\n")
    words = ("--space", "mine.yaml", "--workers", "0", "--out", "out", "--archs", "archs.csv", "--program")

    def values() -> list[str]:
        return [line[-1] for line in (tmp_path / "out/labels.csv").read_text().splitlines()[1:]]

    flow(*words, f"{sys.executable} oracle.py")
    (tmp_path / "oracle.py").write_text("print(2)")
    flow(*words, f"{sys.executable} -S oracle.py", code=2)  # a result of other parameters is there
    flow(*words, f"{sys.executable} -S oracle.py", "--reuse-answers")
    assert values() == ["2", "1", "1"]
    (tmp_path / "out/manifest.json").unlink()
    capsys.readouterr()
    flow(*words, f"{sys.executable} -B oracle.py")
    message = " ".join(capsys.readouterr().err.split())
    assert "out/labels.jsonl has 3 labels that this run does not use: the command of the program changed" in message
    assert values() == ["2", "2", "2"]


def test_custom_space_requires_a_program(tmp_path: Path) -> None:
    write_params(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    flow("--space", "mine.yaml", "--workers", "0", "--out", "out", code=2)
    flow("--space", "mine.yaml", "--program", "no-such-program", "--workers", "0", "--out", "out", code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.faults
def test_killed_collection_resumes_to_the_same_bytes(collected: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path)
    command = [sys.executable, "-c", PLAIN]
    log = tmp_path / "out" / LOG
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 2):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    label_stage(params, spaces.get(SPACE), 0, Path("out"))
    assert artifacts.read_manifest(tmp_path / "out") == artifacts.read_manifest(collected)
    assert log.read_bytes().count(b"\n") == 5  # no label twice


def test_locked_folder_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path)
    with artifacts.locked(tmp_path / "out"):
        flow("--workers", "0", "--out", "out", code=2)
    assert not (tmp_path / "out").exists()


def test_diverged_trainings_are_reported_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(tmp_path, recipes__cpu_label__rate=1e9, recipes__cpu_label__clip=0.0, label__networks=2)
    flow("--workers", "0", "--out", "out", code=1)
    assert "all 2 trainings failed" in " ".join(capsys.readouterr().err.split())
    records = [json.loads(line.partition(" ")[2]) for line in (tmp_path / "out" / LOG).read_text().splitlines()[1:]]
    assert len(records) == 4
    assert all("the loss is" in r["error"] and r["value"] is None for r in records)


def test_training_beyond_the_time_limit_is_stopped(tmp_path: Path) -> None:
    write_params(tmp_path, label__time_limit=0.3, label__networks=1, recipes__cpu_label__steps=10**6)
    started = time.monotonic()
    flow("--workers", "0", "--out", "out", code=1)
    assert time.monotonic() - started < 300  # it would train for hours
    assert "longer than 0.3 s" in (tmp_path / "out" / LOG).read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("--archs", "none.csv"),
        ("--archs", "empty.csv"),
        ("--archs", "column.csv"),
        ("--archs", "arch.csv"),
        ("--set", "label.recipe=cpu_labell"),
        ("--networks", "0"),
        ("--networks", "4000"),
        ("--scheduler", "tcp://127.0.0.1:1"),
        ("--set", "label.time_limit=-1"),
        ("--space", "shufflenet"),
    ],
)
def test_invalid_input_is_refused_and_nothing_is_written(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_params(tmp_path)
    (tmp_path / "empty.csv").write_text("arch\n")
    (tmp_path / "column.csv").write_text("network\n00000000\n")
    (tmp_path / "arch.csv").write_text("arch\n00000000\n99999999\n")
    flow("--workers", "0", "--out", "out", *words, code=2)
    assert not (tmp_path / "out").exists()


def odd(arch: str) -> float:
    if arch == "dies":
        os._exit(1)
    if arch == "gone":
        raise LabellerUnavailable("no torch there")
    return float(arch)


@pytest.mark.slow
def test_cluster_gives_the_same_labels(collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    import dask
    import distributed
    import prefect
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        assert "MLflow: run" in flow("--workers", "2", "--out", "local")
        start: Any = distributed.LocalCluster
        with start(n_workers=1, threads_per_worker=1, dashboard_address=None) as external:
            flow("--scheduler", external.scheduler_address, "--out", "external")
        with get_client(sync_client=True) as client:
            names = [r.name for r in client.read_task_runs() if r.name.startswith("train ")]

        from flows.label import cluster, on_dask  # after `flow`, which runs the module as `__main__`

        @prefect.flow(task_runner=cluster(1, None), persist_result=False)
        def label(*archs: str) -> None:
            given.extend(on_dask(odd, archs))

        given: list[Attempt] = []
        with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
            label("1", "dies", "2", "nan")
        assert {one.arch: one.value for one in given} == {"1": 1.0, "dies": None, "2": 2.0, "nan": None}
        assert "KilledWorker" in str(next(one.error for one in given if one.arch == "dies"))
        with pytest.raises(LabellerUnavailable, match="no torch there"):
            label("gone", "1")
    assert artifacts.read_manifest(tmp_path / "local") == artifacts.read_manifest(collected)
    assert artifacts.read_manifest(tmp_path / "external") == artifacts.read_manifest(collected)
    assert sorted(names) == sorted([f"train {arch}" for arch in labels_of(collected)] * 2)
