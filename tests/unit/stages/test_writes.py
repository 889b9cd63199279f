"""Each stage knows the names of its files, and refuses a user's file of such a name before any work."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.artifacts import read_manifest
from lissnas.artifacts.stage_run import PARAMETERS, Outcome, run
from lissnas.config import Params
from lissnas.core.errors import UserError
from lissnas.oracles.label_table import Labels
from lissnas.oracles.reuse import Reuse
from lissnas.shrinkers import result
from lissnas.shrinkers.problem import Source, from_space
from lissnas.stages import compare, label, locality, predictor, prepare, search, shrink
from tests.small import LOCALITY

MACRO = benchmarks.get("nas_bench_macro")
ROWS = MACRO.space.enumerate()[::9]
LABELLED = from_space(MACRO.space, Labels(ROWS, MACRO(ROWS), np.ones(len(ROWS), np.int64), "accuracy", {}))
METHODS = ["lissnas", "abs"]
Stage = Callable[..., Outcome]

STAGES: dict[str, tuple[tuple[str, ...], Stage]] = {
    "prepare": (prepare.WRITES, lambda params, out, **how: prepare.data_stage(MACRO, out, **how)),
    "predictor": (
        predictor.WRITES,
        lambda params, out, **how: predictor.predictor_stage(params, MACRO, out, **how),
    ),
    "locality": (locality.WRITES, lambda params, out, **how: locality.locality_stage(params, MACRO, out, **how)),
    "shrink": (
        result.WRITES,
        lambda params, out, **how: shrink.shrink_stage(params, Source.of(MACRO), 0, out, **how),
    ),
    "shrink by abs": (
        result.WRITES,
        lambda params, out, **how: shrink.shrink_stage(params, LABELLED, 0, out, method="abs", **how),
    ),
    "compare": (
        compare.WRITES,
        lambda params, out, **how: compare.compare_stage(params, MACRO, METHODS, [0], out, **how),
    ),
    "compare on labels": (
        compare.WRITES,
        lambda params, out, **how: compare.compare_stage(params, LABELLED, METHODS, [0], out, **how),
    ),
    "search": (
        search.WRITES,
        lambda params, out, **how: search.search_stage(
            *(params, MACRO.space, ROWS[:60], search.SearchOracle(MACRO, "digest", "accuracy"), 0, out), **how
        ),
    ),
    "label": (
        label.WRITES,
        lambda params, out, call=None, force=False: label.label_stage(
            *(params, MACRO.space, 0, out),
            archs=MACRO.space.format(ROWS[:2]),
            program="echo 1",
            runner=None if call is None else fail,
            reuse=Reuse(force=force),
        ),
    ),
}


def fail(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("the work was started")


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    small = {name.replace(".", "__"): value for name, value in LOCALITY.items()}
    return make_params(
        **small,
        predictor__trees=20,
        compare__diversities=[0.05],
        shrink__target_size=200,
        shrink__labels=100,
        benchmarks={},
        pipeline__seeds=[0],
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_users_file_is_refused_before_the_work(stage: str, tmp_path: Path, quick: Params) -> None:
    writes, start = STAGES[stage]
    for pattern in writes:
        if pattern == "metrics.json":
            continue
        out, name = tmp_path / pattern.replace("/*", ""), pattern.replace("*", "mine")
        run(out, {"of": "another stage"}, lambda: {"metrics.json": b"{}"})
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(UserError, match=f"has a file {name} that lissnas did not make"):
            start(quick, out, call=fail, force=True)
        assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_only_files_of_these_names(stage: str, tmp_path: Path, quick: Params) -> None:
    writes, start = STAGES[stage]
    outcome = start(quick, tmp_path / "out")
    made = {*(read_manifest(outcome.folder) or {})} - {PARAMETERS}
    assert made
    assert not {name for name in made if not any(fnmatchcase(name, pattern) for pattern in writes)}
