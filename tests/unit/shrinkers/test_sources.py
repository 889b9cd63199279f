"""Input of a shrink: spaces by name or file, their oracles, and options that can't be combined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks, spaces
from lissnas.benchmarks import surrogates
from lissnas.config import Params
from lissnas.core.errors import ConfigError, LissnasError, UserError
from lissnas.oracles import training_worker
from lissnas.oracles.cache import CachedOracle
from lissnas.oracles.label_collection import Attempt
from lissnas.oracles.label_table import write_rows
from lissnas.oracles.reuse import Reuse
from lissnas.oracles.training_worker import TrainingOracle
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import (
    ACCEL_VALUES,
    GPT_VALUES,
    INHERITED,
    NB301_VALUES,
    OFA_VALUES,
    SMALL_NETWORKS,
    SUPERNETS,
    TRAINED,
    Source,
    from_space,
    get_space,
    packaged,
)
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.stages.shrink import shrink_stage

TEXT = """\
name: NAME
metric: {name: acc, direction: maximize}
positions:
  - {name: a, choices: [1, 2, 3, 4, 5]}
  - {name: b, choices: [1, 2, 3, 4, 5]}
  - {name: c, choices: [1, 2, 3, 4, 5]}
  - {name: d, choices: [1, 2, 3, 4, 5]}
"""


def truth(archs: Archs) -> FloatArray:
    return np.asarray(archs.sum(axis=1) / 4, np.float64)


def write_labels(path: Path, space: Space, n: int, seed: int = 0, header: str | None = None) -> Path:
    archs = space.sample_distinct(n, np.random.default_rng(seed))
    first, *rows = write_rows(space, archs).decode().splitlines()
    values = truth(archs).tolist()
    path.write_text("\n".join([header or first, *(f"{r}{v}" for r, v in zip(rows, values, strict=True))]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working directory with a space and its labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(TEXT.replace("NAME", "mine"))
    write_labels(tmp_path / "labels.csv", get_space("space.yaml"), 40)
    return tmp_path


def load(**given: Any) -> tuple[Params, Source]:
    overrides = given.pop("overrides", {})
    paths: dict[str, Any] = {k: Path(v) if k in ("labels", "oracle_model", "table") else v for k, v in given.items()}
    return description.Description(**paths).load(None, overrides, Path("out"))


# -- spaces ----------------------------------------------------------------------------------------
def test_space_by_name_or_file(folder: Path) -> None:
    assert get_space("fairnas") is spaces.get("fairnas")
    assert get_space("space.yaml").size() == get_space(str(folder / "space.yaml")).size() == 625


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fairnass", "Did you mean 'fairnas'"),
        ("space.yml", "no such file"),
        ("space.json", "or a file that ends in .yaml"),
        ("", "unknown space"),
        ("folder.yaml", "can't be read"),
        ("../../../etc/passwd", "unknown space"),
    ],
)
def test_unknown_space_is_refused(folder: Path, name: str, why: str) -> None:
    (folder / "folder.yaml").mkdir()
    with pytest.raises(UserError, match=why):
        get_space(name)


# -- sources ---------------------------------------------------------------------------------------
def test_source_of_a_table() -> None:
    table = benchmarks.get("nas_bench_macro")
    source = Source.of(table)
    assert (source.truth, source.oracle, source.digest, source.labels) == (table, table, table.sha256, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, INHERITED if name in SUPERNETS else SMALL_NETWORKS) for name in TRAINED),
        ("nasbench301", NB301_VALUES),
        ("ofa_mobilenetv3", OFA_VALUES),
        *((name, GPT_VALUES) for name in ("gpt_s", "gpt_m", "gpt_l")),
        ("accel_nasbench", ACCEL_VALUES),
    ],
)
def test_packaged_sources_have_a_caveat(name: str, words: str) -> None:
    source = packaged(spaces.get(name))
    assert source.truth is None
    assert source.oracle is None
    assert any(words in note for note in source.notes)
    assert (source.labels is None) != (source.scorer is None)
    if source.labels is not None:
        keys = source.space.key(source.labels.archs)
        assert len(np.unique(keys)) == len(keys) >= 20
        assert np.isfinite(source.labels.values).all()
    else:
        assert source.scorer is not None
        scores = source.scorer.score(source.space.sample(50, np.random.default_rng(0)), 1)
        assert scores.shape == (50,)
        assert len(np.unique(scores)) > 10
    assert from_space(source.space).digest == source.digest == packaged(spaces.get(name)).digest


def test_labels_from_a_surrogate_are_collected(folder: Path) -> None:
    _, source = load(space="gpt_s", labels_from="surrogate")
    archs = source.space.sample(20, np.random.default_rng(0))
    assert source.oracle is not None
    assert (source.oracle(archs) == -surrogates.gpt_perplexity("gpt_s", archs)).all()
    assert source.scorer is None
    assert source.metric == "perplexity"
    assert GPT_VALUES in source.notes[0]
    assert (source.stated["direction"], source.sign) == ("minimize", -1)
    assert source.digest != packaged(source.space).digest
    _, other = load(space="ofa_mobilenetv3", labels_from="surrogate")
    archs = other.space.sample(20, np.random.default_rng(0))
    assert other.oracle is not None
    assert (other.oracle(archs) == surrogates.ofa_accuracy(archs)).all()


@pytest.mark.parametrize("name", ["fairnas", "space.yaml"])
def test_space_without_a_published_predictor_has_no_labels_from_it(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="has no published predictor; spaces with one: ofa_mobilenetv3, gpt_s"):
        load(space=name, labels_from="surrogate")


@pytest.mark.parametrize(
    ("name", "hint"), [("nasbench101", "--benchmark nasbench101"), ("nas_bench_macro", "--labels")]
)
def test_space_with_a_table_suggests_its_benchmark(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        from_space(spaces.get(name))


def test_declared_space_without_oracle_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"space mine has no oracle: give --labels FILE .* or --oracle-command"):
        from_space(get_space("space.yaml"))


def test_digest_covers_all_inputs(folder: Path) -> None:
    space = get_space("space.yaml")
    plain = from_space(space, Path("labels.csv"))
    seen = {plain.digest}
    lines = Path("labels.csv").read_text().splitlines()
    Path("shuffled.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n\n")
    assert from_space(space, Path("shuffled.csv")).digest == plain.digest
    first, _, value = lines[1].rpartition(",")
    Path("changed.csv").write_text("\n".join([lines[0], f"{first},{float(value) + 1e-12!r}", *lines[2:]]) + "\n")
    write_labels(Path("fewer.csv"), space, 39)
    Path("other.yaml").write_text(
        TEXT.replace("NAME", "mine").replace("[1, 2, 3, 4, 5]}\n  - {name: b", "[1, 2, 3, 4, 6]}\n  - {name: b")
    )
    other = get_space("other.yaml")
    for more in (
        from_space(space, Path("changed.csv")),
        from_space(space, Path("fewer.csv")),
        from_space(other, write_labels(Path("o.csv"), other, 40)),
        from_space(space, Path("labels.csv"), oracle=truth, oracle_id="a"),
        from_space(space, oracle=truth, oracle_id="a"),
        from_space(space, oracle=truth, oracle_id="b"),
        from_space(space, scorer=SurrogateScorer(truth), oracle_id="c"),
    ):
        assert more.digest not in seen
        seen.add(more.digest)


def test_labels_to_minimize_are_negated(folder: Path) -> None:
    Path("ms.yaml").write_text(
        TEXT.replace("NAME", "mine").replace("acc, direction: maximize", "ms, direction: minimize")
    )
    space = get_space("ms.yaml")
    source = from_space(space, write_labels(Path("ms.csv"), space, 40))
    assert source.labels is not None
    assert (source.labels.values == -truth(source.labels.archs)).all()
    assert source.minimize
    assert source.metric == "ms"
    assert source.point == pytest.approx(np.ptp(source.labels.values) / 100)


def test_oracles_to_minimize_are_negated(folder: Path) -> None:
    Path("ms.yaml").write_text(
        TEXT.replace("NAME", "mine").replace("acc, direction: maximize", "ms, direction: minimize")
    )
    space = get_space("ms.yaml")
    archs = space.sample_distinct(10, np.random.default_rng(0))
    by_oracle = from_space(space, oracle=truth, oracle_id="a")
    by_scorer = from_space(space, scorer=SurrogateScorer(truth), oracle_id="b")
    assert by_oracle.oracle is not None
    assert by_scorer.scorer is not None
    assert (by_oracle.oracle(archs) == -truth(archs)).all()
    assert (by_scorer.scorer.score(archs) == -truth(archs)).all()
    assert by_oracle.minimize
    assert by_scorer.minimize
    both = from_space(space, write_labels(Path("ms.csv"), space, 40), oracle=truth, oracle_id="a")
    assert both.labels is not None
    assert both.oracle is not None
    assert (both.labels.values == both.oracle(both.labels.archs)).all()


def test_metric_is_selected_from_several(folder: Path) -> None:
    names = spaces.get("fairnas").format(spaces.get("fairnas").sample_distinct(30, np.random.default_rng(0)))
    rows = [f"{name},{i},{-i}" for i, name in enumerate(names)]
    Path("two.csv").write_text("\n".join(["arch,acc,speed", *rows]) + "\n")
    with pytest.raises(ConfigError, match="acc, speed could be the metric"):
        load(space="fairnas", labels="two.csv")
    values = [load(space="fairnas", labels="two.csv", metric=m)[1].labels for m in ("acc", "speed")]
    assert values[0] is not None
    assert values[1] is not None
    assert (values[0].values == -values[1].values).all()


# -- invalid combinations --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "either --benchmark.*or --space"),
        ({"benchmark": "nas_bench_macro", "space": "space.yaml"}, "either --benchmark.*or --space"),
        ({"labels": "labels.csv"}, "either --benchmark.*or --space"),
        ({"benchmark": "nas_bench_macro", "labels": "labels.csv"}, "--labels belongs to --space"),
        ({"benchmark": "nas_bench_macro", "metric": "acc"}, "--metric belongs to --space"),
        ({"benchmark": "nas_bench_macro", "labels_from": "training"}, "--labels-from belongs to --space"),
        ({"benchmark": "nas_bench_macro", "oracle_command": "cat"}, "--oracle-command belongs to --space"),
        ({"benchmark": "nas_bench_macro", "oracle_model": "m.ubj"}, "--oracle-model belongs to --space"),
        ({"benchmark": "nas_bench_macr"}, "Did you mean 'nas_bench_macro'"),
        ({"space": "space.yaml", "table": "x"}, "--table belongs to --benchmark"),
        ({"space": "space.yaml", "oracle_command": "cat", "oracle_model": "m"}, "--oracle-command and --oracle-model"),
        ({"space": "space.yaml", "oracle_command": "cat", "labels_from": "training"}, "--labels-from and --oracle-com"),
        ({"space": "space.yaml"}, "space mine has no oracle"),
        ({"space": "spac.yaml", "labels": "labels.csv"}, "spac.yaml: 1 problem"),
        ({"space": "space.yaml", "labels": "nothing.csv"}, "no such file"),
        (
            {"space": "space.yaml", "labels": "labels.csv", "metric": "top5"},
            "the column 'top5', the metric, is missing",
        ),
        ({"space": "space.yaml", "oracle_command": "no-such-program"}, "there is no program no-such-program on PATH"),
        ({"space": "space.yaml", "oracle_model": "no.ubj"}, "expected an XGBoost model"),
        ({"space": "space.yaml", "labels_from": "training"}, "networks of mine can't be built here"),
        ({"space": "nasbench301", "labels_from": "training"}, "."),
        ({"space": "space.yaml", "labels": "labels.csv", "overrides": {"shrink.memory": 0.1}}, "shrink.memory"),
    ],
)
def test_invalid_description_is_refused_and_nothing_is_written(folder: Path, given: dict[str, Any], why: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=why) as caught:
        load(**given)
    assert caught.value.exit_code == 2
    assert sorted(folder.iterdir()) == before


def test_problems_of_all_files_are_reported_together(folder: Path) -> None:
    Path("labels.csv").write_text(Path("labels.csv").read_text() + "9,1,1,1,70\n")
    with pytest.raises(UserError) as caught:
        load(space="space.yaml", labels="labels.csv", overrides={"shrink.memory": 0.1})
    assert "shrink.memory" in str(caught.value)
    assert "labels.csv:42" in str(caught.value)


@pytest.mark.parametrize("given", [{"oracle_model": True}, {}])
def test_labels_with_a_model_are_used_or_refused(folder: Path, given: dict[str, Any]) -> None:
    """If they are accepted, the result has the tau of the predictor."""
    import xgboost as xgb

    space = get_space("space.yaml")
    more: dict[str, Any] = {}
    if given:
        archs = space.enumerate()
        xgb.train({"nthread": 1}, xgb.DMatrix(space.encode(archs), truth(archs)), 5).save_model("m.ubj")
        more = {"oracle_model": "m.ubj"}
    try:
        params, source = load(space="space.yaml", labels="labels.csv", overrides={"shrink.target_size": 60}, **more)
        outcome = shrink_stage(params, source, 0, folder / "out", threads=1)
    except UserError:
        return
    assert "tau" in outcome.metrics


def test_space_named_like_a_benchmark_does_not_use_its_parameters(folder: Path) -> None:
    (folder / "space.yaml").write_text(TEXT.replace("NAME", "nasbench101"))
    params, source = load(space="space.yaml", labels="labels.csv")
    outcome = shrink_stage(params, source, 0, folder / "out", threads=1)
    assert outcome.metrics["size"] < 625


def test_space_named_like_a_packaged_one_is_not_trained(folder: Path) -> None:
    (folder / "space.yaml").write_text(TEXT.replace("NAME", "fairnas"))
    with pytest.raises(UserError, match="can't be built here"):
        load(space="space.yaml", labels_from="training")


def test_values_of_a_command_are_stored_next_to_the_result(folder: Path) -> None:
    _, source = load(space="space.yaml", oracle_command="cat -u")
    assert isinstance(source.oracle, CachedOracle)
    assert source.oracle.path == Path(".out.answers")
    with pytest.raises(UserError, match="--oracle-timeout belongs to --oracle-command"):
        load(space="space.yaml", labels="labels.csv", oracle_timeout=3.0)
    with_timeout = description.Description(space="space.yaml", oracle_command="cat -u", oracle_timeout=3.0)
    _, slower = with_timeout.load(None, {}, Path("elsewhere"))
    assert slower.digest == source.digest
    assert load(space="space.yaml", oracle_command="cat")[1].digest != source.digest


# -- training --------------------------------------------------------------------------------------
@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training: the sum of digits is the accuracy, names with a leading 0 fail; return the names, in order."""
    pytest.importorskip("torch")
    tried: list[str] = []

    def train(name: str) -> float:
        tried.append(name)
        if name.startswith("0"):
            raise LissnasError("diverged")
        return float(sum(map(int, name)))

    def trainer_of(setup: Any) -> Any:
        train.close = lambda: None  # type: ignore[attr-defined]
        return train

    monkeypatch.setattr(training_worker, "trainer_of", trainer_of)
    monkeypatch.setattr(description, "check", lambda *_: None)
    return tried


def test_failed_training_is_nan_and_labels_are_not_computed_twice(trained: list[str], tmp_path: Path) -> None:
    space, params = spaces.get("fairnas"), description.load_params(None, {"label.attempts": 2})
    archs = space.sample_distinct(30, np.random.default_rng(0))
    names = space.format(archs)
    failing = [n for n in names if n.startswith("0")]
    assert failing
    oracle = TrainingOracle(params, space, tmp_path / ".out.answers")
    values = oracle(archs)
    assert (np.isnan(values) == [n.startswith("0") for n in names]).all()
    assert sorted(trained) == sorted([*names, *failing])
    assert oracle(archs[::-1]).tobytes() == values[::-1].tobytes()
    keeping = TrainingOracle(params, space, tmp_path / ".out.answers", Reuse(keep_failed=True))
    assert keeping(archs).tobytes() == values.tobytes()
    assert len(trained) == len(names) + len(failing)
    again = TrainingOracle(params, space, tmp_path / ".out.answers")
    assert again(archs).tobytes() == values.tobytes()
    assert trained[len(names) + len(failing) :] == failing * 2
    assert again.reuse.note().startswith(f"{30 - len(failing)} of 30 labels are from ")


def test_training_oracle_is_identified_by_its_recipe(trained: list[str], tmp_path: Path) -> None:
    space, archs = spaces.get("fairnas"), spaces.get("fairnas").sample(3, np.random.default_rng(0))
    plain = TrainingOracle(description.load_params(None, {"label.width": 0.5}), space, tmp_path / "a")
    wider = TrainingOracle(description.load_params(None, {"label.width": 0.25}), space, tmp_path / "a")
    more_attempts = TrainingOracle(
        description.load_params(None, {"label.width": 0.5, "label.attempts": 7}), space, tmp_path / "a"
    )
    assert plain.about != wider.about
    assert plain.about == more_attempts.about
    plain(archs)
    said: list[str] = []
    wider.reuse.say = said.append
    wider(archs)
    assert trained == space.format(archs) * 2
    assert "has 3 labels that this run does not use: width changed" in said[0]
    more_attempts(archs)
    assert trained == space.format(archs) * 2
    TrainingOracle(plain.params, space, tmp_path / "a", Reuse(force=True))(archs)
    assert trained == space.format(archs) * 3


def test_shrink_with_training_omits_and_reports_failed_labels(trained: list[str], folder: Path) -> None:
    params, source = load(
        space="fairnas",
        labels_from="training",
        overrides={
            "shrink.target_size": 300,
            "shrink.labels": 60,
            "shrink.elite.max_iterations": 3,
            "label.attempts": 1,
        },
    )
    outcome = shrink_stage(params, source, 0, folder / "out", threads=1)
    failed = sum(name.startswith("0") for name in set(trained))
    assert len(trained) == len(set(trained)) == outcome.metrics["labels"] + failed
    assert any(f"{failed} networks were to be labelled and gave no value" in n for n in outcome.metrics["notes"])
    log = (folder / ".out.training" / "labels.jsonl").read_text().splitlines()
    kept = [Attempt(**json.loads(line.partition(" ")[2])) for line in log[1:]]
    assert [one.arch for one in kept] == trained
