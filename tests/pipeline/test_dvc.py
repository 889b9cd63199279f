"""The DVC pipeline: its stages, an up-to-date dvc.lock, and the stages that a changed parameter reruns."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from lissnas.stages.report.stage import STUDIES

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("nasbench101", "nas_bench_macro", "transnas/class_scene")


def each(stage: str) -> set[str]:
    return {f"{stage}@{b}" for b in BENCHMARKS}


SHRINKS = {f"shrink@{b}-{s}" for b in BENCHMARKS for s in (0, 1, 2)}
PREDICTORS = each("predictor")
COMPARES = each("compare")
SUPERNET, SEARCH, RETRAIN, RANKING = ({f"{s}@nas_bench_macro"} for s in ("supernet", "search", "retrain", "ranking"))
ONE_SHOT = SUPERNET | SEARCH | RETRAIN | RANKING
STAGES = each("prepare") | PREDICTORS | each("locality") | SHRINKS | COMPARES | ONE_SHOT | {"report"}


def dvc(cwd: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone with the pipeline's files in git: metrics and studies, without the outputs in DVC's cache."""
    where = tmp_path_factory.mktemp("dvc") / "clone"
    where.mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, where / name)
    for name in ("lissnas", "flows", ".dvc", "studies/results"):
        skip = shutil.ignore_patterns("__pycache__", "cache", "tmp")
        shutil.copytree(ROOT / name, where / name, ignore=skip)
    for stage in YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"].values():
        for out in stage["outs"]:
            if out["path"].endswith("/metrics.json"):
                (where / out["path"]).parent.mkdir(parents=True)
                shutil.copy(ROOT / out["path"], where / out["path"])
    subprocess.run(["git", "init", "-q"], cwd=where, check=True)
    return where


def changed_by_params(clone: Path) -> set[str]:
    """Return the stages with a parameter whose value differs from dvc.lock."""
    with chdir(clone), Repo() as repo:
        status = repo.status()
    changes = {s: [c for c in found if isinstance(c, dict)] for s, found in status.items()}
    return {s for s, found in changes.items() if any("params.yaml" in c.get("changed deps", {}) for c in found)}


def would_run(clone: Path) -> set[str]:
    """Return the stages that `dvc repro` would run if all outputs of dvc.lock existed."""
    text = dvc(clone, "repro", "--dry", "--allow-missing")
    return set(re.findall(r"Running stage '([^']+)'", text))


def test_stages_match_the_matrix(clone: Path) -> None:
    assert set(dvc(clone, "stage", "list", "--name-only").split()) == STAGES


def test_committed_lock_matches_code_and_parameters(clone: Path) -> None:
    assert would_run(clone) == set()


def test_report_depends_on_its_inputs() -> None:
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    inputs = {f"data/{stage}/{b}" for stage in ("compare", "locality") for b in params["pipeline"]["benchmarks"]}
    inputs |= {f"data/ranking/{b}" for b in params["ranking"]["benchmarks"]}
    files = {f"{folder}/manifest.json" for folder in inputs} | {f"studies/results/{name}.csv" for name in STUDIES}
    declared = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["deps"]
    assert {d for d in declared if not d.startswith("lissnas/")} == files


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("trees: 300", "trees: 301", SHRINKS | PREDICTORS | COMPARES | RANKING),
        ("held_out: 20000", "held_out: 19999", PREDICTORS),
        ("diversity: 0.05", "diversity: 0.06", SHRINKS | COMPARES | RANKING),
        ("seed_fraction: 0.5", "seed_fraction: 0.4", SHRINKS | COMPARES | RANKING),
        ("max_queries: null", "max_queries: 90000", SHRINKS | COMPARES | RANKING),
        (
            "tolerance: 0.02",
            "tolerance: 0.03",
            COMPARES | RANKING,
        ),  # of the variant that shrink does not run
        ("pairs: 20000", "pairs: 10000", each("locality")),
        ("resamples: 1000", "resamples: 999", each("locality")),
        ("    - padnas\n", "", COMPARES),
        ("diversities: [0.0, ", "diversities: [0.1, ", COMPARES),
        ("seeds: [0, 1, 2]", "seeds: [0, 2, 1]", PREDICTORS | COMPARES),
        ("  labels: null             #", "  labels: 250 #", SHRINKS | PREDICTORS | COMPARES | RANKING),
        (
            "{target_size: 450, labels: 300",
            "{target_size: 451, labels: 300",
            {"compare@nas_bench_macro", *RANKING, *(f"shrink@nas_bench_macro-{s}" for s in (0, 1, 2))},
        ),
        (
            "{target_size: 450, labels: 300",
            "{target_size: 450, labels: 301",
            {
                *RANKING,
                "predictor@nas_bench_macro",
                "compare@nas_bench_macro",
                *(f"shrink@nas_bench_macro-{s}" for s in (0, 1, 2)),
            },
        ),
        ("transnas/jigsaw: {target_size: 1000", "transnas/jigsaw: {target_size: 999", set()),
        ("labels: 300, width: 0.5", "labels: 300, width: 0.25", SUPERNET | RETRAIN | RANKING),
        ("steps: 450", "steps: 451", ONE_SHOT),  # the base of the retraining recipe
        ("steps: 60 ", "steps: 61 ", RETRAIN),
        ("threads: 1 ", "threads: 2 ", set()),
        ("side: 16", "side: 8", ONE_SHOT),
        ("generations: 6", "generations: 7", SEARCH | RANKING),
        ("networks: 5 ", "networks: 4 ", RETRAIN),
        ("networks: 60 ", "networks: 50 ", RANKING),
    ],
)
def test_changed_parameter_reruns_its_stages(clone: Path, old: str, new: str, stages: set[str]) -> None:
    path = clone / "params.yaml"
    before = path.read_text()
    assert old in before
    try:
        path.write_text(before.replace(old, new, 1))
        assert changed_by_params(clone) == stages
    finally:
        path.write_text(before)


def test_stage_with_a_recipe_depends_on_its_bases() -> None:
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage in ("supernet", "search", "retrain"):
        section = "retrain" if stage == "retrain" else "supernet"
        assert f"recipes.${{{section}.recipe}}" in stages[stage]["params"]
        recipe = params["recipes"][params[section]["recipe"]]
        while base := recipe.get("base"):
            assert f"recipes.{base}" in stages[stage]["params"], stage
            recipe = params["recipes"][base]
    for ranked in params["ranking"]["benchmarks"].values():
        assert "base" not in params["recipes"][ranked["recipe"]]
