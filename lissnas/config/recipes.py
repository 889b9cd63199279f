"""Recipes that inherit: a recipe with `base: NAME` is that recipe with some keys changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lissnas.core.errors import unknown_name


def inherited(recipes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the recipes with all keys written out, and a line for each base that is unknown or part of a cycle.

    A recipe whose base is wrong is left out.
    """
    out: dict[str, Any] = {}
    problems = []
    for name in recipes:
        chain = [name]
        while isinstance(own := recipes.get(chain[-1]), dict) and "base" in own and chain.count(chain[-1]) == 1:
            chain.append(str(own["base"]))
        last = chain[-1]
        if chain.count(last) > 1:
            problems.append(f"recipes.{name}.base: cycle {' -> '.join(map(str, chain))}")
        elif last not in recipes:
            problems.append(f"recipes.{chain[-2]}.base: {unknown_name('recipe', str(last), map(str, recipes))}")
        elif not isinstance(recipes[last], dict):
            out[name] = recipes[last]
        else:
            layers = [recipes[one] for one in reversed(chain)]
            out[name] = {key: value for layer in layers for key, value in layer.items() if key != "base"}
    return out, list(dict.fromkeys(problems))
