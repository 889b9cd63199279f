from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lissnas import benchmarks, config, spaces
from lissnas.core.errors import ConfigError

ROOT = Path(__file__).parents[3]
GOOD = (ROOT / "params.yaml").read_text()


def problems(tmp_path: Path, text: str | bytes, **overrides: Any) -> list[str]:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(path, overrides, benchmarks.names(), spaces=spaces.names())
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_all_problems_at_once_with_their_paths(tmp_path: Path) -> None:
    text = GOOD.replace("trees: 300", "trees: many").replace("eta: 0.05", "eta: .nan")
    text = text.replace("diversity: 0.05", "diversity: 1.5").replace("seeds: [0, 1, 2]", "seeds: [-1]")
    text = text.replace("seed_fraction: 0.5", "seed_fractio: 0.5").replace("nas_bench_macro: {", "nas_bench_makro: {")
    found = problems(tmp_path, text)
    starts = {line.split(":")[0] for line in found}
    assert starts == {
        "predictor.trees",
        "predictor.eta",
        "shrink.elite.diversity",
        "shrink.elite.seed_fractio",
        "pipeline.seeds.0",
        "benchmarks.nas_bench_makro",
        "ranking.benchmarks.nas_bench_makro",
    }
    assert any("Did you mean 'nas_bench_macro'" in line for line in found)


def test_parameters_of_earlier_versions_say_what_replaces_them(tmp_path: Path) -> None:
    old = "    diversity: 0.05\n    shrink_rate: 0.8\n    min_turnover: 0.01\n"
    assert problems(tmp_path, GOOD.replace("    diversity: 0.05", old + "   #")) == [
        f"shrink.elite.{name}: removed; the best seed_fraction of the target is expanded, then the loop stops: "
        "delete the line"
        for name in ("shrink_rate", "min_turnover")
    ]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("predictor:", "predictors:"), "predictors"),
        (("depth: 6", "depth: 6.5"), "predictor.depth"),
        (("depth: 6", "depth: true"), "predictor.depth"),
        (("depth: 6", "depth: '6'"), "predictor.depth"),
        (("depth: 6", "depth: 0"), "predictor.depth"),
        (("subsample: 0.7", "subsample: 0"), "predictor.subsample"),
        (("subsample: 0.7", "subsample: .inf"), "predictor.subsample"),
        (("subsample: 0.7", "subsample:"), "predictor.subsample"),
        (("variant: elite", "variant: best"), "shrink.variant"),
        (("labels: null             #", "labels: 3 #"), "shrink.labels"),
        (("neighbors: 24", "neighbors: -24"), "shrink.elite.neighbors"),
        (("target_size: 13000", "target_size: 1e400"), "benchmarks.nasbench101.target_size"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, change: tuple[str, str], path: str) -> None:
    assert change[0] in GOOD
    assert any(line.startswith(path + ":") for line in problems(tmp_path, GOOD.replace(*change, 1)))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (GOOD + "\npipeline: {}\n", "duplicate"),
        ("predictor: [1, 2", "line"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("- 1\n- 2\n", "expected sections"),
        ("a: !!python/object/apply:os.system [true]\n", "line"),
    ],
)
def test_an_invalid_parameter_file_is_refused(tmp_path: Path, text: str | bytes, part: str) -> None:
    assert part in "\n".join(problems(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "none.yaml", {}, benchmarks.names())


def test_an_invalid_option_is_named(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, GOOD, **{"shrink.method.diversity": -1.0})
    assert line.startswith("shrink.elite.diversity:")
    assert "--diversity" in line


def test_an_option_of_the_other_variant_is_refused(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, GOOD, **{"shrink.variant": "paper", "shrink.method.diversity": 0.5})
    assert line.startswith("shrink.paper.diversity: unknown key")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"shrink__target_size": 4_000}, "more than the space has"),
        ({"shrink__target_size": 3_969}, "whole space"),
        ({"shrink__labels": 5_000}, "more than the space has"),
        ({"shrink__max_queries": 10}, "does not pay for the first sample"),
        (
            {"shrink__variant": "paper", "shrink__target_size": 900, "shrink__paper__first_size": 800},
            "must be larger than the target",
        ),
    ],
)
def test_numbers_that_do_not_fit_the_space(make_problem: Callable[..., Any], overrides: Any, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        make_problem("nas_bench_macro", **overrides)


def test_label_budget(make_params: Callable[..., Any]) -> None:
    params = make_params()
    assert config.label_budget(params, "nasbench101", 423_624) == 1_000
    assert config.label_budget(params, "transnas/jigsaw", 7_352) == 1_000
    assert config.label_budget(params, "transnas_micro/jigsaw", 4_096) == 615
    assert config.label_budget(make_params(shrink__labels=77), "nasbench101", 423_624) == 77
