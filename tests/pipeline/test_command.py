"""The `lissnas` command: output, files and exit codes, in this process or a separate one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lissnas import artifacts, benchmarks
from tests.pipeline.harness import Done, lissnas_here

FILES = {
    "subspace.json",
    "subspace.parquet",
    "iterations.parquet",
    "metrics.json",
    "labels.parquet",
    "predictor.ubj",
    "predictor_kernel.npz",
    "predictor.json",
    "parameters.json",
    "iterations.png",
    "edf.png",
}


def lissnas(cwd: Path, *words: str) -> Done:
    """Run the command in this process, with the lines of its messages joined."""
    done = lissnas_here(cwd, *words)
    return done._replace(err=" ".join(done.err.replace("│", " ").split()))


def lissnas_process(cwd: Path, *words: str, **env: str) -> Done:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "lissnas.cli", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


def manifest(folder: Path) -> dict[str, str]:
    return artifacts.verify(folder)


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("shrunk")
    done = lissnas_process(cwd, "shrink", "--benchmark", "nas_bench_macro", "--seed", "3", "--out", "out")
    assert done.code == 0, done.err
    assert "450" in done.out
    assert "kept" in done.out
    assert "iteration  1" in done.err
    return cwd / "out"


def test_files_of_a_shrink(shrunk: Path) -> None:
    assert set(manifest(shrunk)) == FILES
    assert {p.name for p in shrunk.iterdir()} == FILES | {"manifest.json", "run.json"}
    about = json.loads((shrunk / "subspace.json").read_text())
    assert about == {"kind": "set", "space": "nas_bench_macro", "size": 450, "size_exact": True}
    members = pq.read_table(shrunk / "subspace.parquet")
    assert members.column_names == ["arch", "predicted", "distance", "seed"]
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.parse(members["arch"].to_pylist())
    assert len(np.unique(table.space.key(rows))) == 450
    metrics = json.loads((shrunk / "metrics.json").read_text())
    assert metrics["mean_true"] == pytest.approx(table(rows).mean())
    assert (metrics["benchmark"], metrics["seed"], metrics["variant"]) == ("nas_bench_macro", 3, "elite")
    assert metrics["reduction"] == pytest.approx(3_969 / 450)
    iterations = pq.read_table(shrunk / "iterations.parquet")
    columns = "iteration size seen queries labels mean_predicted best_predicted turnover p_good shrink_index"
    assert iterations.column_names == [*columns.split(), "mean_true", "max_true"]
    assert iterations["queries"].to_pylist()[-1] == metrics["queries"]
    labels = pq.read_table(shrunk / "labels.parquet")
    assert labels.column_names == ["arch", "value", "round"]
    assert labels.num_rows == metrics["labels"] == 300
    assert (labels["value"].to_numpy() == table(table.space.parse(labels["arch"].to_pylist()))).all()
    assert (shrunk / "edf.png").read_bytes().startswith(b"\x89PNG")


def test_finished_shrink_is_reused_and_other_parameters_are_refused(shrunk: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in shrunk.iterdir()}
    words = ["shrink", "--benchmark", "nas_bench_macro", "--out", "out"]
    again = lissnas(shrunk.parent, *words, "--seed", "3")
    assert again.code == 0
    assert "Nothing was done" in again.out
    other = lissnas(shrunk.parent, *words, "--seed", "4")
    assert other.code == 2
    assert "other parameters (seed differ)" in other.err
    assert {p.name: p.stat().st_mtime_ns for p in shrunk.iterdir()} == before


def test_other_environment_gives_the_same_bytes(shrunk: Path, tmp_path: Path) -> None:
    env = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    done = lissnas_process(tmp_path, "shrink", "--benchmark", "nas_bench_macro", "--seed", "3", "--out", "x", **env)
    assert done.code == 0
    assert manifest(tmp_path / "x") == manifest(shrunk)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.faults)])
def test_killed_shrink_resumes_to_the_same_bytes(shrunk: Path, tmp_path: Path, how: signal.Signals) -> None:
    slow = (
        "import time\nfrom lissnas import artifacts\nsave = artifacts.Checkpoint.save\n"
        "def saved(self, arrays, about):\n    save(self, arrays, about)\n"
        "    about['iteration'] == 1 and (print('saved', flush=True), time.sleep(60))\n"
        "artifacts.Checkpoint.save = saved\nfrom lissnas.cli.app import main\nmain()"
    )
    words = ["shrink", "--benchmark", "nas_bench_macro", "--seed", "3", "--out", "out"]
    child = subprocess.Popen([sys.executable, "-c", slow, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "saved\n"
    time.sleep(0.2)
    child.send_signal(how)
    child.wait(30)
    assert not (tmp_path / "out").exists()
    done = lissnas(tmp_path, *words)
    assert done.code == 0
    assert "iteration 1 " not in done.err  # it was not repeated
    assert "iteration 2 " in done.err
    assert manifest(tmp_path / "out") == manifest(shrunk)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")) == ["out"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--benchmark", "nasbench11"], ["unknown benchmark 'nasbench11'. Did you mean 'nasbench101'?"]),
        (
            ["--benchmark", "nas_bench_macro", "--target-size", "0", "--diversity", "nan"],
            ["shrink.target_size", "--target-size", "shrink.elite.diversity", "--diversity"],
        ),
        (["--benchmark", "nas_bench_macro", "--target-size", "many"], ["--target-size"]),
        (["--benchmark", "nas_bench_macro", "--params", "none.yaml"], ["none.yaml", "no such file"]),
        (["--benchmark", "nas_bench_macro", "--max-queries", "5"], ["does not pay for the first sample"]),
        (["--benchmark", "nas_bench_macro", "--seed", "-1"], ["seed"]),
        (["--benchmark", "nas_bench_macro", "--table", "nowhere"], ["nowhere has no manifest.json"]),
        (["--benchmark", "nas_bench_macro", "--colour", "red"], ["--colour"]),
    ],
)
def test_invalid_input_exits_with_2_and_writes_nothing(tmp_path: Path, words: list[str], parts: list[str]) -> None:
    done = lissnas(tmp_path, "shrink", "--out", "out", *words)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err
    assert not list(tmp_path.iterdir())


def test_damaged_result_is_reported(shrunk: Path, tmp_path: Path) -> None:
    words = ["shrink", "--benchmark", "nas_bench_macro", "--seed", "3", "--out", "r"]
    assert lissnas(tmp_path, *words).code == 0
    target = tmp_path / "r" / "subspace.parquet"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    done = lissnas(tmp_path, *words)
    assert done.code == 1
    assert "subspace.parquet is damaged" in done.err
    assert lissnas(tmp_path, *words, "--force").code == 0
    assert manifest(tmp_path / "r") == manifest(shrunk)


def test_foreign_files_in_the_folder_are_kept(tmp_path: Path) -> None:
    words = ["shrink", "--benchmark", "nas_bench_macro", "--out", "r"]
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("mine")
    refused = lissnas(tmp_path, *words)
    assert (refused.code, "mine.txt" in refused.err) == (2, True)
    (tmp_path / "r" / "mine.txt").unlink()
    assert lissnas(tmp_path, *words).code == 0
    (tmp_path / "r" / "mine.txt").write_text("mine")
    assert lissnas(tmp_path, *words, "--seed", "1", "--force").code == 0
    assert (tmp_path / "r" / "mine.txt").read_text() == "mine"


def test_prepared_table_gives_the_same_bytes(shrunk: Path, tmp_path: Path) -> None:
    assert lissnas(tmp_path, "data", "--benchmark", "nas_bench_macro", "--out", "t").code == 0
    words = ["shrink", "--benchmark", "nas_bench_macro", "--seed", "3", "--out", "r", "--table", "t"]
    assert lissnas(tmp_path, *words).code == 0
    assert manifest(tmp_path / "r") == manifest(shrunk)
    other = lissnas(tmp_path, "shrink", "--benchmark", "nasbench101", "--out", "x", "--table", "t")
    assert other.code == 2
    assert "holds the table of 'nas_bench_macro'" in other.err


def test_spaces_command_prints_only_json(tmp_path: Path) -> None:
    rows = json.loads(lissnas(tmp_path, "spaces", "--json").out)
    sizes = {row["name"]: row["size"] for row in rows}
    assert sizes["nasbench101"] == 423_624
    assert sizes["transnas"] == 7_352
    assert all(set(row) == {"name", "size", "size_exact", "genome_len", "source"} for row in rows)


def test_doctor_finds_no_problem(tmp_path: Path) -> None:
    done = lissnas_process(tmp_path, "doctor", COLUMNS="200")
    assert done.code == 0, done.out
    assert "nasbench101.parquet" in done.out
    assert "checksum matches" in done.out
    unreachable = lissnas_process(tmp_path, "doctor", COLUMNS="200", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert unreachable.code == 1
    assert "unset PREFECT_API_URL" in unreachable.out


def test_show(shrunk: Path, tmp_path: Path) -> None:
    shown = lissnas(shrunk.parent, "show", "out")
    assert shown.code == 0, shown.err
    assert "450" in shown.out
    assert "MLflow" not in shown.out + shown.err
    assert not (shrunk.parent / "mlflow.db").exists()  # it was never logged
    assert lissnas(tmp_path, "show", "nothing").code == 2


# -- locality and compare -----------------------------------------------------------------------------
def test_locality_on_a_table_and_on_a_predictor(shrunk: Path, tmp_path: Path) -> None:
    done = lissnas(
        tmp_path, "locality", "--benchmark", "nas_bench_macro", "--set", "locality.pairs=2000", "--out", "table"
    )
    assert done.code == 0, done.err
    assert "Threshold edit distance: 2" in done.out
    words = (
        "locality",
        "--benchmark",
        "nas_bench_macro",
        "--set",
        "locality.pairs=2000",
        "--predictor",
        str(shrunk),
        "--out",
        "p",
    )
    assert lissnas(tmp_path, *words).code == 0
    about = [json.loads((tmp_path / f / "locality.json").read_text())["oracle"] for f in ("table", "p")]
    assert about == ["table", "predictor"]
    other = lissnas(tmp_path, "locality", "--benchmark", "nasbench101", "--predictor", str(shrunk), "--out", "n")
    assert other.code == 2
    assert "made for space 'nas_bench_macro'" in other.err
    wrong = ("shrink", "--benchmark", "transnas_micro/jigsaw", "--locality", "table", "--out", "s")
    done = lissnas(tmp_path, *wrong)
    assert done.code == 2
    assert "holds the locality of space 'nas_bench_macro'" in done.err


def test_compare_from_the_command_line(tmp_path: Path) -> None:
    words = ("compare", "--benchmark", "nas_bench_macro", "--methods", "lissnas,abs,flops", "--seeds", "0-1")
    done = lissnas(tmp_path, *words, "--out", "c")
    assert done.code == 0, done.err
    assert "6/6" in done.err
    assert "lissnas is " in " ".join(done.out.split())
    rows = pq.read_table(tmp_path / "c" / "comparison.parquet").to_pylist()
    assert [(r["method"], r["seed"]) for r in rows] == [(m, s) for m in ("lissnas", "abs", "flops") for s in (0, 1)]
    again = lissnas(tmp_path, *words, "--out", "c")
    assert "Nothing was done" in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "abss"), "unknown method 'abss'. Did you mean 'abs'?"),
        (("--methods", ""), "compare.methods"),
        (("--seeds", "9-0"), "neither a seed nor a range"),
        (("--seeds", "one"), "neither a seed nor a range"),
        (("--seeds", "5000000000"), "pipeline.seeds.0"),
        (("--target-size", "4000"), "4,000 is more than the space has"),
        (("--target-size", "3969"), "is the whole space"),
        (("--max-queries", "10"), "max_queries: 10 does not pay for the first sample"),
        (("--benchmark", "nas_bench_makro"), "Did you mean 'nas_bench_macro'?"),
    ],
)
def test_invalid_input_of_a_comparison(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = lissnas(tmp_path, "compare", "--benchmark", "nas_bench_macro", *words, "--out", "c")
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_report_without_inputs_names_the_commands(tmp_path: Path) -> None:
    done = lissnas(tmp_path, "report", "--out", "r")
    assert done.code == 2
    assert "lissnas compare --benchmark nasbench101" in done.err
    assert not (tmp_path / "r").exists()
