"""Shrinkers of the user: import, the check before they run, checks of their results, and rivals alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lissnas
from lissnas import artifacts, benchmarks
from lissnas.cli.render import show_shrink
from lissnas.config import Params
from lissnas.core.errors import UnknownName, UserError
from lissnas.oracles.base import CountedOracle
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import methods, plugin
from lissnas.shrinkers.alone import check_method, shrink_alone
from lissnas.shrinkers.methods import METHODS, by_name, chosen
from lissnas.shrinkers.problem import Problem, Source, from_space
from lissnas.spaces import ChoiceSpace
from lissnas.spaces.subspace import Subspace
from lissnas.stages.compare import compare_stage
from lissnas.stages.shrink import shrink_stage

MACRO = benchmarks.get("nas_bench_macro")
SOUND = """
import numpy as np
from lissnas.spaces.subspace import Subspace

def best_of_sample(space, oracle, target, rng):
    rows = space.sample_distinct(min(oracle.left, space.size()), rng)
    scores = oracle(rows)
    return Subspace(space, listed=rows[np.argsort(-scores, kind="stable")[:target]])
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that writes a module with a shrinker to the working folder and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    plugin.load.cache_clear()
    count = iter(range(100))

    def write(body: str, function: str = "shrink") -> str:
        module = f"mine_{tmp_path.name.replace('-', '_')}_{next(count)}"
        (tmp_path / f"{module}.py").write_text(body)
        return f"{module}:{function}"

    yield write
    plugin.load.cache_clear()


def shrinker(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    head = "def shrink(space, oracle, target, rng):\n    part = best_of_sample(space, oracle, target, rng)"
    return f"{SOUND}\n{head}\n{lines}\n"


def test_sound_shrinker_joins_the_methods(write: Callable[..., str]) -> None:
    name = write(SOUND, "best_of_sample")
    method = by_name(name)
    assert (method.name, method.reference, method.needs_labels, method.needs_table) == (name, False, True, False)
    assert chosen(["flops", "abs"], None, [name, "nse", name]) == ["abs", "nse", "flops", name]
    assert chosen("all", None, [name]) == [*METHODS, name]
    assert name not in methods.REFERENCES


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return part.members", "expected a lissnas.Subspace, found ndarray"),
        ("return Subspace(space, listed=part.members[:0])", "it is empty"),
        ("return Subspace(space, listed=part.members[[0, 0]])", "`listed` has an architecture twice"),
        ("return Subspace(space, listed=part.members.astype(int))", "`listed` has to be a matrix of int8"),
        ("return Subspace(space, listed=part.members[0])", "`listed` has to be a matrix of int8"),
        ("return Subspace(space, listed=part.members + np.int8(5))", "a choice is out of range"),
        ("return Subspace(space, listed=np.array([[0, 0, 0, 0, 1, 0, 0, 0]], np.int8))", "canonical form"),
        ("return Subspace(type(space)(), listed=part.members)", "a subspace of another space object"),
        ("return Subspace(space, allowed=np.ones((2, 2), bool))", r"`allowed` has the shape \(2, 2\)"),
        ("return Subspace(space, allowed=np.zeros((8, 3), bool))", "it is empty"),
        ("return Subspace(space, listed=space.enumerate())", "it returned the whole space"),
        (
            "return Subspace(space, listed=np.random.permutation(part.members))",
            "two runs with the same random generator",
        ),
        ("oracle(space.enumerate())\nreturn part", "new architectures queried, 0 of 992 are left"),
        ("return 1 / 0", r"ZeroDivisionError: division by zero \(.*mine_.*\.py:\d+\)"),
    ],
)
def test_defects_are_found_before_anything_runs(body: str, message: str, write: Callable[..., str]) -> None:
    name = write(shrinker(body))
    with pytest.raises(UserError, match=f"--method {name} failed the check on nas_bench_macro: .*{message}"):
        chosen(["lissnas"], None, [name])


def test_shrinker_that_keeps_the_worst_is_refused(write: Callable[..., str]) -> None:
    name = write(SOUND.replace("-scores", "scores"), "best_of_sample")
    with pytest.raises(
        UserError, match=r"the mean score of its members is -\d\.\d\d standard deviations.*higher scores"
    ):
        by_name(name)


def test_shrinker_without_queries_need_not_be_better(write: Callable[..., str]) -> None:
    name = write(
        "from lissnas.spaces.subspace import Subspace\n"
        "def shrink(space, oracle, target, rng):\n"
        "    return Subspace(space, listed=space.sample_distinct(target, rng))\n"
    )
    assert by_name(name).rival is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "no module 'no_such_module' in this folder"),
        ("json:dumpz", r"json.* has no function 'dumpz'. Did you mean 'dump'\?"),
        ("json.nothing:f", "importing json.nothing failed: ModuleNotFoundError: No module named 'json.nothing'"),
        ("mine.py:f", "name the module, not the file: mine:f"),
        ("mine:", "expected package.module:function"),
        (":f", "expected package.module:function"),
        ("a b:f", "expected package.module:function"),
        ("..:f", "expected package.module:function"),
        ("json:__doc__", "has no function '__doc__'"),
        ("os.path:join", "failed the check on nas_bench_macro: TypeError"),
    ],
)
def test_names_that_are_no_shrinker(name: str, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=message):
        by_name(name)


def test_module_that_fails_to_import(write: Callable[..., str]) -> None:
    name = write("import nonsense_of_nobody\n")
    with pytest.raises(
        UserError, match=r"failed: ModuleNotFoundError: No module named 'nonsense_of_nobody' \(.*py:1\)"
    ):
        by_name(name)
    name = write("def f(:\n")
    with pytest.raises(UserError, match="failed: SyntaxError: invalid syntax"):
        by_name(name)


def test_result_on_the_real_space_is_checked(write: Callable[..., str]) -> None:
    """A shrinker that passes the check may still fail on another space."""
    name = write(shrinker("return part if space.name == 'nas_bench_macro' else None"))
    space = ChoiceSpace("free", [3] * 6)
    oracle = CountedOracle(lambda rows: rows.sum(axis=1).astype(float), space, 100)
    with pytest.raises(UserError, match=f"{name} returned no valid subspace of free: expected a lissnas.Subspace"):
        plugin.load(name)(space, oracle, 20, np.random.default_rng(0))


def test_identity_follows_the_file(write: Callable[..., str], tmp_path: Path) -> None:
    name = write(SOUND, "best_of_sample")
    assert plugin.identity("abs") == "abs"
    before = plugin.identity(name)
    assert before.startswith(f"{name} ")
    assert before.split()[1] == artifacts.sha256(SOUND.encode())[:16]


def test_comparison_with_a_shrinker_of_the_user(
    write: Callable[..., str], make_params: Callable[..., Params], tmp_path: Path
) -> None:
    name = write(SOUND, "best_of_sample")
    params = make_params(predictor__trees=40, compare__diversities=[0.05])
    listed = chosen(["lissnas", "no_neighbors"], None, [name])
    outcome = compare_stage(params, MACRO, listed, [0], tmp_path / "r", threads=1)
    rows = {r["method"]: r for r in outcome.csv("comparison.csv")}
    assert list(rows) == ["lissnas", "no_neighbors", name]
    assert rows[name]["size"] == rows["lissnas"]["size"] == 450
    assert 0 < rows[name]["queries"] <= rows["lissnas"]["queries"]
    assert rows[name]["labels"] == 300
    assert outcome.metrics["rivals"] == 2
    assert f"| {name} |" in (outcome.folder / "comparison.md").read_text()
    assert outcome.json("parameters.json")["methods"][:2] == ["lissnas", "no_neighbors"]
    assert outcome.json("parameters.json")["methods"][2] == plugin.identity(name)


# -- a method alone ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["abs", "score_all", "flops"])
def test_rival_alone_has_the_files_of_a_shrink(
    name: str, make_params: Callable[..., Params], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params, source = make_params(predictor__trees=40), Source.of(MACRO)
    outcome = shrink_stage(params, source, 3, tmp_path / "r", method=name, threads=1)
    m = outcome.metrics
    expected = {"metrics.json", "subspace.json", "subspace.parquet", "labels.parquet", "edf.png", "iterations.parquet"}
    assert artifacts.verify(outcome.folder).keys() >= expected
    assert (m["method"], m["stop"], m["labels"]) == (name, f"{name} returned its space", 300)
    assert "variant" not in m
    if name == "flops":
        assert m["queries"] == 0
        best = np.sort(MACRO.space.costs(MACRO.space.enumerate())["flops"])[-450:]
    if name == "score_all":
        assert m["queries"] == m["max_queries"] == 3_969
    assert m["queries"] <= m["max_queries"]
    result = lissnas.load_result(outcome.folder)
    members = result.subspace.members
    assert len(members) == m["size"] == result.subspace.size()
    assert m["mean_true"] == pytest.approx(MACRO(members).mean())
    if name == "flops":
        assert sorted(MACRO.space.costs(members)["flops"]) == best.tolist()
    predicted = outcome.table("subspace.parquet")["predicted"].to_numpy()
    assert (np.diff(predicted) <= 0).all()
    assert predicted == pytest.approx(result.predictor.value(result.predictor.score(members)))
    row = outcome.table("iterations.parquet").to_pylist()
    assert len(row) == 1
    assert (row[0]["size"], row[0]["queries"], row[0]["mean_true"]) == (m["size"], m["queries"], m["mean_true"])
    show_shrink(outcome)
    assert f"nas_bench_macro, seed 3, {name}" in capsys.readouterr().out
    assert shrink_stage(params, source, 3, tmp_path / "r", method=name, threads=1).reused
    with pytest.raises(UserError, match=r"other parameters \(method differ\)"):
        shrink_stage(params, source, 3, tmp_path / "r", threads=1)


def test_budget_is_what_lissnas_uses_or_the_given_one(make_params: Callable[..., Params]) -> None:
    iterations: list[int] = []
    quick = make_params(predictor__trees=40)
    problem = Problem.of(Source.of(MACRO), quick, 0, 1)
    by_rule = shrink_alone(problem, "no_neighbors", on_iteration=lambda s: iterations.append(s.iteration))
    assert len(iterations) > 1
    assert by_rule.queries == by_rule.budget < 2_000
    iterations.clear()
    problem = Problem.of(Source.of(MACRO), make_params(predictor__trees=40, shrink__max_queries=900), 0, 1)
    given = shrink_alone(problem, "no_neighbors", on_iteration=lambda s: iterations.append(s.iteration))
    assert given.queries == given.budget == 900
    assert not iterations


def test_shrinker_of_the_user_alone_on_labels(
    write: Callable[..., str], make_params: Callable[..., Params], tmp_path: Path
) -> None:
    from lissnas.shrinkers.description import Description

    name = write(SOUND, "best_of_sample")
    example = Path(lissnas.__file__).parent / "example"
    what = Description(space=str(example / "space.yaml"), labels=example / "labels.csv")
    params, source = what.load(None, {"predictor.trees": 40, "shrink.target_size": 300}, tmp_path / "r")
    outcome = shrink_stage(params, source, 0, tmp_path / "r", method=name, threads=1)
    assert outcome.metrics["size"] == 300
    assert outcome.metrics["mean_predicted"] > outcome.metrics["full_mean_predicted"]
    assert outcome.metrics["labels"] == 100
    assert (outcome.folder / "space.yaml").exists()
    assert json.loads((outcome.folder / "parameters.json").read_bytes())["method"] == plugin.identity(name)


def test_product_of_a_space_that_is_too_large_is_listed(make_params: Callable[..., Params]) -> None:
    space = ChoiceSpace("large", [4] * 20)
    source = from_space(space, scorer=SurrogateScorer(lambda rows: rows.sum(axis=1) / 7), oracle_id="sum")
    params = make_params(shrink__target_size=200, shrink__max_queries=5_000)
    found = shrink_alone(Problem.of(source, params, 0, 1), "abs")
    rows = found.shrunk.subspace.members
    values = [np.unique(column) for column in rows.T]
    assert len(rows) == np.prod([len(v) for v in values])  # the members are a whole product of choices
    assert len(np.unique(space.key(rows))) == len(rows)


def test_products_that_can_not_be_listed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lissnas.shrinkers import alone

    space = ChoiceSpace("large", [4] * 20)
    with pytest.raises(UserError, match=r"abs returned a product of 1,099,511,627,776 architectures of large"):
        alone._listed(Subspace(space, allowed=space.possible()), "abs")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lissnas", "it is the default; leave --method out"),
        ("lissnas_paper", "give --variant paper"),
        ("no_locality", "it runs in `lissnas compare` only"),
    ],
)
def test_variants_do_not_run_alone(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"--method {name}: {message}"):
        check_method(name)


def test_other_methods_that_do_not_run_alone(make_params: Callable[..., Params], tmp_path: Path) -> None:
    check_method(None)
    with pytest.raises(UnknownName, match=r"unknown method 'asb'. Did you mean 'abs'\?"):
        check_method("asb")
    params: Any = make_params(shrink__variant="paper")
    with pytest.raises(UserError, match="--variant paper is a variant of lissnas; remove it, or --method abs"):
        shrink_stage(params, Source.of(MACRO), 0, tmp_path / "r", method="abs")
    assert not (tmp_path / "r").exists()
