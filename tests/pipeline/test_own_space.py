"""Custom spaces: the tutorial as written, the example, `lissnas suggest`, and a custom `Space` class."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.random import Generator

from lissnas import artifacts, spaces
from lissnas.cli import app
from lissnas.config import Params
from lissnas.core.errors import ConfigError, InvalidArchitecture
from lissnas.oracles.label_table import read_labels, write_rows
from lissnas.shrinkers.problem import from_space
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import Features, distinct_children, raise_first
from lissnas.spaces.declared import DeclaredSpace, parse_space, read_space
from lissnas.stages.shrink import shrink_stage
from lissnas.study import Study
from lissnas.testing import SpaceSuite

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "tutorial" / "own_space.md"
GRAMMAR = ROOT / "docs" / "reference" / "space_yaml.md"
EXAMPLE = ROOT / "lissnas" / "example"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# (\w+\.py)\n")


def blocks(page: Path = DOC) -> list[tuple[str, str]]:
    return [(m[1], m[2]) for m in FENCE.finditer(page.read_text())]


def script(name: str) -> str:
    return next(body for kind, body in blocks() if kind == "python" and body.startswith(f"# {name}\n"))


# -- the tutorial ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all code blocks of the tutorial in order and compare their output with the shown one."""
    folder = tmp_path_factory.mktemp("tutorial")
    tools = tmp_path_factory.mktemp("bin")
    for name, call in (("python", ""), ("lissnas", "-m lissnas.cli ")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call}"$@"\n')
        (tools / name).chmod(0o755)
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": f"{folder}:{ROOT}", "COLUMNS": "80"}
    output, ran = "", 0
    for kind, body in blocks():
        if kind == "python" and (named := FILE.match(body)):
            (folder / named[1]).write_text(body)
        elif kind in ("python", "sh"):
            words = [sys.executable, "-c", body] if kind == "python" else ["bash", "-ec", body]
            done = subprocess.run(
                words, cwd=folder, capture_output=True, text=True, env={**os.environ, **path}, timeout=300
            )
            assert done.returncode == 0, f"{body}\n{done.stdout}{done.stderr}"
            output, ran = done.stdout, ran + 1
        elif kind == "text":
            missing = [word for word in body.split() if word not in output]
            assert not missing, f"{missing} is shown, but not in the output:\n{output}"
    assert ran > 10
    return folder


def test_results_of_the_tutorial(tutorial: Path) -> None:
    """The shrinks are valid, with a high tau."""
    artifacts.verify(tutorial / "shrunk")
    first, more = (artifacts.read_json(tutorial / name / "metrics.json") for name in ("shrunk", "shrunk_150"))
    assert first["tau_low"] > 0.6
    assert (first["labels"], more["labels"]) == (100, 150)
    assert artifacts.read_json(tutorial / "shrunk" / "run.json")["seconds"] < 60  # 3 on an idle machine
    space = read_space(tutorial / "my_space" / "space.yaml")
    assert len(Study.open(tutorial / "study", space).labels.values) == 100
    assert (artifacts.read_json(tutorial / "asked" / "metrics.json")["labels"]) == 100


def test_tutorial_finds_good_architectures(tutorial: Path) -> None:
    """Evaluate the shrunk spaces by the formula, without the noise of the labels."""
    space = read_space(EXAMPLE / "space.yaml")
    assert isinstance(space, DeclaredSpace)
    values = formula(space, space.enumerate())
    for name in ("shrunk", "shrunk_150", "shrunk_study", "asked"):
        members = pq.read_table(tutorial / name / "subspace.parquet")["arch"].to_pylist()
        found = formula(space, space.parse(members))
        assert found.mean() > values.mean() + 1.2 * values.std()
        assert found.max() > np.sort(values)[-10]


def formula(space: DeclaredSpace, archs: Archs) -> FloatArray:
    code: dict[str, object] = {"__name__": "train"}
    exec(script("train.py"), code)
    train = code["train"]
    assert callable(train)
    nets = zip(*space.to_text(archs), strict=True)
    return np.array([train(dict(zip(space.positions, net, strict=True))) for net in nets])


def test_example_has_labels_of_the_formula_and_all_rules() -> None:
    """The example has 100 uniform architectures labelled by the tutorial's formula, and every rule of the grammar."""
    space = read_space(EXAMPLE / "space.yaml")
    assert isinstance(space, DeclaredSpace)
    assert space.size() == 16_046
    declared = space.rules.declaration
    assert set().union(*(c.model_fields_set for c in declared.constraints)) == {
        *("ordered", "forbid", "if_", "then", "at_most"),
    }
    assert declared.inactive
    assert declared.exchanges
    assert declared.costs
    rows = space.sample_distinct(100, np.random.default_rng(0))
    lines = write_rows(space, rows).decode().splitlines()
    values = [f"{value:.2f}" for value in formula(space, rows)]
    expected = [lines[0], *(line + value for line, value in zip(lines[1:], values, strict=True))]
    assert (EXAMPLE / "labels.csv").read_text() == "\n".join(expected) + "\n"


# -- errors listed in the grammar --------------------------------------------------------------------
VALID = {
    "name": "name: s",
    "metric": "metric: {name: accuracy, direction: maximize}",
    "positions": (
        "positions:\n  - {name: depth, choices: [2, 3]}\n  - {name: op1, choices: [conv, skip]}\n"
        "  - {name: op2, choices: [conv, skip]}\n  - {name: width1, choices: [16, 32]}\n"
        "  - {name: width2, choices: [16, 32]}"
    ),
    "costs": "costs: {flops: {base: 5, op1: {conv: 9, skip: 1}}}",
}


def invalid_examples() -> list[str]:
    (body,) = (body for kind, body in blocks(GRAMMAR) if kind == "yaml")
    return body.strip().split("\n\n")


@pytest.mark.parametrize("example", invalid_examples())
def test_invalid_example_gives_the_shown_message(example: str) -> None:
    wrong = {line.partition(":")[0]: line for line in example.splitlines() if line[0] != "#"}
    shown = [line.removeprefix("# ") for line in example.splitlines() if line[0] == "#"]
    valid = dict(VALID)
    if wrong.keys() & {"positions", "position", "cell"}:
        del valid["costs"]
    if wrong.keys() & {"position", "cell"}:
        del valid["positions"]
    with pytest.raises(ConfigError) as caught:
        parse_space("\n".join((valid | wrong).values()), "space.yaml")
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == shown


# -- the commands -------------------------------------------------------------------------------------
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lissnas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in an empty folder and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lissnas", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return run


def test_init_writes_two_files_once(lissnas: Run, tmp_path: Path) -> None:
    code, output, _ = lissnas("init", "a b/c")
    assert code == 0
    assert "not measured" in output
    assert "lissnas shrink --space 'a b/c/space.yaml' --labels 'a b/c/labels.csv' --out 'a b/c/shrunk'" in output
    assert {p.name: p.read_bytes() for p in (tmp_path / "a b" / "c").iterdir()} == {
        p.name: p.read_bytes() for p in EXAMPLE.iterdir()
    }
    (tmp_path / "a b/c/labels.csv").write_text("mine")
    (tmp_path / "a b/c/space.yaml").unlink()
    code, _, message = lissnas("init", "a b/c")
    assert code == 2
    assert "labels.csv exists and is not replaced" in message
    assert [(p.name, p.read_text()) for p in (tmp_path / "a b" / "c").iterdir()] == [("labels.csv", "mine")]
    (tmp_path / "file").touch()
    assert lissnas("init", "file")[0] == 2


def read(path: str) -> list[list[str]]:
    return [line.split(",") for line in Path(path).read_text().splitlines()]


def test_suggestions_are_new_rows_in_the_columns_of_the_labels(lissnas: Run) -> None:
    """No suggestion is labelled, failed, or pending from an earlier one."""
    lissnas("init", ".")
    given = ["--space", "space.yaml", "--labels", "labels.csv"]
    code, output, _ = lissnas("suggest", *given, "--n", "10", "--out", "new/one.csv")
    assert code == 0
    assert "10 networks: 5 search, 5 informative. Files: new/one.csv" in output
    assert "lissnas shrink --space space.yaml --labels labels.csv --out shrunk_110" in output
    header, *old = read("labels.csv")
    same, *one = read("new/one.csv")
    assert same == header
    assert [row[-1] for row in one] == [""] * 10
    Path("labels.csv").write_text(
        "\n".join([",".join([*header, "status"]), *(",".join([*row, ""]) for row in [*old, *one[:9]])])
        + "\n"
        + ",".join([*one[9], "failed"])
        + "\n"
    )
    assert lissnas("suggest", *given, "--n", "40", "--out", "two.csv")[0] == 0
    same, *two = read("two.csv")
    assert same == [*header, "status"]
    known = {tuple(row[:-1]) for row in [*old, *one]}
    assert len(known) == 110
    assert not known & {tuple(row[:-2]) for row in two}
    again = Path("two.csv").read_bytes()
    code, _, message = lissnas("suggest", *given, "--n", "40", "--out", "two.csv")
    assert (code, "two.csv exists" in message) == (2, True)
    assert lissnas("suggest", *given, "--n", "40", "--out", "two.csv", "--force")[0] == 0
    assert Path("two.csv").read_bytes() == again
    assert lissnas("suggest", *given, "--n", "40", "--out", "two.csv", "--force", "--seed", "1")[0] == 0
    assert Path("two.csv").read_bytes() != again


def test_suggestions_with_no_and_few_labels(lissnas: Run) -> None:
    assert (
        lissnas("suggest", "--space", "nas_bench_macro", "--n", "5", "--out", "first.csv", "--metric", "top1")[0] == 0
    )
    header, *rows = read("first.csv")
    assert header == ["arch", "top1"]
    few = [f"{row[0]},{90 + i}" for i, row in enumerate(rows)]
    Path("labels.csv").write_text("\n".join(["arch,top1", *few]) + "\n")
    words = ["suggest", "--space", "nas_bench_macro", "--labels", "labels.csv", "--n", "4000", "--out", "next.csv"]
    code, output, _ = lissnas(*words)
    assert code == 0
    assert "3,964 networks: 3,964 uniform" in output
    assert "4,000 were requested, but no more unlabelled networks exist" in output
    assert "too few" not in output  # all that are left are listed
    assert not {row[0] for row in rows} & {row[0] for row in read("next.csv")[1:]}
    Path("labels.csv").write_bytes(Path("next.csv").read_bytes() + "".join(f"{row}\n" for row in few).encode())
    code, _, message = lissnas(*words, "--force")
    assert code == 2
    assert "every network of nas_bench_macro is labelled or requested (3,964 wait for a label)" in message


def test_labels_in_parquet_and_by_arch(lissnas: Run) -> None:
    lissnas("init", ".")
    pq.write_table(pyarrow.csv.read_csv("labels.csv"), "labels.parquet")
    space = read_space(Path("space.yaml"))
    labels = read_labels(Path("labels.csv"), space)
    named = pa.table({"accuracy": labels.values, "arch": space.format(labels.archs)})
    pyarrow.csv.write_csv(named, "arch.csv")
    for name, header in (("labels.parquet", read("labels.csv")[0]), ("arch.csv", ["accuracy", "arch"])):
        assert lissnas("suggest", "--space", "space.yaml", "--labels", name, "--out", f"{name}.next.csv")[0] == 0
        assert read(f"{name}.next.csv")[0] == header
    by_column, by_arch = read("labels.parquet.next.csv"), read("arch.csv.next.csv")
    assert ["|".join(row[:-1]) for row in by_column[1:]] == [row[1] for row in by_arch[1:]]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--space", "no.yaml", "--out", "x.csv"], "no such file"),
        (["--space", "nowhere", "--out", "x.csv"], "unknown space"),
        (["--space", "space.yaml", "--labels", "no.csv", "--out", "x.csv"], "no such file"),
        (["--space", "space.yaml", "--labels", "bad.csv", "--out", "x.csv"], "bad.csv:3: unknown choice of stages '5'"),
        (
            ["--space", "space.yaml", "--labels", "labels.csv", "--metric", "height", "--out", "x.csv"],
            "the column 'height', the metric, is missing. Known: accuracy",
        ),
        (["--space", "space.yaml", "--labels", "labels.csv", "--out", "labels.csv", "--force"], "file of the labels"),
        (["--space", "space.yaml", "--out", "x.parquet"], "ends in .csv"),
        (["--space", "space.yaml", "--n", "0", "--out", "x.csv"], "greater than or equal to 1"),
        (
            ["--space", "space.yaml", "--seed", "-1", "--out", "x.csv"],
            "'--seed': Input should be greater than or equal to 0",
        ),
        (["--space", "space.yaml", "--params", "no.yaml", "--out", "x.csv"], "no such file"),
        (["--space", "space.yaml"], "Missing option '--out'"),
    ],
)
def test_invalid_input_exits_with_2_and_writes_nothing(lissnas: Run, words: list[str], part: str) -> None:
    lissnas("init", ".")
    lines = Path("labels.csv").read_text().splitlines()
    Path("bad.csv").write_text("\n".join([*lines[:2], "5" + lines[2][1:], *lines[3:]]))
    before = {p: p.read_bytes() for p in Path().iterdir()}
    code, output, message = lissnas("suggest", *words)
    assert (code, output) == (2, "")
    assert part in " ".join(message.replace("│", " ").split())
    assert {p: p.read_bytes() for p in Path().iterdir()} == before


# -- a custom Space class ----------------------------------------------------------------------------
N = 6
EVERY = np.array(list(permutations(range(N))), np.int8)


class Orders(Space):
    """Orders of six layers; an edit exchanges two layers. Inherits only from `Space`, without costs."""

    name = "orders"
    genome_len = N
    n_features = N * N
    max_edits = N - 1

    def size(self) -> int:
        return len(EVERY)

    def sample(self, n: int, rng: Generator) -> Archs:
        return EVERY[rng.integers(0, len(EVERY), n)]

    def enumerate(self) -> Archs:
        return EVERY.copy()

    def key(self, archs: Archs) -> Keys:
        self.check_rows(archs)
        raise_first((np.sort(archs, axis=1) != np.arange(N)).any(axis=1), "not an order of the layers 0 to 5")
        return archs.astype(np.uint64) @ (np.uint64(N) ** np.arange(N - 1, -1, -1, dtype=np.uint64))

    def _exchanged(self, archs: Archs, a: IntArray, b: IntArray) -> Archs:
        out, at = archs.copy(), np.arange(len(archs))
        out[at, a], out[at, b] = archs[at, b], archs[at, a]
        return out

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        keys = self.key(archs)
        a, b = np.triu_indices(N, 1)
        parents = np.repeat(np.arange(len(archs)), len(a))
        rows = self._exchanged(archs[parents], np.tile(a, len(archs)), np.tile(b, len(archs)))
        keep = distinct_children(parents, self.key(rows), keys)
        return rows[keep], parents[keep]

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        self.check_rows(archs)
        self.check_kind(kind)
        out, todo = archs.copy(), np.flatnonzero(edits > 0)
        for _ in range(200):
            rows = archs[todo]
            for step in range(int(edits[todo].max(initial=0))):
                pair = rng.random((len(todo), N)).argsort(axis=1)
                rows = np.where((step < edits[todo])[:, None], self._exchanged(rows, pair[:, 0], pair[:, 1]), rows)
            ok = self._distance(archs[todo], rows) == edits[todo]
            out[todo[ok]] = rows[ok]
            todo = todo[~ok]
        return out

    def _distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the number of layers minus the number of cycles of the permutation from `a` to `b`."""
        move = np.take_along_axis(np.argsort(a, axis=1), b.astype(np.int64), axis=1)
        smallest, at = np.tile(np.arange(N), (len(a), 1)), move
        for _ in range(N):
            smallest, at = np.minimum(smallest, at), np.take_along_axis(move, at, axis=1)
        return np.asarray((smallest != np.arange(N)).sum(axis=1))

    def encode(self, archs: Archs) -> Features:
        self.check_rows(archs)
        return np.asarray(archs[:, :, None] == np.arange(N), np.float32).reshape(len(archs), N * N)

    def format(self, archs: Archs) -> list[str]:
        return ["".join(map(str, row)) for row in archs.tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        for i, name in enumerate(names):
            if sorted(name) != list("012345"):
                raise InvalidArchitecture(i, f"expected an order of 012345, found {name!r}")
        return np.array([[int(c) for c in name] for name in names], np.int8).reshape(-1, N)


class TestOrders(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return Orders()


def formula_of_orders(archs: Archs) -> FloatArray:
    """Return the negative weighted distance to the order 012345; the first and the last layer weigh most."""
    weight = np.array([3.0, 1, 1, 1, 1, 3])
    return np.asarray(-(weight * np.abs(archs - np.arange(N))).sum(axis=1))


def test_custom_space_class_is_shrunk_and_studied(make_params: Callable[..., Params], tmp_path: Path) -> None:
    space, params = Orders(), make_params(shrink__labels=80)
    source = from_space(space, oracle=formula_of_orders, oracle_id="a formula")
    outcome = shrink_stage(params, source, 0, tmp_path / "out")
    members = space.parse(outcome.table("subspace.parquet")["arch"].to_pylist())
    assert len(members) == outcome.metrics["size"] <= 180
    every = formula_of_orders(EVERY)
    assert formula_of_orders(members).mean() > every.mean() + every.std()
    study = Study.open(tmp_path / "study", space, params=params)
    for _ in range(4):
        batch = study.ask(20)
        study.tell(batch.names, formula_of_orders(batch.archs))
    assert study.best[2:] == ("012345", 0.0)
    assert set(batch.kinds) == {"search", "informative"}
    header, *rows = study.path.read_text().splitlines()
    assert (header, len(rows)) == ("arch,value,status", 160)
    assert spaces.names().count(space.name) == 0
