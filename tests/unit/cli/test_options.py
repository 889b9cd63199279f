from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lissnas import config
from lissnas.cli import options, render
from lissnas.cli.options import SearchSettings, Settings, ShrinkSettings, SourceOptions
from lissnas.core.errors import ConfigError, UserError
from lissnas.shrinkers import description
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.methods import METHODS


def test_overrides_parse_assignments_as_yaml_and_map_options_to_dotted_paths() -> None:
    given = ["shrink.labels=30", "predictor.eta=1e-2", "pipeline.seeds=[0, 3]", "shrink.target_size=null"]
    found = ShrinkSettings(assignments=[*given, "images.folder=a=b"], label_budget=40, diversity=0.0).overrides()
    assert found == {
        "shrink.labels": 40,  # the dedicated option takes precedence
        "predictor.eta": 0.01,
        "pipeline.seeds": [0, 3],
        "shrink.target_size": None,
        "images.folder": "a=b",
        "shrink.method.diversity": 0.0,
    }
    assert Settings().overrides({"a.b": 1}) == {"a.b": 1}


@pytest.mark.parametrize(
    "text", ["shrink.labels", "shrink=1", "=1", "shrink.=1", "shrink.labels=[1", "shrink.labels=*a"]
)
def test_an_invalid_assignment_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--set"):
        Settings(assignments=[text]).overrides()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("srink.labels=30", "srink: unknown section 'srink'. Did you mean 'shrink'?"),
        ("shrink.lables=30", "shrink.lables: unknown key 'lables'. Did you mean 'labels'?"),
        ("shrink.method.neighbours=3", "shrink.elite.neighbours: unknown key 'neighbours'. Did you mean 'neighbors'?"),
        ("recipes.cpu.step=3", "recipes.cpu.step: unknown key 'step'. Did you mean 'steps'?"),
        (
            "benchmarks.nasbench101.label=30",
            "benchmarks.nasbench101.label: unknown key 'label'. Did you mean 'labels'?",
        ),
        ("benchmarks.nasbench11.labels=30", "benchmarks.nasbench11: unknown benchmark 'nasbench11'. Did you mean"),
        ("shrink.labels.x=30", "shrink.labels.x: shrink.labels is not a section"),
        ("predictor.trees=many", "predictor.trees: Input should be a valid integer, found 'many' (option --set)"),
        ("predictor.trees=0", "predictor.trees: Input should be greater than or equal to 1, found 0 (option --set)"),
    ],
)
def test_a_wrong_assignment_is_named_with_the_nearest_known_name(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        description.load_params(None, Settings(assignments=[text]).overrides())
    (found,) = caught.value.problems
    assert found.startswith(line)


def test_a_wrong_value_of_an_option_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"shrink\.labels: .*found 3 \(option --label-budget\)"):
        description.load_params(None, ShrinkSettings(label_budget=3).overrides())


def test_every_option_of_a_parameter_has_a_path_of_the_schema() -> None:
    groups = {g for g in vars(options).values() if isinstance(g, type) and issubclass(g, Settings)}
    assert len(groups) == 7
    for group in groups:
        own = {f.name for f in fields(group)} - {"params", "assignments"}
        given: dict[str, Any] = dict.fromkeys(own, 1)
        assert len(group(**given).overrides()) == len(own)
    found = description.load_params(None, SearchSettings(source="cifar10", by="table").overrides())
    assert (found.images.source, found.search.by) == ("cifar10", "table")


def test_the_methods_of_the_help_are_those_of_the_comparison() -> None:
    assert options.METHODS.split(", ") == list(METHODS)
    assert options.MAX_THREADS == config.schema.MAX_THREADS


def test_later_files_override_earlier_ones_over_the_built_in_values(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("shrink: {labels: 30, elite: {neighbors: 3}}\npipeline: {seeds: [5]}\n")
    (tmp_path / "b.yaml").write_text("shrink: {labels: 40}\nbenchmarks: {fairnas: {width: null}}\n")
    plain = description.load_params(None, {})
    found = description.load_params([Path("a.yaml"), Path("b.yaml")], {"shrink.max_queries": 9_000})
    assert (found.shrink.labels, found.shrink.elite.neighbors, found.shrink.max_queries) == (40, 3, 9_000)
    assert found.pipeline.seeds == [5]  # lists are replaced
    assert found.shrink.elite.max_edits == plain.shrink.elite.max_edits
    assert found.benchmarks["fairnas"].target_size == plain.benchmarks["fairnas"].target_size
    assert description.load_params([], {}) == description.load_params(None, {}) == plain
    with pytest.raises(ConfigError, match=r"^a\.yaml, b\.yaml: 1 problem"):
        description.load_params([Path("a.yaml"), Path("b.yaml")], {"shrink.labels": 1})


def test_a_params_yaml_of_another_tool_is_ignored(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("train: {epochs: 3}\n")
    assert description.load_params(None, {}).shrink.labels is None
    (tmp_path / "params.yaml").write_text("train: {epochs: 3}\nshrink: {labels: 30}\n")
    with pytest.raises(ConfigError, match=r"params\.yaml \(.*\): 1 problem\n  train: unknown section 'train'"):
        description.load_params(None, {})
    (tmp_path / "params.yaml").write_text("train: {epochs: 3}\n")
    with pytest.raises(ConfigError, match="expected sections pipeline"):
        description.load_params(tmp_path / "params.yaml", {})


RECIPES = "recipes: {quick: {base: short, rate: 0.5}, short: {base: cpu, steps: 3}}\n"


def test_a_recipe_inherits_from_its_base(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPES)
    recipes = description.load_params(path, {"recipes.cpu.batch_size": 7}).recipes
    assert recipes["quick"] == recipes["cpu"].model_copy(update={"steps": 3, "rate": 0.5})
    assert recipes["short"].batch_size == 7
    # A recipe with a base replaces the built-in recipe of that name: nothing is merged.
    path.write_text("recipes: {cpu_label: {base: cpu, steps: 3}}\n")
    recipes = description.load_params(path, {}).recipes
    assert recipes["cpu_label"] == recipes["cpu"].model_copy(update={"steps": 3})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: {base: cpuu}", ["recipes.a.base: unknown recipe 'cpuu'. Did you mean 'cpu'?"]),
        ("b: {base: a}, a: {base: cpuu}", ["recipes.a.base: unknown recipe 'cpuu'. Did you mean 'cpu'?"]),
        ("a: {base: [cpu]}", ["recipes.a.base: unknown recipe"]),
        ("a: {base: a}", ["recipes.a.base: cycle a -> a"]),
        ("a: {base: b}, b: {base: a}", ["recipes.a.base: cycle a -> b -> a", "recipes.b.base: cycle b -> a -> b"]),
        ("a: {base: cpu, stepz: 3}", ["recipes.a.stepz: unknown key 'stepz'. Did you mean 'steps'?"]),
        ("a: {steps: 3, base: b}, b: 3", ["recipes.a", "recipes.b"]),
    ],
)
def test_a_wrong_base_is_named(tmp_path: Path, text: str, lines: list[str]) -> None:
    (tmp_path / "r.yaml").write_text(f"recipes: {{{text}}}\n")
    with pytest.raises(ConfigError) as caught:
        description.load_params(tmp_path / "r.yaml", {})
    assert len(caught.value.problems) == len(lines)
    for found, line in zip(caught.value.problems, lines, strict=True):
        assert found.startswith(line)


def test_a_problem_in_a_base_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "recipes: {a: {base: b}, b: {base: cpu, steps: x, stepz: 1}, c: {base: a, steps: y}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        description.load_params(tmp_path / "r.yaml", {})
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "recipes.b.steps",
        "recipes.b.stepz",
        "recipes.c.steps",
    ]


def test_the_options_of_a_source_are_the_fields_of_a_description() -> None:
    assert vars(SourceOptions()) == vars(Description())


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (423_624, "423,624"),
        (7_371**5, "21,758,655,492,572,485,851"),
        (10**21 - 1, "999,999,999,999,999,999,999"),
        (10**21, "1e21"),
        (151_858_100_636_256_657_146_478_033_822_541_506, "1.52e35"),
    ],
)
def test_long_counts_are_rounded(n: int, text: str) -> None:
    assert render.count_text(n) == text
