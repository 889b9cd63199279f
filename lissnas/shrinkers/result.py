"""Result of a shrink: metrics, members, and the files of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas import artifacts
from lissnas.artifacts.stage_run import PARAMETERS, run
from lissnas.benchmarks import Benchmark
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.metrics.quality import good_metrics, top_kept
from lissnas.plots import figures
from lissnas.predictors.accuracy import Predictor, Scorer, predictor_in, tau_interval
from lissnas.shrinkers.archive import FAILED
from lissnas.shrinkers.problem import get_space
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import ITERATION_COLUMNS, REFERENCE, State
from lissnas.spaces import FloatArray, IntArray, Space
from lissnas.spaces.declared import Declared, DeclaredSpace, parse_space
from lissnas.spaces.members import read_subspace
from lissnas.spaces.subspace import Subspace

if TYPE_CHECKING:
    import pandas as pd

WEAK_TAU = 0.2
"""A predictor whose lower bound of tau is less is reported as weak: 50 labels of NAS-Bench-101 give .45, noise 0."""
WRITES = (
    *("subspace.json", "subspace.parquet", "iterations.parquet", "labels.parquet", "metrics.json"),
    *("iterations.png", "edf.png", "predictor.ubj", "predictor_kernel.npz", "predictor.json", "space.yaml"),
)
"""Names of the files of a result; a few are not in every one."""
ROW_GROUP = 1 << 20
"""Members written per row group."""


def files_of(shrunk: Shrunk) -> dict[str, bytes]:
    """Return the files of a shrink's folder by name; all are deterministic functions of its parameters."""
    state, source = shrunk.state, shrunk.problem.source
    archive, labelled = state.archive, state.archive.labelled
    sizes = f"{figures.big(source.space.size())} to {figures.big(shrunk.size)}"
    title = f"{source.name}, seed {shrunk.problem.params.seed}: {sizes} architectures"
    columns = {n: [r[n] for r in state.records] for n in ITERATION_COLUMNS if n in state.records[0]}
    metric = source.metric_label
    unit = metric if source.truth is not None else f"predicted {metric}"
    labels: dict[str, Any] = {
        "arch": source.space.format(archive.rows[labelled]),
        "value": source.sign * archive.labels[labelled],
        "round": archive.label_round[labelled].astype(np.int64),
    }
    if shrunk.problem.params.goal != "space":
        labels["kind"] = kinds(state, labelled)
    files = {
        "subspace.json": artifacts.to_json(shrunk.subspace.describe()),
        "subspace.parquet": _members(shrunk),
        "iterations.parquet": artifacts.to_parquet(columns),
        "metrics.json": artifacts.to_json(metrics_of(shrunk)),
        "labels.parquet": artifacts.to_parquet(labels),
        "iterations.png": figures.png(figures.iterations(state.records, title, metric)),
        "edf.png": figures.png(figures.error_distributions(_distributions(shrunk), title, unit)),
    }
    if isinstance(state.predictor, Predictor):
        files |= state.predictor.files("predictor")
    if isinstance(source.space, Declared) and source.space.text:
        files["space.yaml"] = source.space.text.encode()
    return files


def kinds(state: State, labelled: IntArray) -> list[str]:
    """Return what each labelled row was requested for: uniform, informative, or search."""
    searched, round_ = np.isin(labelled, state.searched), state.archive.label_round[labelled]
    return [str(kind) for kind in np.where(searched, "search", np.where(round_ > 0, "informative", "uniform"))]


def _members(shrunk: Shrunk) -> bytes:
    """Return `subspace.parquet`: a row per member, or per centre of a ball."""
    state, space, sign = shrunk.state, shrunk.problem.space, shrunk.problem.source.sign
    archive = state.archive
    if shrunk.balls is not None:
        assert state.predictor is not None
        centers, radii = shrunk.balls.centres, shrunk.balls.radii
        predicted = sign * state.predictor.value(state.predictor.score(centers, shrunk.problem.threads))
        return artifacts.to_parquet({"arch": space.format(centers), "predicted": predicted, "radius": radii})
    parts = np.array_split(shrunk.members, max(1, -(-len(shrunk.members) // ROW_GROUP)))
    return artifacts.to_parquet_parts(
        {
            "arch": space.format(archive.rows[part]),
            "predicted": sign * state.values(part),
            "distance": archive.distance[part].astype(np.int64),
            "seed": space.format(archive.rows[archive.parent[part]]),
        }
        for part in parts
    )


def _distributions(shrunk: Shrunk) -> dict[str, FloatArray]:
    """Return the values of full space, first sample and shrunk space: true with a table, else predicted."""
    state, truth = shrunk.state, shrunk.problem.truth
    if truth is None:
        values = np.sort(shrunk.sampled_values)
        return {
            "uniform sample": state.values(state.reference),
            "shrunk space": values[:: -(-len(values) // REFERENCE)],
        }
    return {
        "full space": truth.values,
        "first sample": truth.look_up(state.archive.keys[state.reference]),
        "shrunk space": truth.look_up(state.archive.keys[shrunk.members]),
    }


def metrics_of(shrunk: Shrunk) -> dict[str, Any]:
    """Return the content of `metrics.json`: by the table if there is one, else by prediction."""
    state, params, source = shrunk.state, shrunk.problem.params, shrunk.problem.source
    size = source.space.size()
    limited = []
    if params.max_edits < params.method.max_edits:
        limited = [f"neighbours are at most {params.max_edits} edits away, the threshold distance of this space"]
    found: dict[str, Any] = {
        "benchmark": source.name,
        **source.stated,
        "seed": params.seed,
        "variant": params.variant,
        "size": shrunk.size,
        "full_size": size,
        "reduction": size / shrunk.size,
        "queries": state.queries,
        "labels": state.n_labels,
        "iterations": state.iteration,
        "stop": state.stop,
    }
    if source.truth is not None:
        quality, notes = _by_table(shrunk, source.truth), list[str]()
        found["mean_predicted"] = source.sign * float(state.values(shrunk.members).mean())
        quality |= _reliability(shrunk)
    else:
        quality, notes = _by_prediction(shrunk)
    return found | quality | {"notes": [*source.notes, *state.notes, *limited, *notes]}


def _by_table(shrunk: Shrunk, truth: Benchmark) -> dict[str, Any]:
    values, sign = truth.look_up(shrunk.state.archive.keys[shrunk.members]), shrunk.problem.source.sign
    return {
        "mean_true": sign * float(values.mean()),
        "max_true": sign * float(values.max()),
        "full_mean_true": sign * float(truth.values.mean()),
        "full_max_true": sign * truth.best,
        "kept_best": bool(values.max() == truth.best),
        "top10_kept": top_kept(values, truth.values),
        **good_metrics(values, truth.values),
    }


def _by_prediction(shrunk: Shrunk) -> tuple[dict[str, Any], list[str]]:
    """Return metrics by prediction, and notes on their reliability."""
    state, problem = shrunk.state, shrunk.problem
    archive, space = state.archive, problem.space
    full, values = state.values(state.reference), shrunk.sampled_values
    sign = problem.source.sign
    found: dict[str, Any] = {
        "mean_predicted": sign * float(values.mean()),
        "best_predicted": sign * float(values.max()),
        "full_mean_predicted": sign * float(full.mean()),
        "full_best_predicted": sign * float(full.max()),
        **good_metrics(values, full),
    }
    notes = []
    if isinstance(space, DeclaredSpace) and not space.size_exact:
        minimum, maximum, confidence = space.size_interval(stream(0, "size", space.name))
        found |= {"full_size_low": minimum, "full_size_high": maximum}
        notes.append(
            f"{space.size():,} is the number of descriptions; {minimum:.4g} to {maximum:.4g} of them are different "
            f"networks ({100 * confidence:g} %)"
        )
    elif not space.size_exact:
        notes.append(f"{space.size():,} is the number of descriptions; some are the same network, also in what is left")
    if failed := int((archive.label_round == FAILED).sum()):
        notes.append(f"{failed:,} networks were to be labelled and gave no value; they are left out")
    found |= (reliability := _reliability(shrunk))
    if reliability.get("tau_low", 1.0) < WEAK_TAU:
        notes.append(
            f"the predictor is too weak to trust: its cross-validated tau is {found['tau']:.2f}, and may be as low "
            f"as {found['tau_low']:.2f} (95 %); collect more labels (`lissnas suggest`), or look for what is wrong "
            "with them"
        )
    return found, notes


def _reliability(shrunk: Shrunk) -> dict[str, Any]:
    """Return the predictor's cross-validated tau with its interval, and weight and tau of its members."""
    state, problem = shrunk.state, shrunk.problem
    labelled = state.archive.labelled
    if problem.predictor is not None or not len(labelled):
        return {}
    if len(state.cross_validated) != len(labelled):  # the query budget was spent before the labels
        state = state.fit(problem)
    assert isinstance(state.predictor, Predictor)
    tau, low, high = tau_interval(state.cross_validated, state.archive.labels[labelled])
    return {"tau": tau, "tau_low": low, "tau_high": high, **state.predictor.member_metrics()}


@dataclass(frozen=True)
class ShrinkResult:
    """A shrunk space with predictor and metrics; computed by a shrink, or read from its folder.

    Example:
        >>> import lissnas
        >>> table = lissnas.benchmark("nas_bench_macro")
        >>> result = lissnas.shrink(table.space, oracle=table)
        >>> result.metrics["labels"], result.metrics["kept_best"]
        (300, True)
        >>> result.to_pandas().shape
        (450, 4)
    """

    space: Space
    subspace: Subspace
    predictor: Scorer
    """Ranks architectures (`score`) and converts scores to the metric's unit (`value`); negative if it is minimized."""
    iterations: Sequence[Mapping[str, Any]]
    """One row per iteration, with the columns of `iterations.parquet`."""
    metrics: Mapping[str, Any]
    """Content of `metrics.json`."""
    parameters: Mapping[str, Any]
    files: Callable[[], Mapping[str, bytes]]
    """Creates or reads the files of the result's folder."""

    def __repr__(self) -> str:
        return f"<ShrinkResult {self.space.name}: {self.space.size():,} to {self.subspace.size():,} architectures>"

    @classmethod
    def of(cls, shrunk: Shrunk) -> ShrinkResult:
        """Return the result of a finished loop."""
        assert shrunk.state.predictor is not None
        return cls(
            shrunk.problem.space,
            shrunk.subspace,
            shrunk.state.predictor,
            shrunk.state.records,
            metrics_of(shrunk),
            shrunk.problem.params.stored(),
            lambda: files_of(shrunk),
        )

    @classmethod
    def read(cls, folder: Path, space: Space | None = None) -> ShrinkResult:
        """Read the result in a shrink's folder, after verifying its files.

        `space` is only needed for a space defined in Python. Raises DamagedFile, and UserError for a folder of another
        kind or one without a predictor, because a surrogate was queried directly.
        """
        manifest = artifacts.verify(folder)
        if "subspace.json" not in manifest:
            raise UserError(f"{folder} contains no shrunk space; give the folder of a finished shrink")
        name = artifacts.read_json(folder / "subspace.json")["space"]
        if space is None and "space.yaml" in manifest:
            space = parse_space((folder / "space.yaml").read_text(), str(folder / "space.yaml"))
        space = get_space(name) if space is None else space
        return cls(
            space,
            read_subspace(folder, space),
            predictor_in(folder, space),
            pq.read_table(folder / "iterations.parquet").to_pylist(),
            artifacts.read_json(folder / "metrics.json"),
            artifacts.read_json(folder / PARAMETERS),
            lambda: {name: artifacts.read_verified(folder, name, manifest) for name in manifest if name != PARAMETERS},
        )

    def save(self, folder: Path | str, force: bool = False) -> Path:
        """Write the result's files to `folder`, as `lissnas shrink` does, and return it.

        Does nothing if they already exist. Raises UserError if the folder has a result of other parameters, unless
        `force` replaces it.
        """
        return run(Path(folder), self.parameters, lambda: dict(self.files()), force).folder

    def to_pandas(self) -> pd.DataFrame:
        """Return the members as a data frame with the columns of `subspace.parquet`, best predicted first."""
        return pq.read_table(pa.BufferReader(self.files()["subspace.parquet"])).to_pandas()
