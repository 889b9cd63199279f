"""What people see: progress while it works, tables at the end, errors without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lissnas.errors import LissnasError
from lissnas.shrinkers.state import State
from lissnas.stages import Outcome

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def run(app: Callable[[], None]) -> None:
    """Run a command; end with its exit code and a message instead of a traceback."""
    try:
        app()
    except LissnasError as error:
        err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted; the same command again goes on where it was")
        sys.exit(130)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        err.print(Text.assemble(("error: ", "bold red"), f"{error.strerror or error}{where}"), soft_wrap=True)
        sys.exit(1)


def iteration_line(state: State) -> str:
    """Return one line about the last iteration."""
    r = state.records[-1]
    line = (
        f"iteration {r['iteration']:>2}  size {r['size']:>7,}  seen {r['seen']:>7,}  "
        f"labels {r['labels']:>6,}  mean predicted {r['mean_predicted']:.4g}"
    )
    return line + (f"  new {100 * r['turnover']:.1f} %" if r["iteration"] else "")


@contextmanager
def progress(title: str) -> Iterator[Callable[[State], None]]:
    """Show a spinner, and a line after each iteration, on the error stream."""
    with err.status(title) as status:

        def after_iteration(state: State) -> None:
            err.print(Text(iteration_line(state), style="dim"), soft_wrap=True)
            status.update(f"{title}: iteration {state.iteration + 1}")

        yield after_iteration


def shrink_table(metrics: Mapping[str, Any]) -> Table:
    """Return the full space beside the shrunk one."""
    table = Table(title=f"{metrics['benchmark']}, seed {metrics['seed']}, {metrics['variant']}", title_justify="left")
    for column in ("", "full space", "shrunk space"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("architectures", f"{metrics['full_size']:,}", f"{metrics['size']:,}"),
        ("mean (true)", f"{metrics['full_mean_true']:.4g}", f"{metrics['mean_true']:.4g}"),
        ("best (true)", f"{metrics['full_max_true']:.4g}", f"{metrics['max_true']:.4g}"),
        ("best one", "", "kept" if metrics["kept_best"] else "lost"),
        ("of the ten best", "10", f"{metrics['top10_kept']}"),
        (
            "good networks",
            f"{100 * (metrics['p_good'] - metrics['shrink_index']):.1f} %",
            f"{100 * metrics['p_good']:.1f} %",
        ),
        ("queries (predicted)", "", f"{metrics['queries']:,}"),
        ("labels (true values asked for)", "", f"{metrics['labels']:,}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def show_shrink(outcome: Outcome) -> None:
    """Print a shrink's table and where its files are."""
    out.print(shrink_table(outcome.metrics))
    for note in outcome.metrics["notes"]:
        out.print(f"Note: {note}.")
    out.print(f"Stopped: {outcome.metrics['stop']}.")
    if outcome.reused:
        out.print("Nothing was done: the same parameters made this result before.")
    out.print(f"Files: {outcome.folder}", soft_wrap=True)


def show_data(outcome: Outcome) -> None:
    """Print what a prepared table holds and where it is."""
    m = outcome.metrics
    out.print(f"{m['size']:,} architectures of {m['space']}: mean {m['mean']:.4g}, best {m['max']:.4g} ({m['metric']})")
    out.print(f"Files: {outcome.folder}", soft_wrap=True)


def show_assessment(outcome: Outcome) -> None:
    """Print how good the predictor is, a row a seed."""
    rows = outcome.table("assessment.parquet").to_pylist()
    table = Table(title=f"predictor of {outcome.metrics['benchmark']}", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else f"{v:,}" for v in row.values()))
    out.print(table)
    out.print(f"Files: {outcome.folder}", soft_wrap=True)
