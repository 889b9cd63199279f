"""True values of architectures: tables of labels, programs, trainings, and the logs that keep them."""

from __future__ import annotations

from lissnas.oracles.base import CountedOracle, Oracle, ask
from lissnas.oracles.cache import Remembered
from lissnas.oracles.command import CommandOracle, OracleFailed, ask_program, negative, split_command
from lissnas.oracles.label_collection import (
    Attempt,
    LabelFailed,
    Labeller,
    LabellerUnavailable,
    LabelLog,
    Runner,
    collect,
    one_by_one,
    said,
)
from lissnas.oracles.label_table import (
    FAILED,
    NUMBER,
    STATUS,
    Labels,
    header_of,
    less_is_better,
    metric_of,
    read_archs,
    read_labels,
    read_rows,
    rows_like,
    to_csv,
    turned_round,
    write_rows,
)
from lissnas.oracles.training_worker import TrainingOracle, checkpoint_of, depends_on, setup_of, train_label, trainer_of

__all__ = [
    "FAILED",
    "NUMBER",
    "STATUS",
    "Attempt",
    "CommandOracle",
    "CountedOracle",
    "LabelFailed",
    "LabelLog",
    "Labeller",
    "LabellerUnavailable",
    "Labels",
    "Oracle",
    "OracleFailed",
    "Remembered",
    "Runner",
    "TrainingOracle",
    "ask",
    "ask_program",
    "checkpoint_of",
    "collect",
    "depends_on",
    "header_of",
    "less_is_better",
    "metric_of",
    "negative",
    "one_by_one",
    "read_archs",
    "read_labels",
    "read_rows",
    "rows_like",
    "said",
    "setup_of",
    "split_command",
    "to_csv",
    "train_label",
    "trainer_of",
    "turned_round",
    "write_rows",
]
