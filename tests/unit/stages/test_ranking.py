"""The ranking stage end to end at tiny scale: resuming gives the same bytes, invalid input writes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
    nets,
    spaces,
)
from lissnas.artifacts.stage_run import Outcome  # noqa: E402
from lissnas.benchmarks import Benchmark  # noqa: E402
from lissnas.cli import options, render  # noqa: E402
from lissnas.config import Params, TrainingConfig  # noqa: E402
from lissnas.core.errors import ConfigError, UnknownName, UserError  # noqa: E402
from lissnas.metrics.quality import correlations  # noqa: E402
from lissnas.nets import images  # noqa: E402
from lissnas.nets.training import Progress  # noqa: E402
from lissnas.shrinkers import description  # noqa: E402
from lissnas.spaces import Archs  # noqa: E402
from lissnas.stages import ranking as stage  # noqa: E402
from lissnas.stages.ranking import can_run, markdown, rank, ranking_stage, shrunk_spaces, summarise  # noqa: E402
from tests.robustness.faults import FAST_PARAMS  # noqa: E402

MACRO = benchmarks.get("nas_bench_macro")
METHODS = ["full", "full_balanced", "lissnas", "abs"]
TINY: dict[str, Any] = {
    **FAST_PARAMS,
    "torch.threads": 1,
    "search.recalibration_batches": 1,
    "ranking.methods": METHODS,
    "ranking.benchmarks": {"nas_bench_macro": {"recipe": "cpu", "seeds": [0]}},
    "ranking.networks": 12,
    "recipes.cpu.steps": 6,
    "recipes.cpu.batch_size": 16,
    "recipes.cpu.checkpoint_every": 2,
    "recipes.cpu.report_every": 1,
    "recipes.cpu.warmup": 1,
}


def params_of(**changes: Any) -> Params:
    dotted = {k.replace("__", "."): v for k, v in changes.items()}
    return description.load_params(None, {**TINY, **dotted})


def entry(name: str = "nas_bench_macro", recipe: str = "cpu", seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"ranking__benchmarks": {name: {"recipe": recipe, "seeds": list(seeds)}}}


def ranked(params: Params, out: Path, benchmark: Benchmark = MACRO, **more: Any) -> Outcome:
    return ranking_stage(params, benchmark, out, threads=1, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != artifacts.RUN}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> Outcome:
    """Return the result of an uninterrupted run."""
    torch.set_num_threads(1)
    return ranked(params_of(), tmp_path_factory.mktemp("whole") / "r", on_progress=lines.append)


# -- results ----------------------------------------------------------------------------------------
def test_files_of_a_ranking(whole: Outcome, lines: list[str]) -> None:
    left = artifacts.verify(whole.folder)
    files = {"ranking.csv", "summary.csv", "scores.parquet", "ranking.md", "ranking.png", "metrics.json"}
    assert set(left) == files | {"parameters.json"}
    assert [p for p in whole.folder.parent.iterdir() if p.suffix != ".lock"] == [whole.folder]
    assert [line.split()[:2] for line in lines] == [[f"{i}/4", m] for i, m in enumerate(METHODS, 1)]


def test_rows_of_a_ranking_agree_with_the_scores(whole: Outcome) -> None:
    rows, scored = whole.csv("ranking.csv"), whole.table("scores.parquet").to_pylist()
    assert [(r["method"], r["sample"]) for r in rows] == [(m, s) for m in METHODS for s in ("own", "ours")]
    for r in rows:
        own = [s for s in scored if (s["method"], s["sample"]) == (r["method"], r["sample"])]
        score, true = (np.array([s[c] for s in own]) for c in ("score", "true"))
        assert r["networks"] == len(own) == len({s["arch"] for s in own}) <= 12
        assert (true == MACRO(MACRO.space.parse([s["arch"] for s in own]))).all()
        assert r["score_mean"] == pytest.approx(score.mean())
        if np.ptp(score) > 0 and len(own) > 2:
            for name, value in correlations(score, true).items():
                assert r[name] == pytest.approx(value)
        else:
            assert [r[c] for c in stage.COEFFICIENTS] == [None] * 3
        assert r["found_rank"] == 1 + int((MACRO.values > r["found_true"]).sum())
    assert rows[0]["size"] == MACRO.space.size()
    assert rows[0]["networks"] == 12


def test_all_methods_rank_the_same_networks_of_ours(whole: Outcome) -> None:
    scored = whole.table("scores.parquet").to_pylist()
    ours = {m: [s["arch"] for s in scored if (s["method"], s["sample"]) == (m, "ours")] for m in METHODS}
    assert len(ours["full"]) == 12
    assert ours["full"] == ours["full_balanced"] == ours["lissnas"]
    assert [a for a in ours["full"] if a in set(ours["abs"])] == ours["abs"]
    members = shrunk_spaces(params_of(), MACRO, 0, 1)
    for method, rows in members.items():
        if method == stage.OURS:
            continue
        keys = set(MACRO.space.key(rows).tolist())
        own = [s["arch"] for s in scored if (s["method"], s["sample"]) == (method, "own")]
        assert set(MACRO.space.key(MACRO.space.parse(own)).tolist()) <= keys


def test_balanced_paths_train_another_supernet_of_the_full_space(whole: Outcome) -> None:
    scored = whole.table("scores.parquet").to_pylist()
    by = {m: [(s["arch"], s["score"]) for s in scored if s["method"] == m] for m in METHODS}
    assert [a for a, _ in by["full"]] == [a for a, _ in by["full_balanced"]]
    assert by["full"] != by["full_balanced"]


def test_the_same_parameters_again_do_nothing(whole: Outcome) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("something was done")

    again = ranked(params_of(), whole.folder, on_progress=fail, on_training=fail, call=fail)
    assert again.reused
    assert again.metrics == whole.metrics


def test_a_ranking_is_printed(whole: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    render.show_ranking(whole)
    assert "Kendall" in capsys.readouterr().out


# -- interruptions -----------------------------------------------------------------------------------
class Killed(Exception):
    pass


class After:
    """Raise at the n-th call."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, *args: Any) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize(
    ("where", "n", "trained"),
    [
        # after the first task
        pytest.param("on_progress", 1, {"full_balanced", "lissnas", "abs"}, marks=pytest.mark.faults),
        pytest.param("on_progress", 4, set(), marks=pytest.mark.faults),  # all done, nothing published
        ("on_training", 10, {"full_balanced", "lissnas", "abs"}),  # in the second training, step 4
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    where: str, n: int, trained: set[str], whole: Outcome, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        ranked(params_of(), tmp_path / "r", MACRO, **{where: After(n)})
    assert not (tmp_path / "r").exists()
    trainings: list[tuple[str, int]] = []
    done = ranked(params_of(), tmp_path / "r", on_training=lambda what, p: trainings.append((what.split()[0], p.step)))
    assert contents(done.folder) == contents(whole.folder)
    assert {m for m, _ in trainings} == trained
    if where == "on_training":
        assert ("full_balanced", 1) not in trainings  # the training resumed
    assert [p for p in tmp_path.iterdir() if p.suffix != ".lock"] == [tmp_path / "r"]


@pytest.mark.faults
def test_a_run_killed_between_training_and_evaluation_does_not_train_again(
    whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(stage, "evolutionary_search", After(1))
        with pytest.raises(Killed):
            ranked(params_of(), tmp_path / "r")
    trainings: list[str] = []
    done = ranked(params_of(), tmp_path / "r", on_training=lambda what, p: trainings.append(what.split()[0]))
    assert contents(done.folder) == contents(whole.folder)
    assert "full" not in trainings


@pytest.mark.faults
def test_a_killed_run_with_other_parameters_starts_from_scratch(tmp_path: Path) -> None:
    few = {"ranking__methods": ["lissnas", "abs"], "ranking__networks": 4}
    with pytest.raises(Killed):
        ranked(params_of(**few), tmp_path / "r", on_progress=After(1))
    trainings: list[str] = []
    changed = params_of(**few, recipes__cpu__rate=0.2)
    done = ranked(changed, tmp_path / "r", on_training=lambda what, p: trainings.append(f"{what} {p.step}"))
    assert trainings[:1] == ["lissnas seed 0 1"]
    alone = ranked(changed, tmp_path / "alone")
    assert contents(done.folder) == contents(alone.folder)


def test_a_finished_task_is_reused_by_other_methods_and_seeds(tmp_path: Path) -> None:
    few = {"ranking__networks": 4, "recipes__cpu__steps": 2}
    with pytest.raises(Killed):
        ranked(params_of(**few, ranking__methods=["full", "abs"]), tmp_path / "r", on_progress=After(1))
    trainings: list[str] = []
    made = params_of(**few, ranking__methods=["lissnas", "full"])
    done = ranked(made, tmp_path / "r", on_training=lambda what, p: trainings.append(what))
    assert set(trainings) == {"lissnas seed 0"}
    assert [r["method"] for r in done.csv("summary.csv")] == ["lissnas", "lissnas", "full", "full"]


# -- other parameters --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        entry(seeds=(0, 1)),
        {"ranking__methods": ["full"]},
        {"ranking__networks": 13},
        {"recipes__cpu__rate": 0.2},
        {"supernet__width": 0.5},
        {"supernet__shots": 2},
        {"supernet__sampler": "fair"},
        {"search__images": 50},
        {"search__population": 5},
        {"images__seed": 1},
        {"shrink__target_size": 61},
        {"predictor__trees": 31},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_result_of_other_parameters_is_not_replaced(changes: dict[str, Any], whole: Outcome) -> None:
    before = contents(whole.folder)
    with pytest.raises(UserError, match="holds the result of other parameters"):
        ranked(params_of(**changes), whole.folder)
    assert contents(whole.folder) == before


def test_parameters_of_the_paper_s_loop_are_checked(tmp_path: Path) -> None:
    few = {"ranking__methods": ["lissnas_paper"], "ranking__networks": 3, "recipes__cpu__steps": 2}
    ranked(params_of(**few), tmp_path / "r")
    with pytest.raises(UserError, match="holds the result of other parameters"):
        ranked(params_of(**few, shrink__paper__neighbors=3), tmp_path / "r")


def test_force_starts_from_scratch(tmp_path: Path) -> None:
    few = {"ranking__methods": ["lissnas"], "ranking__networks": 3, "recipes__cpu__steps": 2}
    done = ranked(params_of(**few), tmp_path / "r")
    before = contents(done.folder)
    with pytest.raises(Killed):
        ranked(params_of(**few), tmp_path / "r", on_progress=After(1), force=True)
    trainings: list[str] = []
    ranked(params_of(**few), tmp_path / "r", on_training=lambda what, p: trainings.append(what), force=True)
    assert len(trainings) == 2
    assert contents(done.folder) == before


# -- invalid input -----------------------------------------------------------------------------------
def nothing_written(folder: Path) -> bool:
    return [p for p in folder.rglob("*") if p.suffix not in (".lock", ".holder")] == []


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        (entry(recipe="gpu"), "nas_bench_macro", r"unknown recipe in ranking\.benchmarks\.nas_bench_macro.* 'gpu'"),
        ({}, "transnas_micro/jigsaw", r"ranking\.benchmarks has no entry for transnas_micro/jigsaw; add"),
        (entry("transnas_macro/jigsaw"), "transnas_macro/jigsaw", "unknown space with networks 'transnas_macro'"),
        ({"shrink__target_size": 4_000}, "nas_bench_macro", "target_size"),
        ({"recipes__cpu__batch_size": 9_900}, "nas_bench_macro", "batch_size: 9900 images are more than"),
        ({"recipes__cpu__ghost_batch": 5}, "nas_bench_macro", "ghost_batch"),
        ({"images__side": 12}, "nas_bench_macro", "can't be reduced to 12"),
        ({"images__validation": 10_000}, "nas_bench_macro", "can't be held out"),
        ({"torch__device": "gpu"}, "nas_bench_macro", "device"),
    ],
)
def test_invalid_input_is_refused_before_anything_is_written(
    changes: dict[str, Any], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        ranked(params_of(**changes), tmp_path / "r", benchmarks.get(name))
    assert nothing_written(tmp_path)


def test_an_unknown_method_is_named_when_parameters_are_loaded() -> None:
    with pytest.raises(ConfigError, match=r"ranking\.methods\.1: unknown method 'lisnas'.* Did you mean 'lissnas'"):
        params_of(ranking__methods=["full", "lisnas"])
    with pytest.raises(ConfigError, match=r"ranking\.benchmarks\.nas_bench_makro: unknown benchmark"):
        params_of(**entry("nas_bench_makro"))
    wrong: list[dict[str, Any]] = [{"ranking__methods": []}, {"ranking__networks": 2}]
    for changes in (*wrong, entry(seeds=()), entry(seeds=(-1,))):
        with pytest.raises(ConfigError, match=next(iter(changes)).replace("__", r"\.")):
            params_of(**changes)


def test_an_unknown_method_that_was_not_checked_before_writes_nothing(tmp_path: Path) -> None:
    params = params_of()
    params = params.model_copy(update={"ranking": params.ranking.model_copy(update={"methods": ["full", "lisnas"]})})
    with pytest.raises(UnknownName, match="unknown method 'lisnas'"):
        ranked(params, tmp_path / "r")
    assert nothing_written(tmp_path)


def test_methods_and_seeds_of_the_command_line() -> None:
    found = options.ranking_overrides("nas_bench_macro", " full, abs ,", "0-2,1")
    params = description.load_params(None, {**TINY, **found})
    assert params.ranking.methods == ["full", "abs"]
    assert params.ranking.benchmarks["nas_bench_macro"].seeds == [0, 1, 2]
    assert options.ranking_overrides("nas_bench_macro", None, None) == {}
    with pytest.raises(UserError, match="--seeds"):
        options.ranking_overrides("nas_bench_macro", None, "one")


# -- can_run -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("name", ["nas_bench_macro", "nasbench101", "transnas_micro", "shufflenetv2"])
def test_can_run_returns_exactly_what_forward_accepts(name: str, shots: int) -> None:
    space = spaces.get(name)
    rng = np.random.default_rng(1)
    built = space.sample_distinct(2, rng)
    rows = np.concatenate([built, space.mutate(built.repeat(20, axis=0), np.full(40, 1), rng), space.sample(5, rng)])
    model = nets.supernet(name, built, width=0.25, stem_stride=1, classes=10, shots=shots).eval()
    accepted = []
    for row in rows:
        try:
            accepted.append(model(torch.zeros(2, 3, 16, 16), row).shape == (2, 10))
        except UserError:
            accepted.append(False)
    runs = can_run(model, rows, 8)
    assert (runs == rows[accepted]).all()
    assert 2 <= len(runs) < len(rows)
    assert can_run(model, rows[:0], 8).shape == (0, space.genome_len)


def test_can_run_does_not_change_the_supernet() -> None:
    model = nets.supernet("nas_bench_macro", width=0.25, stem_stride=1, classes=10).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    can_run(model, MACRO.space.enumerate()[:20], 8)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# -- coefficients that are undefined -----------------------------------------------------------------
def cells(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the cells of a CSV file as text, by column."""
    head, *rest = [line.split(",") for line in (folder / name).read_text().splitlines()]
    names = [h.strip('"') for h in head]
    return [dict(zip(names, (c.strip('"') for c in row), strict=True)) for row in rest]


class Constant:
    """An oracle with equal values for all networks."""

    @classmethod
    def of(cls, *args: Any) -> Callable[[Archs], Any]:
        return lambda archs: np.full(len(archs), 10.0)


def test_coefficients_of_constant_scores_are_empty_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "SupernetOracle", Constant)
    lines: list[str] = []
    few = {"ranking__methods": ["lissnas", "full"], "ranking__networks": 4, "recipes__cpu__steps": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = ranked(params_of(**few, **entry(seeds=(0, 1))), tmp_path / "r", on_progress=lines.append)
    for name in ("ranking.csv", "summary.csv"):
        for row in cells(done.folder, name):
            assert [row[c] for c in stage.COEFFICIENTS] == [""] * 3
            assert float(row["score_mean"]) == 10
        assert "nan" not in (done.folder / name).read_text().lower().replace("lissnas", "")
    assert all(r["kendall"] is r["kendall_least"] is r["kendall_most"] is None for r in done.csv("summary.csv"))
    assert done.metrics["kendall"] == {}
    assert "| undefined | undefined | undefined |" in (done.folder / "ranking.md").read_text()
    assert all("undefined" in line for line in lines)
    render.show_ranking(done)
    assert "nan" not in capsys.readouterr().out.lower().replace("lissnas", "")


def test_coefficients_of_a_table_of_equal_values_are_undefined(tmp_path: Path) -> None:
    flat = dataclasses.replace(MACRO, values=np.full(len(MACRO.values), 90.0))
    with pytest.raises(UserError, match="all 3,969 values are 90"):
        ranked(params_of(), tmp_path / "r", flat)
    assert nothing_written(tmp_path)


def no_watch(progress: Progress) -> None:
    pass


def rank_sets(members: Archs, ours: Archs, folder: Path, **changes: Any) -> dict[str, Any]:
    params = params_of(**{"recipes__cpu__steps": 2, **changes})
    recipe: TrainingConfig = params.recipes["cpu"]
    checkpoint = artifacts.Checkpoint(folder / "t", {})
    return rank(params, MACRO, members, ours, "abs", 0, recipe, checkpoint, no_watch)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_a_supernet_that_runs_none_of_our_networks_has_no_mean_score(tmp_path: Path) -> None:
    members, ours = MACRO.space.parse(["11111111", "11111110"]), MACRO.space.parse(["22222222", "22222221", "22222220"])
    found = rank_sets(members, ours, tmp_path)
    assert [r["networks"] for r in found["rows"]] == [2, 0]
    assert not [k for r in found["rows"] for k, v in r.items() if isinstance(v, float) and math.isnan(v)]
    assert "nan" not in artifacts.to_csv(found["rows"]).decode()


def test_one_or_two_networks_have_no_correlation(tmp_path: Path) -> None:
    members = MACRO.space.parse(["11111111", "11111110", "22222222"])
    found = rank_sets(members, members[:1], tmp_path)
    assert [r["networks"] for r in found["rows"]] == [3, 1]
    assert [found["rows"][1][c] for c in stage.COEFFICIENTS] == [None] * 3
    again = rank_sets(members[:2], members[:2], tmp_path / "two")
    assert all(r[c] is None for r in again["rows"] for c in stage.COEFFICIENTS)


def test_only_networks_that_the_supernet_has_are_ranked(tmp_path: Path) -> None:
    members = MACRO.space.parse(["11111111", "22222222", "12121212"])
    ours = MACRO.space.parse(["11112222", "00000000", "21212121", "11111100", "22222211"])
    found = rank_sets(members, ours, tmp_path)
    assert {s["arch"] for s in found["scored"] if s["sample"] == "ours"} == {"11112222", "21212121", "22222211"}
    assert found["rows"][1]["networks"] == 3
    json.dumps(found, allow_nan=False)


def test_a_budget_smaller_than_a_generation_still_searches(tmp_path: Path) -> None:
    members = MACRO.space.enumerate()[::40]
    found = rank_sets(members, members, tmp_path, ranking__networks=3, search__population=10)
    assert found["rows"][0]["found_of"] == 10
    params = params_of()
    scored = {s["arch"]: s["true"] for s in found["scored"]}
    assert all(MACRO(MACRO.space.parse([a]))[0] == t for a, t in scored.items())
    assert images.load(params.images, params.recipes["cpu"]).side == 8


# -- summaries ---------------------------------------------------------------------------------------
def a_row(method: str, sample: str, seed: int, kendall: float | None, **more: Any) -> dict[str, Any]:
    about = {"size": 60, "networks": 12, "space_mean_true": 90.0, "score_mean": 11.0, "found_true": 91.0}
    coefficients = {"pearson": kendall, "spearman": kendall, "kendall": kendall, "found_rank": 3}
    return {"method": method, "sample": sample, "seed": seed, **about, **coefficients, **more}


def test_a_summary_is_the_mean_over_seeds_with_a_defined_coefficient() -> None:
    rows = [
        a_row("full", "own", 0, 0.2, size=10),
        a_row("full", "ours", 0, None),
        a_row("full", "own", 1, None, size=20),
        a_row("full", "ours", 1, None),
        a_row("full", "own", 2, 0.6, size=30, pearson=None),
        a_row("abs", "own", 0, -0.0),
    ]
    own, ours, other = summarise(rows)
    assert (own["method"], own["sample"], own["seeds"], own["size"]) == ("full", "own", 3, 20)
    assert own["kendall"] == pytest.approx(0.4)
    assert (own["kendall_least"], own["kendall_most"]) == (0.2, 0.6)
    assert own["pearson"] == pytest.approx(0.2)
    assert [ours[c] for c in (*stage.COEFFICIENTS, "kendall_least", "kendall_most")] == [None] * 5
    assert ours["seeds"] == 2
    assert (other["kendall"], other["kendall_least"]) == (0, 0)  # zero is defined
    text = markdown(params_of(), MACRO, "cpu", [own, ours, other])
    assert "0.400 (0.200 to 0.600)" in text
    assert text.count("undefined") == 3
    assert artifacts.to_csv([ours]).decode().count("nan") == 0
    assert summarise([]) == []


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(METHODS), st.sampled_from(["own", "ours"]), st.none() | st.floats(-1, 1, allow_nan=False)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_summaries_of_undefined_coefficients_are_empty(found: list[tuple[str, str, float | None]]) -> None:
    rows: list[Mapping[str, Any]] = [a_row(m, s, seed, k) for seed, (m, s, k) in enumerate(found)]
    made = summarise(rows)
    assert [(r["method"], r["sample"]) for r in made] == list(dict.fromkeys((m, s) for m, s, _ in found))
    for r in made:
        values = [k for m, s, k in found if (m, s) == (r["method"], r["sample"]) and k is not None]
        if values:
            assert r["kendall_least"] == min(values)
            assert r["kendall_most"] == max(values)
            assert r["kendall"] == pytest.approx(sum(values) / len(values))
        else:
            assert r["kendall"] is None
        assert not any(isinstance(v, float) and math.isnan(v) for v in r.values())


def test_ranking_is_in_the_packaged_parameters() -> None:
    params = config.load(None, {}, benchmarks.names())
    assert {ranked.recipe for ranked in params.ranking.benchmarks.values()} <= set(params.recipes)
