"""Input of a shrink: a space, and what evaluates its architectures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lissnas import benchmarks, spaces
from lissnas.benchmarks import Benchmark, surrogates, tables
from lissnas.config import Params, ShrinkParams, shrink_params
from lissnas.core.errors import UserError, unknown_name
from lissnas.oracles.base import Oracle
from lissnas.oracles.command import negative
from lissnas.oracles.direction import MAXIMIZE, MINIMIZE, is_minimized, metric_label, stated
from lissnas.oracles.label_table import Labels, metric_of, read_labels
from lissnas.predictors.accuracy import Scorer
from lissnas.predictors.surrogate import SurrogateScorer, scorer_values
from lissnas.shrinkers.memory_budget import BATCH_FRACTION, PART, rows_in_memory
from lissnas.spaces import GPT, Archs, FloatArray, OFAMobileNetV3, Space
from lissnas.spaces.declared import Declared, read_space
from lissnas.spaces.gpt import SCALES

TRAINED = ("shufflenetv2", "fairnas", "mobilenet", "anynetx")
"""Spaces with packaged labels: accuracies of small networks, trained for a few seconds (`flows.label`)."""
SMALL_NETWORKS = "its accuracies are of small networks, trained for seconds on 32 x 32 images, not of ImageNet"
SUPERNETS = {"shufflenetv2": "labels_shufflenetv2_supernet.csv"}
"""Spaces whose packaged labels are a supernet's accuracies, as in section C.2 of the paper: a predictor
learns nothing from the accuracies of small networks there."""
INHERITED = "its accuracies are of a small supernet's paths on 32 x 32 images, not of trained networks"
NB301_VALUES = "its accuracies are 1,218 values of a surrogate (NASLib), not of trained networks"
OFA_VALUES = "its accuracies are those of the Once-for-All predictor of ImageNet accuracy, not of trained networks"
GPT_VALUES = "its perplexities are those of the published predictor of HW-GPT-Bench, not of trained networks"
ACCEL_VALUES = "its accuracies are of ImageNet trainings with the shortened schedule of Accel-NASBench"
NO_ORACLE = (
    "space {name} has no oracle: give --labels FILE with the accuracies of trained networks, or --oracle-command. "
    "`lissnas init DIR` writes an example of both files"
)


@dataclass(frozen=True)
class Source:
    """A space with at least one of: a complete table, an oracle, labels, a surrogate.

    `truth` is used only for reports. `oracle` returns labels on request, within the label budget; `labels` are
    known from the start; `scorer` is queried directly, instead of a fitted predictor. All their values are higher is
    better: those of a minimized metric are negated; results are written in the metric's own sign.
    """

    name: str
    space: Space
    metric: str
    digest: str
    """Of everything except the parameters that a result depends on: table, labels, declaration of the space."""
    point: float = 1.0
    """One percent point of tolerance, in the metric's unit."""
    truth: Benchmark | None = None
    oracle: Oracle | None = None
    labels: Labels | None = None
    scorer: Scorer | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    """Caveats on the origin of the values, reported with the result."""
    minimize: bool = False
    """Whether less of the metric is better."""

    @property
    def sign(self) -> int:
        """The factor from the values used here to those of the metric: -1 if it is minimized."""
        return -1 if self.minimize else 1

    @property
    def stated(self) -> dict[str, str]:
        """The entries of `metrics.json` that state the metric and its direction."""
        return stated(self.metric, self.minimize)

    @property
    def metric_label(self) -> str:
        """The name of the metric for axes and sentences."""
        return metric_label(self.metric, self.minimize)

    @classmethod
    def of(cls, benchmark: Benchmark) -> Source:
        """Return the source of a complete table."""
        b = benchmark
        return cls(b.name, b.space, b.metric, b.sha256, b.point, truth=b, oracle=b, minimize=b.minimize)

    def evaluate(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` values of architectures from the table, or from the surrogate."""
        if self.truth is not None:
            return self.truth(archs)
        assert self.scorer is not None
        return self.scorer.value(self.scorer.score(archs, threads))


def get_space(name: str) -> Space:
    """Return a space by name, or read it from a YAML file; raises UserError, ConfigError."""
    if Path(name).suffix in (".yaml", ".yml"):
        return read_space(Path(name))
    if name in spaces.names():
        return spaces.get(name)
    raise UserError(f"{unknown_name('space', name, spaces.names())}, or a file that ends in .yaml")


def from_space(
    space: Space,
    labels: Path | Labels | None = None,
    metric: str | None = None,
    oracle: Oracle | None = None,
    scorer: Scorer | None = None,
    oracle_id: str = "",
    minimize: bool | None = None,
) -> Source:
    """Return the source of a space with labels, an oracle or a scorer; without any, the packaged one.

    Values are given as measured; if less is better (`is_minimized`), they are negated here. `oracle_id` is part of the
    result's digest. Raises UserError if there is no oracle or the direction isn't stated, ConfigError for invalid
    labels.
    """
    if labels is None and oracle is None and scorer is None:
        if minimize is not None:
            is_minimized(space, space.metric_name, minimize)  # raises if the packaged values have the other direction
        return packaged(space)
    found = read_labels(labels, space, metric, minimize=minimize) if isinstance(labels, Path) else labels
    metric_name = metric or (found.metric if found else metric_of(space))
    notes = () if found is None else (f"labels: {found.describe()}",)
    minimized = is_minimized(space, metric_name, minimize) if found is None else found.negated
    if found is not None and minimize not in (None, minimized):
        raise UserError(
            f"minimize: the labels were read with {metric_name} to be {MINIMIZE if minimized else MAXIMIZE}d"
        )
    if minimized:
        oracle = None if oracle is None else negative(oracle)
        scorer = None if scorer is None else SurrogateScorer(negative(scorer_values(scorer)))
    point = 1.0 if found is None else float(np.ptp(found.values)) / 100
    digest = _digest(space, found, oracle_id, minimized)
    return Source(space.name, space, metric_name, digest, point, None, oracle, found, scorer, notes, minimized)


def packaged(space: Space) -> Source:
    """Return the packaged labels or surrogate of a space without a table; raises UserError if there are none."""
    if isinstance(space, Declared):  # its name may be that of a packaged one
        raise UserError(NO_ORACLE.format(name=space.name))
    if space.name in TRAINED:
        name = SUPERNETS.get(space.name, f"labels_{space.name}.csv")
        tables.read_bytes(name)  # verifies it
        found = read_labels(Path(str(files("lissnas.benchmarks") / "data" / name)), space)
        caveat, by = (INHERITED, "a small supernet") if space.name in SUPERNETS else (SMALL_NETWORKS, "small networks")
        note, metric = (f"{space.name}: {caveat}",), f"accuracy of {by}, %"
        return Source(space.name, space, metric, _digest(space, found), labels=found, notes=note)
    if space.name == "nasbench301":
        archs, values = surrogates.nasbench301_labels()
        found = Labels(archs, values, np.ones(len(values), np.int64), "accuracy", {})
        note = (f"{space.name}: {NB301_VALUES}",)
        return Source(space.name, space, "accuracy of a surrogate, %", _digest(space, found), labels=found, notes=note)
    if space.name == "accel_nasbench":
        archs, values, runs = surrogates.accel_nasbench_labels()
        order = np.lexsort(archs.T[::-1])
        found = Labels(archs[order], values[order], runs[order], "top1", {})
        note = (f"{space.name}: {ACCEL_VALUES}",)
        return Source(space.name, space, "ImageNet top-1 accuracy, %", _digest(space, found), labels=found, notes=note)
    if (surrogate := published_surrogate(space)) is not None:
        values_of, metric, notes = surrogate.values, surrogate.metric, [f"{space.name}: {surrogate.caveat}"]
        values_of = values_of if space.maximize else negative(values_of)
        digest = _digest(space, None, surrogate.identity, not space.maximize)
        scorer = SurrogateScorer(values_of)
        return Source(space.name, space, metric, digest, scorer=scorer, notes=notes, minimize=not space.maximize)
    tabled = [n for n in benchmarks.names() if benchmarks.space_of(n) == space.name]
    if tabled:
        raise UserError(f"{space.name} is a space with tables: give --benchmark {tabled[0]}, or --labels with your own")
    raise UserError(NO_ORACLE.format(name=space.name))


class Surrogate(NamedTuple):
    """A published predictor that replaces training on a space."""

    values: Oracle
    """In the metric's unit and sign."""
    metric: str
    caveat: str
    identity: str
    """Part of a result's digest."""


def published_surrogate(space: Space) -> Surrogate | None:
    """Return the packaged published predictor of a space, if there is one."""
    if isinstance(space, OFAMobileNetV3):
        return Surrogate(surrogates.ofa_accuracy, "predicted ImageNet top-1 accuracy, %", OFA_VALUES, "ofa")
    if isinstance(space, GPT) and space.name in SCALES:
        values = partial(surrogates.gpt_perplexity, space.name)
        return Surrogate(values, "predicted OpenWebText perplexity", GPT_VALUES, "hw-gpt-bench")
    return None


def required_surrogate(space: Space) -> Surrogate:
    """Return the packaged published predictor of a space; raises UserError if there is none."""
    found = published_surrogate(space)
    if found is None:
        known = ", ".join(name for name in spaces.names() if published_surrogate(spaces.get(name)))
        raise UserError(f"--labels-from surrogate: {space.name} has no published predictor; spaces with one: {known}")
    return found


def _digest(space: Space, labels: Labels | None, oracle_id: str = "", minimize: bool = False) -> str:
    """Return the SHA-256 of a space's declaration, labels, the identity of its oracle, and a direction to minimize."""
    parts = [space.name.encode(), oracle_id.encode(), *([MINIMIZE.encode()] if minimize else [])]
    if isinstance(space, Declared):
        parts.append(space.text.encode())
    if labels is not None:
        values: FloatArray = labels.values
        parts += [space.key(labels.archs).tobytes(), values.tobytes()]
    return hashlib.sha256(b"\x1f".join(parts)).hexdigest()


@dataclass(frozen=True)
class Problem:
    """Input of a shrink, the same for all its steps: source, parameters, and settings of the run.

    `truth` is used only for reports, never by the method.
    """

    source: Source
    params: ShrinkParams
    threads: int = 0
    fitted: Scorer | None = None
    """A fitted predictor; if given, no labels are requested."""
    locality: bool = True
    """If False, uniform draws replace neighbors (ablation of Appendix H.2)."""

    @classmethod
    def of(
        cls, source: Source, params: Params, seed: int, threads: int = 0, locality_distance: int | None = None
    ) -> Problem:
        """Return the problem of a source, with parameters resolved for it.

        `locality_distance` limits the edits. Raises ConfigError for values that don't fit the space.
        """
        known = None if source.oracle is not None else 0 if source.labels is None else len(source.labels.values)
        p = shrink_params(params, source.name, seed, source.space.size(), source.digest, known)
        collects = source.oracle is not None and p.method.label_rounds > 0
        goal = params.shrink.goal or ("both" if source.truth is None else "space")
        p = p.model_copy(update={"locality_distance": locality_distance, "goal": goal if collects else "space"})
        return cls(source, p, threads)

    @property
    def space(self) -> Space:
        """The space that is shrunk."""
        return self.source.space

    @property
    def truth(self) -> Benchmark | None:
        """The complete table, if there is one."""
        return self.source.truth

    @property
    def predictor(self) -> Scorer | None:
        """The scorer known from the start, if any: a fitted predictor or a surrogate."""
        return self.source.scorer if self.fitted is None else self.fitted

    @property
    def memory_rows(self) -> int:
        """Maximum rows of a state; beyond, the lowest-scored ones are dropped."""
        return rows_in_memory(self.params.memory, self.space.genome_len)

    @property
    def at_once(self) -> int:
        """Neighbors drawn and scored per batch."""
        return max(1, min(PART, self.memory_rows // BATCH_FRACTION))
