"""The committed parameter files: one schema, two equal copies of the defaults, overlays that only override."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from lissnas import artifacts
from lissnas.config import BenchmarkConfig, Params
from lissnas.shrinkers import description

ROOT = Path(__file__).parents[3]
OVERLAYS = ("params.study.yaml", "params.imagenet.yaml")
RESOLVED = {
    "params.yaml": "30df5b9e711749f05f42dbeeebd11f057983f1b84069570d02fadfc20572d3b2",
    "params.study.yaml": "00d109f040ac8733111b3d4ca3a0f6ed5b3e9c334c9ce222d260606383bab4cb",
    "params.imagenet.yaml": "98698a2c0ef5e88a9808fc2164026b23d80ecbff61fe1d11ecd13301a52255ae",
}
"""Digests of all values of a file: update the digest after an intended change."""


def tree_of(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text())
    return tree


def paths_of(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each leaf; paths below `recipes` and `benchmarks` contain user-defined names."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths_of(value, (*path, key))
    else:
        yield path


def fields_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each leaf of the schema, with `*` for a user-defined name."""
    for name, field in model.model_fields.items():
        kind, own = field.annotation, (*path, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields_of(kind, own)
        elif isinstance(inner := (get_args(kind) or (None,))[-1], type) and issubclass(inner, BaseModel):
            yield from fields_of(inner, (*own, "*"))
        else:
            yield own


def test_the_packaged_file_equals_the_one_of_the_pipeline() -> None:
    assert (files("lissnas") / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a section and all sections below it."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models_of(kind)


def test_every_field_has_a_description() -> None:
    sections = list(models_of(Params))
    assert len(sections) == 18
    fields = [(s, n, f) for s in sections for n, f in s.model_fields.items() if f.annotation not in sections]
    assert [f"{s.__name__}.{n}" for s, n, f in fields if not f.description] == []
    assert [s.__name__ for s in sections if not s.__doc__] == []


def test_the_packaged_values_are_exactly_the_fields_of_the_schema() -> None:
    values = description.load_params(ROOT / "params.yaml", {})
    assert Params.model_validate(values.model_dump()) == values
    named = {("recipes",): 1, ("benchmarks",): 1, ("ranking", "benchmarks"): 2}
    found = set()
    for path in paths_of(values.model_dump(mode="json")):
        at = next((n for prefix, n in named.items() if path[: len(prefix)] == prefix), None)
        found.add(path if at is None else (*path[:at], "*", *path[at + 1 :]))
    assert found == set(fields_of(Params))
    # The file omits only values that default to None or come from a base.
    written = {path for path in paths_of(tree_of(ROOT / "params.yaml")) if path[0] not in ("recipes", "benchmarks")}
    assert written == {path for path in paths_of(values.model_dump()) if path[0] not in ("recipes", "benchmarks")}
    assert {n for one in tree_of(ROOT / "params.yaml")["benchmarks"].values() for n in one} == set(
        BenchmarkConfig.model_fields
    )


@pytest.mark.parametrize("name", RESOLVED)
def test_the_values_of_the_files_have_the_recorded_digests(name: str) -> None:
    layers = [ROOT / "params.yaml", ROOT / name]
    values = description.load_params(layers[-1], {})
    assert artifacts.digest(values.model_dump(mode="json")) == RESOLVED[name]
    assert description.load_params(layers, {}) == values


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_holds_only_different_values(name: str) -> None:
    plain = tree_of(ROOT / "params.yaml")

    def same(path: tuple[str, ...], value: Any) -> bool:
        below: Any = plain
        for key in path:
            below = below.get(key, KeyError) if isinstance(below, dict) else KeyError
        return bool(below == value)

    overlay = tree_of(ROOT / name)
    for path in paths_of(overlay):
        value: Any = overlay
        for key in path:
            value = value[key]
        assert not same(path, value), f"{name}: {'.'.join(path)} has the value of params.yaml"


def test_the_recipes_are_the_published_ones() -> None:
    recipes = description.load_params(ROOT / "params.imagenet.yaml", {}).recipes
    f = recipes["appendix_f_imagenet"]
    assert (f.steps, f.batch_size, f.rate, f.schedule, f.ghost_batch, f.ema) == (
        150_000,
        1_024,
        0.5,
        "linear",
        128,
        0.9999,
    )
    assert recipes["imagenet_retrain"] == f.model_copy(update={"steps": 300_000, "ghost_batch": 0})
    assert recipes["cpu_ranking"] == recipes["cpu"].model_copy(update={"steps": 2_500, "warmup": 50})
    c = recipes["appendix_f_cifar"]
    assert (c.steps, c.batch_size, c.ghost_batch, c.padding, c.cutout, c.flip) == (156_200, 64, 32, 4, 16, True)
