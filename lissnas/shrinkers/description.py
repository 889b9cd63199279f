"""Description of what to shrink, from the command line, a flow or Python, and loading of its parameters and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from lissnas import artifacts, benchmarks, config, spaces
from lissnas.artifacts.remote import local_path
from lissnas.benchmarks import Benchmark
from lissnas.benchmarks.official import nasbench301_models
from lissnas.config import ParamFiles, Params, label_images
from lissnas.core.errors import Problems, UserError, need_torch
from lissnas.core.redaction import without_passwords
from lissnas.oracles.base import Oracle
from lissnas.oracles.cache import CachedOracle
from lissnas.oracles.command import CommandOracle, file_digests, split_command
from lissnas.oracles.label_table import read_labels
from lissnas.oracles.reuse import Reuse
from lissnas.oracles.training_worker import TrainingOracle
from lissnas.predictors.accuracy import Scorer
from lissnas.predictors.surrogate import SurrogateScorer, model_scorer
from lissnas.shrinkers.methods import METHODS
from lissnas.shrinkers.problem import Source, from_space, get_space, required_surrogate
from lissnas.spaces import Space
from lissnas.spaces.declared import Declared

ORACLES = ("labels_from", "oracle_command", "oracle_supernet", "oracle_model")
"""Fields of a description that name an oracle; at most one may be given."""


def load(
    benchmark: str, params: ParamFiles, overrides: Mapping[str, Any] | None, table: Path | None
) -> tuple[Params, Benchmark]:
    """Return validated parameters and the benchmark; raises with all problems before anything is written."""
    # NAME@METRIC is a metric of an imported table, whose reader reports unknown metrics.
    checked = load_params(params, overrides, [] if "@" in benchmark else [("--benchmark", benchmark)])
    source = benchmarks.get(benchmark) if table is None else benchmarks.read_prepared(benchmark, table)
    return checked, source


@dataclass(frozen=True)
class Description:
    """What to shrink: a benchmark with its table, or a space with labels, an oracle or a model.

    The command line, flow parameters and Python use the same names; `load` reads the files.
    """

    benchmark: str | None = None
    """A benchmark, e.g. `nasbench101`; of the other fields only `table` applies to it."""
    table: Path | None = None
    """Folder written by `lissnas data`; default: the packaged table."""
    space: str | None = None
    """Instead of a benchmark: a space.yaml or the name of a space."""
    labels: Path | None = None
    metric: str | None = None
    """Column of the labels; required if several could be the metric."""
    minimize: bool | None = None
    """Whether less of the metric is better; required if its name looks like a cost and the space doesn't declare it."""
    labels_from: Literal["training", "surrogate"] | None = None
    """Training of networks, or the space's published predictor."""
    oracle_command: str | None = None
    oracle_timeout: float | None = None
    """Maximum seconds that the command may take for one architecture."""
    oracle_supernet: Path | None = None
    oracle_model: Path | None = None

    @property
    def name(self) -> str:
        """The benchmark, or the name or file of the space."""
        return self.benchmark or self.space or ""

    def check(self) -> None:
        """Raise UserError for fields that can't be combined; reads no files."""
        if (self.benchmark is None) == (self.space is None):
            raise UserError("give either --benchmark, a table of true accuracies, or --space, a space and --labels")
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None}
        if self.benchmark is not None:
            if extra := sorted(given - {"benchmark", "table"}):
                raise UserError(f"{_option(extra[0])} belongs to --space; a benchmark is evaluated by its table")
            return
        if self.table is not None:
            raise UserError("--table belongs to --benchmark; a space is evaluated by --labels or an oracle")
        if "oracle_timeout" in given and self.oracle_command is None:
            raise UserError("--oracle-timeout belongs to --oracle-command; other oracles have no time limit")
        oracles = [name for name in ORACLES if name in given]
        if len(oracles) > 1:
            raise UserError(f"{_option(oracles[0])} and {_option(oracles[1])}: give at most one oracle")
        if self.oracle_model is not None and self.labels is not None:
            raise UserError(
                "--labels and --oracle-model: a model is queried directly and does not use labels; remove one of them"
            )

    def load(
        self, params: ParamFiles, overrides: Mapping[str, Any] | None, out: Path, reuse: Reuse | None = None
    ) -> tuple[Params, Source]:
        """Return validated parameters and the source; raises with all problems before anything is written.

        `out` is the folder of the result; values of a user's oracle are stored next to it. `reuse` is how the run
        treats those that earlier runs stored.
        """
        self.check()
        if self.benchmark is not None:
            checked, benchmark = load(self.benchmark, params, overrides, self.table)
            return checked, Source.of(benchmark)
        problems = Problems()
        read_params = problems.of(lambda: load_params(params, overrides))
        space = problems.of(lambda: get_space(self.name))
        if read_params is None and space is not None and self.labels is not None:
            labels = self.labels
            problems.of(lambda: read_labels(labels, space, self.metric, minimize=self.minimize))
        problems.raise_any()
        assert read_params is not None
        assert space is not None
        checked = for_space(read_params, space)
        oracle, scorer, about = self._oracle(checked, space, local_path(out), reuse or Reuse())
        source = from_space(space, self.labels, self.metric, oracle, scorer, about, self.minimize)
        if self.labels_from == "surrogate":
            source = replace(source, notes=(f"{space.name}: {required_surrogate(space).caveat}", *source.notes))
        return checked, source

    def _oracle(
        self, checked: Params, space: Space, out: Path, reuse: Reuse
    ) -> tuple[Oracle | None, Scorer | None, str]:
        """Return the oracle or scorer, if any, and its identity."""
        if self.oracle_command is not None:
            about = f"command {without_passwords(self.oracle_command)}"
            if files := file_digests(self.oracle_command):
                about += f" {artifacts.digest(files)}"
            command = CommandOracle.parse(space, self.oracle_command, self.oracle_timeout)
            answers = out.parent / f".{out.name}.answers"
            return CachedOracle(command, self.oracle_command, answers, reuse), None, about
        if self.oracle_model is not None:
            return None, *_model_of(self.oracle_model, space)
        if self.oracle_supernet is not None:
            need_torch("a supernet")
            from lissnas.nets.evaluation import supernet_oracle  # torch takes seconds to load

            oracle, digest = supernet_oracle(checked, space, None, self.oracle_supernet)
            settings = checked.search.model_dump(include={"images", "batch_size", "recalibration_batches"})
            return oracle, None, f"supernet {artifacts.digest({'supernet': digest, **settings})}"
        if self.labels_from == "surrogate":
            surrogate = required_surrogate(space)
            return surrogate.values, None, f"labels of {surrogate.identity}"
        if self.labels_from is not None:
            check(checked, space, None, "--oracle-command")
            trained = TrainingOracle(checked, space, out.parent / f".{out.name}.training", reuse)
            return trained, None, trained.about
        return None, None, ""


def _option(name: str) -> str:
    if name == "minimize":
        return "--minimize or --maximize"
    return f"--{name.replace('_', '-')}"


def _model_of(path: Path, space: Space) -> tuple[Scorer, str]:
    """Return a model file, or NAS-Bench-301's imported models, as a scorer, and its identity."""
    if not path.is_dir():
        return model_scorer(path, space), f"model {artifacts.sha256(path.read_bytes())}"
    if space.name != "nasbench301" or isinstance(space, Declared):
        raise UserError(f"--oracle-model: {path} is a folder; only nasbench301 takes one, of imported models")
    values = nasbench301_models.ensemble(path)
    return SurrogateScorer(values), f"models {artifacts.sha256((path / artifacts.MANIFEST).read_bytes())}"


def for_space(params: Params, space: Space) -> Params:
    """Return parameters without those of single benchmarks, whose names a user's space may have."""
    return params.model_copy(update={"benchmarks": {}}) if isinstance(space, Declared) else params


def load_searched(
    name: str, params: ParamFiles, overrides: Mapping[str, Any] | None, table: Path | None
) -> tuple[Params, Space, Benchmark | None]:
    """Return validated parameters, the space to search, and its table of true values if `name` is a benchmark."""
    if name in spaces.names() and name not in benchmarks.names():
        if table is not None:
            raise UserError(f"--table: {name} is a space without a benchmark, so no table belongs to it")
        return config.with_default_width(load_params(params, overrides), name), spaces.get(name), None
    checked, source = load(name, params, overrides, table)
    return config.with_default_width(checked, name), source.space, source


def load_params(
    params: ParamFiles, overrides: Mapping[str, Any] | None, requested: Sequence[tuple[str, str]] = ()
) -> Params:
    """Return parameters validated against all registries."""
    return config.load(params, overrides or {}, benchmarks.names(), requested, METHODS, spaces.names())


def check(params: Params, space: Space, program: str | None, option: str = "--program") -> None:
    """Raise UserError if networks can't be labelled: checks space, recipe, device, images, batches, program."""
    if program is not None:
        split_command(program, option)
        return
    if isinstance(space, Declared) or space.name not in spaces.names():
        raise UserError(f"networks of {space.name} can't be built here; train them with a program: {option}")
    need_torch("training")
    # torch takes seconds to load and is only needed for training.
    from lissnas.config.resolve import recipe_of
    from lissnas.nets import images
    from lissnas.nets.build import published_scale
    from lissnas.nets.training import check_batches, compute_on

    published_scale(space.name)  # raises unless networks can be built
    compute_on(params.torch)
    recipe = recipe_of(params, params.label.recipe, "label.recipe")
    check_batches(recipe, images.load(label_images(params), recipe))
