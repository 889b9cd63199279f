"""What the command line, a flow or Python describes to shrink, made into checked parameters and a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lissnas import artifacts, benchmarks, config, spaces
from lissnas.artifacts.remote import here
from lissnas.benchmarks import Benchmark
from lissnas.benchmarks.official import nasbench301_models
from lissnas.config import ParamFiles, Params, label_images
from lissnas.core.errors import Problems, UserError, need_torch
from lissnas.core.redaction import without_passwords
from lissnas.oracles.base import Oracle
from lissnas.oracles.cache import Remembered
from lissnas.oracles.command import CommandOracle, split_command
from lissnas.oracles.label_table import read_labels
from lissnas.oracles.training_worker import TrainingOracle
from lissnas.predictors.accuracy import Scorer
from lissnas.predictors.surrogate import SurrogateScorer, model_scorer
from lissnas.shrinkers.methods import METHODS
from lissnas.shrinkers.problem import Source, from_space, get_space
from lissnas.spaces import Space
from lissnas.spaces.declared import Declared


def load(
    benchmark: str, params: ParamFiles, overrides: Mapping[str, Any], table: Path | None
) -> tuple[config.Params, Benchmark]:
    """Return checked parameters and the benchmark; raises with all that is wrong, writing nothing."""
    # NAME@METRIC is a metric of an imported table, which says itself what it doesn't have.
    checked = load_params(params, overrides, [] if "@" in benchmark else [("--benchmark", benchmark)])
    source = benchmarks.get(benchmark) if table is None else benchmarks.read_prepared(benchmark, table)
    return checked, source


def load_source(
    given: Mapping[str, Any], params: ParamFiles, overrides: Mapping[str, Any], out: Path
) -> tuple[config.Params, Source]:
    """Return checked parameters and what to shrink: a benchmark, or a space and who judges it (`SourceOptions`).

    `out` is the folder of the result; answers of a user's oracle are kept beside it. Raises with all that is
    wrong, writing nothing.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if ("benchmark" in asked) == ("space" in asked):
        raise UserError("give either --benchmark, a table of true accuracies, or --space, a space and --labels")
    if "benchmark" in asked:
        if extra := sorted(asked.keys() - {"benchmark", "table", "oracle_timeout"}):
            raise UserError(f"--{extra[0].replace('_', '-')} belongs to --space; a benchmark is judged by its table")
        checked, benchmark = load(asked["benchmark"], params, overrides, asked.get("table"))
        return checked, Source.of(benchmark)
    if "table" in asked:
        raise UserError("--table belongs to --benchmark; a space is judged by --labels or an oracle")
    judges = [name for name in ("labels_from", "oracle_command", "oracle_supernet", "oracle_model") if name in asked]
    if len(judges) > 1:
        raise UserError(f"--{judges[0].replace('_', '-')} and --{judges[1].replace('_', '-')}: one oracle is enough")
    if "oracle_model" in asked and "labels" in asked:
        raise UserError(
            "--labels: a model is asked directly and learns from none; leave --labels or --oracle-model out"
        )
    problems = Problems()
    read_params = problems.of(lambda: load_params(params, overrides))
    read_space = problems.of(lambda: get_space(asked["space"]))
    if read_params is None and read_space is not None and "labels" in asked:
        problems.of(lambda: read_labels(asked["labels"], read_space, asked.get("metric")))
    problems.raise_any()
    assert read_params is not None
    assert read_space is not None
    checked, space = for_space(read_params, read_space), read_space
    oracle, scorer, judge = _judge_of(asked, checked, space, here(out))
    return checked, from_space(space, asked.get("labels"), asked.get("metric"), oracle, scorer, judge)


def _judge_of(
    asked: Mapping[str, Any], checked: config.Params, space: Space, out: Path
) -> tuple[Oracle | None, Scorer | None, str]:
    """Return the oracle or the scorer that was asked for, and a word on who it is; neither where labels are all."""
    if "oracle_command" in asked:
        judge = f"command {without_passwords(asked['oracle_command'])}"
        command = CommandOracle.parse(space, asked["oracle_command"], asked["oracle_timeout"])
        return Remembered(command, space, out.parent / f".{out.name}.answers", judge), None, judge
    if "oracle_model" in asked:
        return None, *_model_of(asked["oracle_model"], space)
    if "oracle_supernet" in asked:
        need_torch("a supernet")
        from lissnas.nets.evaluation import supernet_judge  # torch takes seconds to load

        oracle, digest = supernet_judge(checked, space, None, asked["oracle_supernet"])
        asked_with = checked.search.model_dump(include={"images", "batch_size", "recalibration_batches"})
        return oracle, None, f"supernet {artifacts.digest({'supernet': digest, **asked_with})}"
    if "labels_from" in asked:
        trained = training_oracle(checked, space, out.parent / f".{out.name}.training")
        return trained, None, trained.about
    return None, None, ""


def _model_of(path: Path, space: Space) -> tuple[Scorer, str]:
    """Return a model file as a scorer, or NAS-Bench-301's imported models, and a word on which it is."""
    if not path.is_dir():
        return model_scorer(path, space), f"model {artifacts.sha256(path.read_bytes())}"
    if space.name != "nasbench301" or isinstance(space, Declared):
        raise UserError(f"--oracle-model: {path} is a folder; only NAS-Bench-301's imported models are asked in one")
    values = nasbench301_models.ensemble(path)
    return SurrogateScorer(values), f"models {artifacts.sha256((path / artifacts.MANIFEST).read_bytes())}"


def for_space(params: config.Params, space: Space) -> config.Params:
    """Return the parameters without what benchmarks have of their own, as one of which a user's space may be called."""
    return params.model_copy(update={"benchmarks": {}}) if isinstance(space, Declared) else params


def load_searched(
    name: str, params: ParamFiles, overrides: Mapping[str, Any], table: Path | None
) -> tuple[config.Params, Space, Benchmark | None]:
    """Return checked parameters, the space to search, and its table of true values where `name` is a benchmark."""
    if name in spaces.names() and name not in benchmarks.names():
        if table is not None:
            raise UserError(f"--table: {name} is a space without a benchmark, so no table belongs to it")
        return config.sized(load_params(params, overrides), name), spaces.get(name), None
    checked, source = load(name, params, overrides, table)
    return config.sized(checked, name), source.space, source


def load_params(
    params: ParamFiles, overrides: Mapping[str, Any], asked: Sequence[tuple[str, str]] = ()
) -> config.Params:
    """Return parameters checked against all registries."""
    return config.load(params, overrides, benchmarks.names(), asked, METHODS, spaces.names())


def check(params: Params, space: Space, program: str | None, option: str = "--program") -> None:
    """Raise for what can't be labelled, before anything is written: space, recipe, device, images, batches, program."""
    if program is not None:
        split_command(program, option)
        return
    if isinstance(space, Declared) or space.name not in spaces.names():
        raise UserError(f"networks of {space.name} can't be built here; train them by a program: {option}")
    need_torch("training")
    # torch takes seconds to load: only what trains needs it.
    from lissnas.config.resolve import recipe_of
    from lissnas.nets import images
    from lissnas.nets.build import published_scale
    from lissnas.nets.training import check_batches, compute_on

    published_scale(space.name)  # there is one where networks can be built
    compute_on(params.torch)
    recipe = recipe_of(params, params.label.recipe, "label.recipe")
    check_batches(recipe, images.load(label_images(params), recipe))


def training_oracle(params: Params, space: Space, folder: Path) -> TrainingOracle:
    """Return an oracle that trains networks and keeps its labels in `folder`; raises UserError if it can't train."""
    check(params, space, None, "--oracle-command")
    return TrainingOracle(params, space, folder)
