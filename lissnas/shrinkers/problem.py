"""What a shrink starts from: a space, and who says how good its networks are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from lissnas import benchmarks, spaces
from lissnas.benchmarks import Benchmark, surrogates, tables
from lissnas.config import Params, ShrinkParams, shrink_params
from lissnas.core.errors import UserError, unknown_name
from lissnas.oracles.base import Oracle
from lissnas.oracles.command import negative
from lissnas.oracles.label_table import Labels, less_is_better, metric_of, negation_note, read_labels
from lissnas.predictors.accuracy import Scorer
from lissnas.predictors.surrogate import SurrogateScorer, scorer_values
from lissnas.shrinkers.memory_budget import PART, SPARE, rows_in_memory
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared, read_space

TRAINED = ("shufflenetv2", "fairnas", "mobilenet", "anynetx")
"""Spaces whose packaged labels are of small networks that were trained for a few seconds (`flows.label`)."""
SMALL_NETWORKS = "its accuracies are of small networks, trained for seconds on 32 x 32 images, not of ImageNet"
SUPERNETS = {"shufflenetv2": "labels_shufflenetv2_supernet.csv"}
"""Spaces whose default judge learns from a supernet's accuracies, as in section C.2 of the paper: from those of
`TRAINED` it learns nothing there."""
INHERITED = "its accuracies are of a small supernet's paths on 32 x 32 images, not of trained networks"
NB301_VALUES = "its accuracies are 1,218 values of a surrogate (NASLib), not of trained networks"
OFA_VALUES = "its accuracies are those of the Once-for-All predictor of ImageNet accuracy, not of trained networks"
NOBODY = (
    "nobody judges {name}: give --labels FILE with the accuracies of trained networks, or --oracle-command. "
    "`lissnas init DIR` writes an example of both files"
)


@dataclass(frozen=True)
class Source:
    """A space and who judges it, at least one of: a complete table, an oracle, labels, a surrogate.

    A `truth` is only reported against. An `oracle` gives labels when it is asked, sparingly; `labels` are there
    from the start; a `scorer` is asked freely, in place of a predictor.
    """

    name: str
    space: Space
    metric: str
    digest: str
    """Of all that a result depends on beside the parameters: the table, the labels, the space's declaration."""
    point: float = 1.0
    """What a tolerance of one percent point is in the metric's unit."""
    truth: Benchmark | None = None
    oracle: Oracle | None = None
    labels: Labels | None = None
    scorer: Scorer | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    """What a reader of the result must know of where its values come from."""

    @classmethod
    def of(cls, benchmark: Benchmark) -> Source:
        """Return the source that a complete table is."""
        b = benchmark
        return cls(b.name, b.space, b.metric, b.sha256, b.point, truth=b, oracle=b)

    def evaluate(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` values of architectures by the table, or by the surrogate."""
        if self.truth is not None:
            return self.truth(archs)
        assert self.scorer is not None
        return self.scorer.value(self.scorer.score(archs, threads))


def get_space(name: str) -> Space:
    """Return a space by its name, or from a YAML file; raises UserError, ConfigError."""
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
    judge: str = "",
) -> Source:
    """Return the source of a space and whoever judges it; what is packaged for the space, where nobody is given.

    All of them give the metric as it is measured; where the space declares that less of it is better, it is turned
    round here. `judge` says in a word or two who the oracle or the scorer is; it is a part of the result's identity.
    Raises UserError where there is nobody, ConfigError for labels that can't be used.
    """
    if labels is None and oracle is None and scorer is None:
        return packaged(space)
    found = read_labels(labels, space, metric) if isinstance(labels, Path) else labels
    named = metric or (found.metric if found else metric_of(space))
    notes = () if found is None else (f"labels: {found.describe()}",)
    if less_is_better(space, named):
        notes = notes if found else (negation_note(named),)
        oracle = None if oracle is None else negative(oracle)
        scorer = None if scorer is None else SurrogateScorer(negative(scorer_values(scorer)))
    point = 1.0 if found is None else float(np.ptp(found.values)) / 100
    return Source(space.name, space, named, _digest(space, found, judge), point, None, oracle, found, scorer, notes)


def packaged(space: Space) -> Source:
    """Return what comes with the package for a space that has no table; raises UserError where nothing does."""
    if isinstance(space, Declared):  # it may be called as one of ours
        raise UserError(NOBODY.format(name=space.name))
    if space.name in TRAINED:
        name = SUPERNETS.get(space.name, f"labels_{space.name}.csv")
        tables.read_bytes(name)  # verifies it
        found = read_labels(Path(str(files("lissnas.benchmarks") / "data" / name)), space)
        said, whose = (INHERITED, "a small supernet") if space.name in SUPERNETS else (SMALL_NETWORKS, "small networks")
        note, metric = (f"{space.name}: {said}",), f"accuracy of {whose}, %"
        return Source(space.name, space, metric, _digest(space, found), labels=found, notes=note)
    if space.name == "nasbench301":
        archs, values = surrogates.nasbench301_labels()
        found = Labels(archs, values, np.ones(len(values), np.int64), "accuracy", {})
        note = (f"{space.name}: {NB301_VALUES}",)
        return Source(space.name, space, "accuracy of a surrogate, %", _digest(space, found), labels=found, notes=note)
    if space.name == "ofa_mobilenetv3":
        scorer = SurrogateScorer(surrogates.ofa_accuracy)
        note = (f"{space.name}: {OFA_VALUES}",)
        metric = "predicted ImageNet top-1 accuracy, %"
        return Source(space.name, space, metric, _digest(space, None, "ofa"), scorer=scorer, notes=note)
    tabled = [n for n in benchmarks.names() if benchmarks.space_of(n) == space.name]
    if tabled:
        raise UserError(f"{space.name} is a space with tables: give --benchmark {tabled[0]}, or --labels with your own")
    raise UserError(NOBODY.format(name=space.name))


def _digest(space: Space, labels: Labels | None, judge: str = "") -> str:
    """Return the digest of a space's declaration, of labels, and of who else is asked."""
    parts = [space.name.encode(), judge.encode()]
    if isinstance(space, Declared):
        parts.append(space.text.encode())
    if labels is not None:
        values: FloatArray = labels.values
        parts += [space.key(labels.archs).tobytes(), values.tobytes()]
    return hashlib.sha256(b"\x1f".join(parts)).hexdigest()


@dataclass(frozen=True)
class Problem:
    """What a shrink is given, the same for all its steps: a source, parameters, and how to run.

    `truth` is only reported against, never read by the method.
    """

    source: Source
    params: ShrinkParams
    threads: int = 0
    fitted: Scorer | None = None
    """A predictor that is fitted already; no labels are requested then."""
    locality: bool = True
    """False is the ablation of Appendix H.2: uniform draws replace neighbors."""

    @classmethod
    def of(
        cls, source: Source, params: Params, seed: int, threads: int = 0, locality_distance: int | None = None
    ) -> Problem:
        """Return the problem of a source, with what the parameters mean for it.

        `locality_distance` caps the edits. Raises ConfigError for numbers that don't fit the space.
        """
        known = None if source.oracle is not None else 0 if source.labels is None else len(source.labels.values)
        p = shrink_params(params, source.name, seed, source.space.size(), source.digest, known)
        if locality_distance is not None:
            p = p.model_copy(update={"locality_distance": locality_distance})
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
        """The scorer that is there from the start: a fitted predictor, or a surrogate."""
        return self.source.scorer if self.fitted is None else self.fitted

    @property
    def memory_rows(self) -> int:
        """Rows that a state may hold; the worst ones are forgotten beyond."""
        return rows_in_memory(self.params.memory, self.space.genome_len)

    @property
    def at_once(self) -> int:
        """Neighbors that are drawn and scored at once."""
        return max(1, min(PART, self.memory_rows // SPARE))
