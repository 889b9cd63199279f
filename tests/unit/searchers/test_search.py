"""Evolutionary search in a shrunk set, and the files it reads and writes."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import (  # noqa: E402
    artifacts,
    benchmarks,
    config,
    nets,
    spaces,
)
from lissnas.benchmarks import Benchmark  # noqa: E402
from lissnas.config import SearchConfig  # noqa: E402
from lissnas.core.errors import DamagedFile, LissnasError, UserError  # noqa: E402
from lissnas.nets import files  # noqa: E402
from lissnas.nets import images as nets_images  # noqa: E402
from lissnas.nets.evaluation import SupernetOracle  # noqa: E402
from lissnas.nets.training import use_ghost_batches  # noqa: E402
from lissnas.searchers import History, Limits, top  # noqa: E402
from lissnas.searchers.evolution import evolutionary_search as search  # noqa: E402
from lissnas.searchers.evolution import offspring  # noqa: E402
from lissnas.shrinkers import description  # noqa: E402
from lissnas.spaces import Archs, FloatArray, Space  # noqa: E402
from lissnas.spaces.choices import ChoiceSpace  # noqa: E402
from lissnas.spaces.members import read_members  # noqa: E402
from tests.small_nets import SMALL, images  # noqa: E402

MACRO = benchmarks.get("nas_bench_macro")
CELLS = spaces.get("nasbench101")


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer than `seconds`."""

    def on_alarm(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class RecordingOracle:
    """A table that records which architectures were queried."""

    def __init__(self, table: Benchmark) -> None:
        self.table, self.space = table, table.space
        self.keys: list[int] = []

    def __call__(self, archs: Archs) -> FloatArray:
        self.keys += self.space.key(archs).tolist()
        return self.table(archs)


def search_config(**changes: Any) -> SearchConfig:
    shared = config.load(None, {}, benchmarks.names()).search
    published = {"population": 50, "generations": 20, "recalibration_batches": 2}  # SPOS
    return SearchConfig.model_validate({**shared.model_dump(), **published, **changes})


DEFAULT = search_config()
QUICK = DEFAULT.model_copy(update={"population": 10, "generations": 6, "parents": 4})


def some(n: int, seed: int = 0, space: Space = MACRO.space) -> Archs:
    return space.sample_distinct(n, np.random.default_rng(seed))


def keys_of(rows: Archs, space: Space = MACRO.space) -> set[int]:
    return set(space.key(rows).tolist())


def equal(a: History, b: History) -> bool:
    return bool((a.rows == b.rows).all() and (a.scores == b.scores).all() and (a.generation == b.generation).all())


# -- queries ---------------------------------------------------------------------------------------
@settings(max_examples=40)
@given(
    st.integers(1, 200),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(1, 12),
    st.floats(0.01, 1),
    st.integers(0, 9),
)
def test_search_evaluates_members_once(
    size: int, population: int, generations: int, parents: int, mutation: float, seed: int
) -> None:
    oracle = RecordingOracle(MACRO)
    members = some(size, seed)
    settings = QUICK.model_copy(
        update={"population": population, "generations": generations, "parents": parents, "mutation": mutation}
    )
    history = search(MACRO.space, members, oracle, settings, Limits(), seed)
    assert len(oracle.keys) == len(set(oracle.keys)) == min(size, population * generations)
    assert set(oracle.keys) <= keys_of(members)
    assert MACRO.space.key(history.rows).tolist() == oracle.keys
    assert (history.scores == MACRO(history.rows)).all()
    assert (np.diff(history.generation) >= 0).all()
    assert np.bincount(history.generation).max() <= population


def test_set_no_larger_than_the_search_is_evaluated_completely() -> None:
    for n in (1, 59, 60):
        members = some(n)
        history = search(MACRO.space, members, MACRO, QUICK, Limits(), 0)
        assert keys_of(history.rows) == keys_of(members)
        assert int(history.generation[-1]) == (n - 1) // 10
    assert len(search(MACRO.space, some(61), MACRO, QUICK, Limits(), 0).rows) == 60


def test_duplicate_members_are_evaluated_once() -> None:
    for n in (20, 200):  # the whole set, and evolution
        oracle = RecordingOracle(MACRO)
        search(MACRO.space, np.concatenate([some(n), some(n)]), oracle, QUICK, Limits(), 0)
        assert len(oracle.keys) == len(set(oracle.keys))


def test_search_is_deterministic_for_a_seed() -> None:
    a, b, c = (search(MACRO.space, some(300), MACRO, QUICK, Limits(), seed) for seed in (0, 0, 1))
    assert equal(a, b)
    assert (a.rows != c.rows).any()


@pytest.mark.parametrize(
    ("bad", "what"), [(np.nan, r"all 10 evaluations .* failed \(nan\)"), (-np.inf, "the oracle returned -inf for")]
)
def test_score_that_is_not_finite_is_refused(bad: float, what: str) -> None:
    members = some(30)
    with pytest.raises(LissnasError, match=what):
        search(MACRO.space, members, lambda archs: np.full(len(archs), bad), QUICK, Limits(), 0)


# -- limits ------------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_members_above_a_limit_are_not_evaluated(flops: float, params: float, seed: int) -> None:
    members = some(200, seed)
    costs = MACRO.space.costs(members)
    limits = {"flops": float(np.quantile(costs["flops"], flops)), "params": float(np.quantile(costs["params"], params))}
    oracle = RecordingOracle(MACRO)
    try:
        history = search(MACRO.space, members, oracle, QUICK, Limits(**limits), seed)
    except UserError:
        assert (np.array([costs[name] > limit for name, limit in limits.items()]).any(axis=0)).all()
        assert not oracle.keys
        return
    found = MACRO.space.costs(history.rows)
    assert all(found[name].max() <= limit for name, limit in limits.items())


def test_limit_is_inclusive() -> None:
    members = some(50)
    flops = np.sort(MACRO.space.costs(members)["flops"])
    assert len(Limits(flops=float(flops[7])).keep(MACRO.space, members)) == int((flops <= flops[7]).sum())
    assert (Limits().keep(MACRO.space, members) == members).all()


@pytest.mark.parametrize("name", ["flops", "params"])
def test_unreachable_limit_names_the_smallest_cost(name: str) -> None:
    members = some(50)
    smallest = int(MACRO.space.costs(members)[name].min())
    with pytest.raises(
        UserError, match=f"no network .* within the limits; the smallest has.* {smallest / 1e6:,.2f} M {name}"
    ):
        search(MACRO.space, members, MACRO, QUICK, Limits(**{name: smallest - 1.0}), 0)


def test_smallest_network_in_the_message_violates_a_limit() -> None:
    """Two networks, each within one limit only: the reported one must violate the other."""
    rows = MACRO.space.enumerate()
    costs = {name: values.astype(float) for name, values in MACRO.space.costs(rows).items()}
    a = int(np.argmax(costs["params"] / costs["flops"]))
    b = int(np.flatnonzero((costs["flops"] > costs["flops"][a]) & (costs["params"] < costs["params"][a]))[0])
    limits = Limits(costs["flops"][a], costs["params"][b])
    with pytest.raises(UserError, match="no network") as caught:
        limits.keep(MACRO.space, rows[[a, b]])
    both = f"{costs['flops'][a] / 1e6:,.2f} M flops, {costs['params'][b] / 1e6:,.2f} M params"
    assert both not in str(caught.value)


def test_empty_set_is_refused() -> None:
    with pytest.raises(UserError, match="the shrunk space is empty: there is nothing to search"):
        search(MACRO.space, some(1)[:0], MACRO, QUICK, Limits(), 0)


def test_limit_on_an_unknown_cost_is_refused() -> None:
    space = ChoiceSpace("plain", [3, 3])
    assert not space.costs(space.enumerate())
    with pytest.raises(UserError, match="space plain knows no flops, so they can't be limited"):
        Limits(flops=1e6).keep(space, space.enumerate())
    history = search(space, space.enumerate(), lambda archs: archs.sum(axis=1), QUICK, Limits(), 0)
    assert top(space, history, 1) == [{"arch": "22", "score": 4.0}]


# -- quality of the result -------------------------------------------------------------------------
def assert_best_in_top(table: Benchmark, members: Archs, limits: Limits, seed: int) -> None:
    inside = limits.keep(table.space, members)
    history = search(table.space, members, table, DEFAULT, limits, seed)
    found = top(table.space, history, 10)
    assert len(found) == 10
    assert found[0]["score"] == table(inside).max()
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    rows = table.space.parse([row["arch"] for row in found])
    assert table(rows).tolist() == scores
    costs = table.space.costs(rows)
    assert all(costs[name].tolist() == [row[name] for row in found] for name in ("flops", "params"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [1_500, 3_969])
def test_best_of_nas_bench_macro_under_a_limit_is_found(size: int, share: float) -> None:
    members = some(size) if size < MACRO.space.size() else MACRO.space.enumerate()
    limit = float(np.quantile(MACRO.space.costs(members)["flops"], share))
    for seed in range(3):
        assert_best_in_top(MACRO, members, Limits(flops=limit), seed)


def shrunk_cells(n: int) -> Archs:
    """Return cells as a shrink selects them: the best of many by a noisy score."""
    rng = np.random.default_rng(0)
    rows = CELLS.sample_distinct(20_000, rng)
    scores = benchmarks.get("nasbench101")(rows) + rng.normal(0, 0.5, len(rows))
    return rows[np.argsort(-scores)[:n]]


def test_best_cells_under_a_limit_are_found_in_seconds() -> None:
    members = shrunk_cells(4_000)
    params = CELLS.costs(members)["params"]
    with within(10):
        for seed, share in enumerate((0.5, 1.0, 1.0)):
            limit = float(np.quantile(params, share))
            assert_best_in_top(benchmarks.get("nasbench101"), members, Limits(params=limit), seed)


def test_evolution_is_better_than_random_search() -> None:
    """Later generations are better than the first, which is random."""
    members = MACRO.space.enumerate()
    gains = []
    for seed in range(5):
        h = search(MACRO.space, members, MACRO, DEFAULT, Limits(), seed)
        gains.append(h.scores[(h.generation > 0) & (h.generation < 6)].mean() - h.scores[h.generation == 0].mean())
    assert min(gains) > 1


# -- offspring -------------------------------------------------------------------------------------
def history_of(rows: Archs, scores: Any) -> History:
    return History(rows, np.asarray(scores, np.float64), np.zeros(len(rows), np.int64))


@pytest.mark.parametrize("space", [MACRO.space, CELLS], ids=["nas_bench_macro", "nasbench101"])
def test_mutated_child_that_is_a_member_is_kept(space: Space) -> None:
    """All neighbors of the only parent are members, so the child is one of them."""
    settings = DEFAULT.model_copy(update={"population": 2, "mutation": 1e-9})
    for seed in range(5):
        parent = some(1, seed, space)
        near = space.neighbors(parent)[0]
        pool = np.concatenate([parent, near, some(500, 100 + seed, space)])
        members = pool[np.sort(np.unique(space.key(pool), return_index=True)[1])]
        history = history_of(parent, [1.0])
        children = offspring(space, members, space.key(members), history, settings, np.random.default_rng(seed))
        assert keys_of(children[:1], space) <= keys_of(near, space)


def test_crossover_child_that_is_a_member_is_kept() -> None:
    """All members except the two parents are available, so every other child is one of them."""
    space = MACRO.space
    members = space.enumerate()
    settings = DEFAULT.model_copy(update={"population": 1})
    children = replaced = 0
    for seed in range(60):
        parents = some(2, seed)
        differ = np.flatnonzero(parents[0] != parents[1])
        if len(differ) < 5:  # the child would be a parent too often
            continue
        mask = np.arange(1 << len(differ))[:, None] >> np.arange(len(differ)) & 1
        crosses = np.repeat(parents[:1], len(mask), axis=0)
        crosses[:, differ] = parents[mask, differ]
        history, rng = history_of(parents, [1.0, 1.0]), np.random.default_rng(seed)
        child = offspring(space, members, space.key(members), history, settings, rng)
        children += 1
        replaced += not keys_of(child) <= keys_of(crosses)
    assert children > 30
    # At most one in sixteen children equals a parent and is replaced by a neighbour.
    assert replaced <= children / 16 + 3


def test_child_outside_is_replaced_by_the_nearest_available_member() -> None:
    space = ChoiceSpace("long", [3] * 10)
    members = space.parse(["0000000001", "0000000011", "2222222222", "2222222221", "2222222211"])
    history = history_of(members[2:3], [1.0])
    settings = DEFAULT.model_copy(update={"population": 2, "mutation": 1e-9})
    children = offspring(space, members, space.key(members), history, settings, np.random.default_rng(0))
    assert space.format(children) == ["2222222221", "2222222211"]


def test_children_are_distinct_unevaluated_members() -> None:
    members = some(400)
    known = history_of(members[:100], np.arange(100))
    for seed in range(10):
        keys = MACRO.space.key(members)
        children = offspring(MACRO.space, members, keys, known, DEFAULT, np.random.default_rng(seed))
        assert len(keys_of(children)) == len(children) == 50
        assert keys_of(children) <= keys_of(members[100:])


def test_all_remaining_members_are_used_if_fewer_than_the_population() -> None:
    members = some(30)
    known = history_of(members[:20], np.arange(20))
    keys = MACRO.space.key(members)
    children = offspring(MACRO.space, members, keys, known, DEFAULT, np.random.default_rng(0))
    assert keys_of(children) == keys_of(members[20:])


# -- interruptions -----------------------------------------------------------------------------------
class Interrupted(Exception):
    pass


@pytest.mark.parametrize("size", [45, 300])
@pytest.mark.parametrize("generation", [0, 2, 4])
def test_resumed_search_gives_the_same_history(size: int, generation: int, tmp_path: Path) -> None:
    members = some(size)

    def stop(history: History) -> None:
        if history.generation[-1] == generation:
            raise Interrupted

    whole = search(MACRO.space, members, MACRO, QUICK, Limits(), 0)
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {})
    with pytest.raises(Interrupted):
        search(MACRO.space, members, MACRO, QUICK, Limits(), 0, checkpoint, stop)
    oracle = RecordingOracle(MACRO)
    assert equal(search(MACRO.space, members, oracle, QUICK, Limits(), 0, checkpoint), whole)
    assert len(oracle.keys) == len(whole.rows) - int((whole.generation <= generation).sum())
    assert equal(search(MACRO.space, members, oracle, QUICK, Limits(), 0, checkpoint), whole)  # already finished


# -- reading the members -----------------------------------------------------------------------------
def write_members(folder: Path, names: Any, space: str = "nas_bench_macro", manifest: bool = True) -> Path:
    table = artifacts.to_parquet({"arch": names, "predicted": np.zeros(len(names))})
    if not manifest:
        folder.mkdir()
        (folder / "subspace.parquet").write_bytes(table)
    else:
        artifacts.publish(folder, {"subspace.parquet": table, "subspace.json": artifacts.to_json({"space": space})})
    return folder


@pytest.mark.parametrize("manifest", [True, False])
def test_members_are_read_from_a_folder_or_its_file(manifest: bool, tmp_path: Path) -> None:
    members = some(30)
    folder = write_members(tmp_path / "r", MACRO.space.format(members), manifest=manifest)
    for path in (folder, folder / "subspace.parquet"):
        assert (read_members(path, MACRO.space) == members).all()


def test_members_are_read_from_a_file_of_any_name(tmp_path: Path) -> None:
    folder = write_members(tmp_path / "r", MACRO.space.format(some(3)), manifest=False)
    path = (folder / "subspace.parquet").rename(tmp_path / "mine.parquet")
    assert len(read_members(path, MACRO.space)) == 3


def test_subspace_of_another_space_is_refused(tmp_path: Path) -> None:
    names = CELLS.format(some(3, space=CELLS))
    marked = write_members(tmp_path / "a", names, "nasbench101")
    bare = write_members(tmp_path / "b", names, manifest=False)
    with pytest.raises(UserError, match="a subset of space 'nasbench101', not of 'nas_bench_macro'"):
        read_members(marked, MACRO.space)
    with pytest.raises(UserError, match=r"subspace\.parquet is not of space nas_bench_macro: architecture in row 0"):
        read_members(bare, MACRO.space)


def test_empty_subspace_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    import pyarrow as pa

    (folder / "subspace.parquet").write_bytes(artifacts.to_parquet({"arch": pa.array([], pa.string())}))
    with pytest.raises(UserError, match=r"subspace\.parquet is empty: there is nothing to search"):
        read_members(folder, MACRO.space)


@pytest.mark.parametrize(
    "data", [b"", b"arch\n00000000\n", b"PAR1" + b"\0" * 40 + b"PAR1"], ids=["empty", "csv", "zeros"]
)
def test_file_that_is_not_parquet_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "subspace.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"subspace\.parquet is not a shrunk space"):
        read_members(tmp_path, MACRO.space)


@pytest.mark.parametrize(
    "columns",
    [
        {"name": ["00000000"]},
        {"arch": [12, 13]},
        {"arch": ["00000000", None]},
        {"arch": [[1]]},
    ],
    ids=["no arch", "numbers", "a gap", "lists"],
)
def test_table_without_architectures_is_refused(columns: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "subspace.parquet").write_bytes(artifacts.to_parquet(columns))
    with pytest.raises(UserError, match=r"subspace\.parquet is not (of|a shrunk) space"):
        read_members(tmp_path, MACRO.space)


@pytest.mark.parametrize("name", ["nothing", "nothing.parquet"])
def test_missing_subspace_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=rf"{name}.*: no such file\. Pass the subspace\.parquet of a finished shrink"):
        read_members(tmp_path / name, MACRO.space)


def test_flipped_bit_is_detected(tmp_path: Path) -> None:
    folder = write_members(tmp_path / "r", MACRO.space.format(some(30)))
    data = bytearray((folder / "subspace.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "subspace.parquet").write_bytes(data)
    for path in (folder, folder / "subspace.parquet"):
        with pytest.raises(DamagedFile, match=r"subspace\.parquet is damaged: .*Make it again"):
            read_members(path, MACRO.space)


# -- networks on disk --------------------------------------------------------------------------------
def perturbed(model: Any, *path: Any) -> Any:
    """Change the statistics and weights of a model from their initial values."""
    model.train()
    for seed in range(2):
        model(images(8, seed=seed), *path)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model.eval()


def a_network(space: Space) -> Any:
    return perturbed(nets.network(space.name, some(1, 3, space)[0], **SMALL))


def export(model: Any, folder: Path, **more: bytes) -> Path:
    about = files.describe_network(model, 16, {"validation": 50.0})
    artifacts.publish(folder, {files.WEIGHTS: files.weights(model), files.ABOUT: artifacts.to_json(about), **more})
    return folder


@pytest.mark.parametrize("name", nets.names())
def test_exported_network_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    model = a_network(spaces.get(name))
    loaded = files.load(export(model, tmp_path / "r"))
    assert not loaded.training
    assert loaded.path == model.path
    assert torch.equal(loaded(images(5)), model(images(5)))


def test_load_is_exported_by_the_package() -> None:
    assert "load" in nets.__all__
    assert vars(nets)["load"] is files.load


def test_description_of_an_exported_network(tmp_path: Path) -> None:
    model = a_network(CELLS)
    about = json.loads((export(model, tmp_path / "r") / "network.json").read_text())
    assert about["space"] == "nasbench101"
    assert CELLS.parse([about["arch"]])[0].tolist() == list(model.path)
    assert (about["side"], about["width"], about["stem_stride"], about["classes"]) == (16, 0.25, 1, 10)
    assert about["validation"] == 50.0


@pytest.mark.parametrize("name", ["nas_bench_macro", "nasbench101"])
def test_portable_network_gives_the_same_logits_at_any_batch_size(name: str) -> None:
    model = a_network(spaces.get(name))
    use_ghost_batches(model, 2)
    program = torch.export.load(io.BytesIO(files.portable(model, 16))).module()
    for n in (1, 2, 7):
        torch.testing.assert_close(program(images(n)), model(images(n)), rtol=1e-5, atol=1e-5)


def test_making_a_network_portable_does_not_change_it() -> None:
    model = a_network(MACRO.space)
    before = files.weights(model)
    files.portable(model, 16)
    assert files.weights(model) == before


@pytest.mark.parametrize("name", [files.WEIGHTS, files.ABOUT])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-7], lambda data: b"", lambda data: data[:50] + b"!" + data[51:]]
)
def test_truncated_network_is_refused(name: str, damage: Any, tmp_path: Path) -> None:
    folder = export(a_network(MACRO.space), tmp_path / "r")
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(DamagedFile, match=rf"{name} is damaged: .*Make it again"):
        files.load(folder)


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    """Also if their checksum matches the manifest."""
    model = a_network(MACRO.space)
    good = files.weights(model)
    about = artifacts.to_json(files.describe_network(model, 16, {}))
    for i, data in enumerate((good[:-7], b"", b"\0" * 99)):
        artifacts.publish(tmp_path / str(i), {files.WEIGHTS: data, files.ABOUT: about})
        with pytest.raises(LissnasError, match=f"{tmp_path}"):
            files.load(tmp_path / str(i))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    one, other = (nets.network("nas_bench_macro", [c] * 8, **SMALL) for c in (1, 2))
    about = artifacts.to_json(files.describe_network(one, 16, {}))
    artifacts.publish(tmp_path / "r", {files.WEIGHTS: files.weights(other), files.ABOUT: about})
    with pytest.raises(UserError, match=r"the weights in .*r don't fit"):
        files.load(tmp_path / "r")


def test_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        files.load(tmp_path)
    artifacts.publish(tmp_path / "r", {"x": b"1"})
    with pytest.raises(UserError, match="r holds no exported network"):
        files.load(tmp_path / "r")


# -- supernets on disk -------------------------------------------------------------------------------
def save_supernet(model: Any, members: Archs, affine: bool, folder: Path) -> Path:
    about = artifacts.to_json(files.describe_supernet(model, members))
    artifacts.publish(folder, {files.SUPERNET_WEIGHTS: files.weights(model), files.SUPERNET_ABOUT: about})
    return folder


@pytest.mark.parametrize("name", nets.names())
@pytest.mark.parametrize("affine", [True, False])
def test_saved_supernet_gives_the_same_logits(name: str, affine: bool, tmp_path: Path) -> None:
    members = some(3, space=spaces.get(name))
    model = perturbed(nets.supernet(name, members, affine=affine, **SMALL), members[0])
    loaded = files.load_supernet(save_supernet(model, members, affine, tmp_path / "r"), members[::-1])
    assert not loaded.training
    assert all(torch.equal(loaded(images(4), row), model(images(4), row)) for row in members)


def test_supernet_of_other_networks_is_refused(tmp_path: Path) -> None:
    members = some(5)
    model = nets.supernet("nas_bench_macro", members, **SMALL)
    folder = save_supernet(model, members, True, tmp_path / "r")
    others: list[tuple[Archs, str]] = [(members[:4], "4"), (some(5, 1), "5")]
    for other, n in others:
        with pytest.raises(UserError, match=rf"trained on other networks \(5 of nas_bench_macro\) .* has \({n}\)"):
            files.load_supernet(folder, other)


def test_supernet_of_another_space_is_refused(tmp_path: Path) -> None:
    members = some(5)
    folder = save_supernet(nets.supernet("nas_bench_macro", members, **SMALL), members, True, tmp_path / "r")
    with pytest.raises(UserError, match="nas_bench_macro"):
        files.load_supernet(folder, some(3, space=CELLS))


@pytest.mark.parametrize("name", [files.SUPERNET_WEIGHTS, files.SUPERNET_ABOUT])
def test_truncated_supernet_is_refused(name: str, tmp_path: Path) -> None:
    members = some(3)
    folder = save_supernet(nets.supernet("nas_bench_macro", members, **SMALL), members, True, tmp_path / "r")
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    with pytest.raises(DamagedFile, match=rf"{name} is damaged: .*Make it again"):
        files.load_supernet(folder, members)


def test_folder_without_a_supernet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="r holds no supernet"):
        files.load_supernet(export(a_network(MACRO.space), tmp_path / "r"), some(3))


# -- the stage that trains a supernet ----------------------------------------------------------------
def train_stage(folder: Path, space: Space, members: Archs | None, **changes: Any) -> dict[str, str]:
    from lissnas.stages.supernet import supernet_stage

    overrides = {
        "images.side": 8,
        "supernet.width": 0.25,
        "torch.device": "cpu",
        "torch.threads": 1,
        "recipes.cpu.steps": 3,
        "recipes.cpu.batch_size": 8,
        "recipes.cpu.report_every": 2,
        **changes,
    }
    params = config.load(None, overrides, benchmarks.names())
    return artifacts.verify(supernet_stage(params, space, members, 0, folder).folder)


@pytest.mark.parametrize("name", ["shufflenetv2", "nasbench101"])
def test_supernet_of_the_stage_is_loaded(name: str, tmp_path: Path) -> None:
    members = some(3, space=spaces.get(name))
    train_stage(tmp_path / "r", spaces.get(name), members)
    loaded = files.load_supernet(tmp_path / "r", members)
    assert torch.isfinite(loaded(images(2), members[0])).all()


@pytest.mark.parametrize("sampler", ["uniform", "fair"])
def test_supernet_of_the_whole_space_evaluates_any_network(sampler: str, tmp_path: Path) -> None:
    space = spaces.get("fairnas")
    train_stage(tmp_path / "r", space, None, **{"supernet.sampler": sampler})
    rows = some(4, space=space)
    loaded = files.load_supernet(tmp_path / "r", None)
    with_members = files.load_supernet(tmp_path / "r", rows)
    assert torch.isfinite(loaded(images(2), rows[0])).all()
    assert (loaded(images(2), rows[0]) == with_members(images(2), rows[0])).all()
    about = json.loads((tmp_path / "r" / "supernet.json").read_text())
    assert about["networks"] == space.size() == 6**19


def test_supernet_of_some_networks_is_refused_for_the_whole_space(tmp_path: Path) -> None:
    space = spaces.get("fairnas")
    train_stage(tmp_path / "r", space, some(3, space=space))
    with pytest.raises(UserError, match="trained on 3 networks, but the whole of fairnas"):
        files.load_supernet(tmp_path / "r", None)


def test_balanced_sampler_is_refused_for_a_whole_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="balanced needs a list of networks"):
        train_stage(tmp_path / "r", spaces.get("fairnas"), None, **{"supernet.sampler": "balanced"})
    assert not (tmp_path / "r").exists()


def test_shrink_with_labels_of_a_supernet(tmp_path: Path) -> None:
    """Labels are a supernet's accuracies, as in section C.2 of the paper."""
    from lissnas.stages.shrink import shrink_stage

    space = spaces.get("fairnas")
    train_stage(tmp_path / "supernet", space, None, **{"recipes.cpu.steps": 20, "images.side": 16})
    settings = {
        "shrink.target_size": 300,
        "shrink.labels": 40,
        "shrink.elite.first_labels": 1.0,  # most paths of so short a training have the accuracy of chance
        "shrink.elite.max_iterations": 8,
        "search.images": 100,
        "search.recalibration_batches": 1,
        "search.batch_size": 100,
        "images.side": 16,
        "torch.device": "cpu",
    }
    given = description.Description(space="fairnas", oracle_supernet=tmp_path / "supernet")
    params, source = given.load(None, settings, tmp_path / "out")
    metrics = shrink_stage(params, source, 0, tmp_path / "out", threads=1).metrics
    assert (metrics["size"], metrics["labels"]) == (300, 40)
    model = SupernetOracle.of(
        files.load_supernet(tmp_path / "supernet", None),
        nets_images.load(params.images, params.recipes["cpu"]),
        params.search,
    )
    labels = pq.read_table(tmp_path / "out" / "labels.parquet").to_pydict()
    assert model(space.parse(labels["arch"][:5])).tolist() == pytest.approx(labels["value"][:5])
    _, other = given.load(None, {**settings, "search.images": 400}, tmp_path / "out")
    assert other.digest != source.digest


def test_supernet_is_a_function_of_its_parameters(tmp_path: Path) -> None:
    """Parameters name the set of members, so their order must not matter or be part of the parameters."""
    members = some(6)
    one = train_stage(tmp_path / "a", MACRO.space, members)
    other = train_stage(tmp_path / "b", MACRO.space, members[::-1])
    assert one["parameters.json"] != other["parameters.json"] or one == other
