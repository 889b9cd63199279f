"""Comparison and locality on labels of the user: complete ones serve as a table, others are split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lissnas import artifacts, benchmarks
from lissnas.artifacts.stage_run import Outcome
from lissnas.config import Params
from lissnas.core.errors import UserError
from lissnas.shrinkers import held_out
from lissnas.shrinkers.comparison import FullSpaceStatistics, source_of, start_comparison
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.own_table import benchmark_of, n_learned, split, with_table
from lissnas.shrinkers.problem import Source, from_space
from lissnas.spaces import FloatArray
from lissnas.spaces.base import BoolArray
from lissnas.spaces.declared import parse_space
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from tests.small import LOCALITY

CHOICES = ("identity", "kernel3", "kernel5")
NAMES = [f"layer{i}" for i in range(8)]
MACRO = benchmarks.get("nas_bench_macro")
ROWS = MACRO.space.enumerate()


def declaration(direction: str = "maximize") -> str:
    """Return NAS-Bench-Macro as a declared space: constraints instead of equal functions, the same costs."""
    tables, shared = MACRO.space.cost_tables  # type: ignore[attr-defined]
    lines = [f"name: macro\nmetric: {{name: accuracy, direction: {direction}}}\npositions:"]
    lines += [f"  - {{name: {name}, choices: [{', '.join(CHOICES)}]}}" for name in NAMES]
    lines += ["constraints:"]
    lines += [f"  - {{if: {{{NAMES[i]}: identity}}, then: {{{NAMES[i + 1]}: identity}}}}" for i in (3, 6)]
    lines += ["costs:"]
    for at, cost in enumerate(("flops", "params")):
        lines += [f"  {cost}:", f"    base: {shared[at]}"]
        for name, table in zip(NAMES, tables, strict=True):
            lines += [f"    {name}: {{{', '.join(f'{c}: {n}' for c, n in zip(CHOICES, table[:, at], strict=True))}}}"]
    return "\n".join(lines)


def labels_of(path: Path, which: Sequence[int], sign: float = 1) -> Path:
    lines = [",".join([*NAMES, "accuracy"])]
    for i in which:
        lines.append(",".join([*(CHOICES[c] for c in ROWS[i]), repr(float(sign * MACRO(ROWS[i : i + 1])[0]))]))
    path.write_text("\n".join(lines))
    return path


EVERY = range(len(ROWS))
SPACE = parse_space(declaration(), "space.yaml")


def third(seed: int = 0) -> list[int]:
    """Return a third of the rows, drawn uniformly."""
    drawn: list[int] = np.sort(np.random.default_rng(seed).permutation(len(ROWS))[: len(ROWS) // 3]).tolist()
    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def complete(folder: Path) -> Source:
    return from_space(SPACE, labels_of(folder / "table.csv", EVERY))


@pytest.fixture(scope="module")
def partial(folder: Path) -> Source:
    return from_space(SPACE, labels_of(folder / "third.csv", third()))


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(
        predictor__trees=40, compare__diversities=[0.05], shrink__target_size=450, shrink__labels=300, benchmarks={}
    )


# -- complete labels ---------------------------------------------------------------------------------
def test_complete_labels_are_a_table(complete: Source, partial: Source) -> None:
    """The declared space has the keys and costs of the packaged one, so keys and values are the same."""
    source = with_table(complete)
    assert source.truth is not None
    assert source.labels is None
    assert source.truth.sha256 == MACRO.sha256
    assert source.truth.best == MACRO.best
    assert {c: v.tolist() for c, v in SPACE.costs(ROWS).items()} == {
        c: v.tolist() for c, v in MACRO.space.costs(ROWS).items()
    }
    assert with_table(source) is source
    assert with_table(partial) is partial
    missing = replace(partial.labels, archs=ROWS[1:], values=MACRO.values[1:])  # type: ignore[type-var]
    assert with_table(replace(partial, labels=missing)).truth is None


def test_values_of_a_minimized_metric_are_negated(folder: Path) -> None:
    space = parse_space(declaration("minimize"), "space.yaml")
    source = with_table(from_space(space, labels_of(folder / "losses.csv", EVERY, -1)))
    assert source.truth is not None
    assert (source.metric, source.truth.metric) == ("accuracy", "accuracy")
    assert (source.minimize, source.truth.minimize) == (True, True)
    assert source.truth.sha256 == MACRO.sha256


def test_labels_of_a_packaged_space_give_the_rows_of_its_benchmark(quick: Params, folder: Path, tmp_path: Path) -> None:
    """Byte by byte: the space is the same, and so are the random draws."""
    names = MACRO.space.format(ROWS)
    text = "\n".join(["arch,top1", *(f"{n},{float(v)!r}" for n, v in zip(names, MACRO(ROWS), strict=True))])
    (folder / "named.csv").write_text(text)
    source = from_space(MACRO.space, folder / "named.csv")
    methods = ["lissnas", "abs", "flops", "lissnas_collect"]
    own = compare_stage(quick, source, methods, [0], tmp_path / "own", threads=1)
    packaged = compare_stage(quick, MACRO, methods, [0], tmp_path / "packaged", threads=1)
    for file in ("comparison.csv", "summary.csv", "diversity.parquet", "spaces.parquet"):
        assert (own.folder / file).read_bytes() == (packaged.folder / file).read_bytes()


def test_declared_space_gives_nearly_the_rows_of_the_benchmark(quick: Params, complete: Source, tmp_path: Path) -> None:
    """Equal networks, values, thresholds and costs; neighbors, features and random draws differ slightly."""
    methods = ["lissnas", "abs", "greedynas", "top20", "flops", "score_all", "lissnas_collect"]
    own = compare_stage(quick, complete, methods, [0, 1], tmp_path / "own", threads=1)
    packaged = compare_stage(quick, MACRO, methods, [0, 1], tmp_path / "packaged", threads=1)
    a, b = own.csv("summary.csv"), packaged.csv("summary.csv")
    assert [r.keys() for r in a] == [r.keys() for r in b]
    for x, y in zip(a, b, strict=True):
        assert x["method"] == y["method"]
        assert x["mean_true"] == pytest.approx(y["mean_true"], abs=0.1)
        assert x["p_good"] == pytest.approx(y["p_good"], abs=0.06)
    flops = [next(r for r in rows if r["method"] == "flops") for rows in (a, b)]
    assert flops[0]["mean_true"] == flops[1]["mean_true"]  # it draws nothing
    tau = stats.kendalltau([r["mean_true"] for r in a], [r["mean_true"] for r in b]).statistic
    assert tau >= 0.7


# -- a part of the labels ----------------------------------------------------------------------------
def test_split_is_uniform_and_complete(partial: Source) -> None:
    one, other = split(partial, 300, 0), split(partial, 300, 1)
    assert partial.labels is not None
    n = len(partial.labels.archs)
    assert (len(one.learned), len(one.held_out)) == (300, n - 300)
    both = np.concatenate([SPACE.key(one.learned), SPACE.key(one.held_out)])
    assert sorted(both) == sorted(SPACE.key(partial.labels.archs))
    assert (one.held_out_values == MACRO.look_up(SPACE.key(one.held_out))).all()
    assert (one.learned_values == MACRO.look_up(SPACE.key(one.learned))).all()
    assert set(SPACE.key(one.learned)) != set(SPACE.key(other.learned))


@pytest.mark.parametrize(
    ("n", "overrides", "expected"),
    [
        (1323, {}, 596),  # 15 % of the space
        (400, {}, 200),  # at most half
        (40, {}, 20),
        (400, {"shrink__labels": 380}, 380),
        (400, {"shrink__labels": 381}, "leave 19 to evaluate methods on"),
        (39, {}, "39 labelled networks of macro; a comparison needs at least 40"),
        (45, {"shrink__target_size": 3}, r"of 23 held-out labels of macro, 0.02 are expected in a space of 3"),
    ],
)
def test_number_of_learned_labels(
    n: int, overrides: dict[str, Any], expected: int | str, make_params: Callable[..., Params], partial: Source
) -> None:
    assert partial.labels is not None
    labels = replace(partial.labels, archs=partial.labels.archs[:n], values=partial.labels.values[:n])
    source, params = replace(partial, labels=labels), make_params(benchmarks={}, **overrides)
    if isinstance(expected, int):
        assert n_learned(params, source) == expected
    else:
        with pytest.raises(UserError, match=expected):
            n_learned(params, source)


def test_oracle_next_to_labels_is_refused(partial: Source) -> None:
    with pytest.raises(UserError, match="methods are compared on the labels only"):
        source_of(replace(partial, oracle=MACRO))


def test_chosen_methods_of_labels(partial: Source) -> None:
    assert chosen("all", partial) == [name for name in METHODS if name not in ("lissnas_collect", "lapt")]
    with pytest.raises(UserError, match="lissnas_collect needs a table of true values, which macro lacks; remove it"):
        chosen(["lissnas_collect"], partial)


@pytest.fixture(scope="module")
def compared(quick: Params, partial: Source, folder: Path) -> Outcome:
    methods = ["lissnas", "abs", "greedynas", "top20", "flops", "score_all"]
    return compare_stage(quick, partial, methods, [0, 1], folder / "compared", threads=1)


def test_rows_are_of_held_out_members(compared: Outcome, partial: Source, quick: Params) -> None:
    rows = compared.table("comparison.parquet").to_pylist()
    assert [(r["method"], r["seed"]) for r in rows] == [
        *itertools.product(["lissnas", "abs", "greedynas", "top20", "flops", "score_all"], [0, 1])
    ]
    run = start_comparison(FullSpaceStatistics.of(partial), quick, 1, 1)
    for r in rows:
        assert r["held_out"] == len(ROWS) // 3 - 300
        assert r["labels"] == (0 if r["method"] == "flops" else 300)
        assert r["mean_true_low"] < r["mean_true"] < r["mean_true_high"]
        assert r["p_good_low"] <= r["p_good"] <= r["p_good_high"]
        assert r["ours_minus_low"] <= r["ours_minus"] <= r["ours_minus_high"]
        assert r["evaluated"] < r["size"] / 2
        if r["method"] == "lissnas":
            assert r["ours_minus"] == r["ours_minus_low"] == 0
    ours = {*SPACE.key(run.ours.subspace.members).tolist()}
    held = split(partial, 300, 1)
    values = [v for key, v in zip(SPACE.key(held.held_out).tolist(), held.held_out_values, strict=True) if key in ours]
    row = next(r for r in rows if (r["method"], r["seed"]) == ("lissnas", 1))
    assert row["evaluated"] == row["ours_evaluated"] == len(values)
    assert row["mean_true"] == pytest.approx(np.mean(values))


def test_intervals_contain_the_true_mean(compared: Outcome, quick: Params, partial: Source) -> None:
    """The labels are a uniform sample, so the mean of the whole space lies in most intervals."""
    run = start_comparison(FullSpaceStatistics.of(partial), quick, 0, 1)
    inside = []
    for r in compared.table("comparison.parquet").to_pylist():
        if r["seed"] == 0 and r["method"] in ("lissnas", "flops"):
            members = run.ours.subspace.members
            if r["method"] == "flops":
                members = ROWS[np.argsort(-SPACE.costs(ROWS)["flops"], kind="stable")[: r["size"]]]
            mean = MACRO(members).mean()
            inside.append(r["mean_true_low"] <= mean <= r["mean_true_high"])
    assert sum(inside) >= 1


def test_summary_page_and_metrics(compared: Outcome) -> None:
    summary = {r["method"]: r for r in compared.csv("summary.csv")}
    rows = compared.csv("comparison.csv")
    for name, r in summary.items():
        group = [x for x in rows if x["method"] == name]
        assert (r["seeds"], r["seeds_evaluated"]) == (2, 2)
        for column in ("mean_true", "mean_true_low", "ours_minus", "evaluated", "size"):
            assert r[column] == pytest.approx(np.mean([x[column] for x in group]))
    page = (compared.folder / "comparison.md").read_text()
    assert "1,323 of them with labels" in page
    assert "learns from 300 labels" in page
    assert "the other 1,023 are held out" in page
    assert compared.metrics["held_out"] == 1023
    assert artifacts.verify(compared.folder).keys() >= {"comparison.csv", "summary.csv", "comparison.md"}


def test_third_of_the_labels_ranks_methods_as_the_table_does(
    compared: Outcome, quick: Params, complete: Source, tmp_path: Path
) -> None:
    methods = [r["method"] for r in compared.csv("summary.csv")]
    whole = compare_stage(quick, complete, methods, [0, 1], tmp_path / "r", threads=1)
    means = [[r["mean_true"] for r in one.csv("summary.csv")] for one in (compared, whole)]
    assert stats.kendalltau(*means).statistic >= 0.7


def test_too_few_evaluated_members_have_no_mean(quick: Params, partial: Source, tmp_path: Path) -> None:
    """Some rows have one, depending on the seed: the summary is over those."""
    assert partial.labels is not None
    labels = replace(partial.labels, archs=partial.labels.archs[:400], values=partial.labels.values[:400])
    params = quick.model_copy(update={"shrink": quick.shrink.model_copy(update={"target_size": 60, "labels": 200})})
    outcome = compare_stage(params, replace(partial, labels=labels), ["lissnas", "abs"], [0, 1], tmp_path / "r")
    rows = outcome.table("comparison.parquet").to_pylist()
    assert all(r["evaluated"] < 10 for r in rows)
    assert all(r["mean_true"] is None and r["ours_minus"] is None for r in rows)
    assert outcome.csv("summary.csv")[1]["seeds_evaluated"] == 0
    assert outcome.metrics["mean_true"] == {"lissnas": None, "abs": None}
    page = (outcome.folder / "comparison.md").read_text()
    assert "| too few |" in page
    assert "- Fewer than 10 evaluated members, so not compared: abs." in page


def test_interrupted_comparison_on_labels_resumes_to_the_same_bytes(
    compared: Outcome, quick: Params, partial: Source, tmp_path: Path
) -> None:
    methods = [r["method"] for r in compared.csv("summary.csv")]
    started: list[str] = []

    def dying(step: Callable[..., Any], *args: Any, name: str = "") -> Any:
        if name == "greedynas seed 1":
            raise KeyboardInterrupt
        return step(*args)

    def counting(step: Callable[..., Any], *args: Any, name: str = "") -> Any:
        started.append(name)
        return step(*args)

    with pytest.raises(KeyboardInterrupt):
        compare_stage(quick, partial, methods, [0, 1], tmp_path / "r", call=dying, threads=1)
    lines: list[str] = []
    again = compare_stage(
        quick, partial, methods, [0, 1], tmp_path / "r", call=counting, on_progress=lines.append, threads=1
    )
    assert started == ["open seed 1", *(f"{name} seed 1" for name in ("greedynas", "top20", "flops", "score_all"))]
    assert [line.endswith("from before") for line in lines] == [*[True] * 8, *[False] * 4]
    assert artifacts.read_manifest(again.folder) == artifacts.read_manifest(compared.folder)


def bootstrap(values: FloatArray, ours: BoolArray, theirs: BoolArray) -> float:
    rng, gaps = np.random.default_rng(0), []
    for _ in range(2_000):
        drawn = rng.integers(0, len(values), len(values))
        gaps.append(values[drawn][ours[drawn]].mean() - values[drawn][theirs[drawn]].mean())
    return float(np.std(gaps))


@pytest.mark.parametrize("shared", [0, 40, 80])
def test_interval_of_a_difference_accounts_for_common_members(shared: int) -> None:
    """It equals that of a bootstrap over the held-out labels."""
    values = np.random.default_rng(1).normal(size=400)
    ours, theirs = np.zeros(400, bool), np.zeros(400, bool)
    ours[:80], theirs[80 - shared : 160 - shared] = True, True
    found = held_out._difference(values, ours, theirs)
    assert found["ours_minus"] == pytest.approx(values[ours].mean() - values[theirs].mean())
    assert found["ours_minus_high"] is not None
    assert found["ours_minus"] is not None
    half = found["ours_minus_high"] - found["ours_minus"]
    assert half == pytest.approx(1.96 * bootstrap(values, ours, theirs), rel=0.1, abs=1e-9)


# -- locality ----------------------------------------------------------------------------------------
def test_locality_of_complete_labels(
    complete: Source, partial: Source, make_params: Callable[..., Params], tmp_path: Path
) -> None:
    params = make_params(**{name.replace(".", "__"): value for name, value in LOCALITY.items()})
    about = locality_stage(params, benchmark_of(complete, False), tmp_path / "r").json("locality.json")
    assert (about["benchmark"], about["oracle"], about["max_edits"]) == ("macro", "table", 8)
    assert about["threshold_distance"] == 2
    with pytest.raises(UserError, match=r"macro has labels of 1,323 of 3,969 networks, and locality needs the value"):
        benchmark_of(partial, False)
    assert benchmark_of(partial, True).space is SPACE
    assert benchmark_of(Source.of(MACRO), False) is MACRO


def test_space_without_labels_has_no_locality() -> None:
    with pytest.raises(UserError, match="macro has no labels, and locality needs"):
        benchmark_of(Source("macro", SPACE, "accuracy", ""), True)
