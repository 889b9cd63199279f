"""Terminal output: progress lines, result tables, summaries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lissnas.core.process import err, out, say

if TYPE_CHECKING:
    from lissnas.artifacts.stage_run import Outcome
    from lissnas.nets.training import Progress
    from lissnas.oracles.label_collection import Attempt
    from lissnas.oracles.reuse import Reuse
    from lissnas.searchers import History
    from lissnas.shrinkers.state import State

NEXT = (
    ("make ui", "see the runs in MLflow: metrics, curves, models"),
    ("make shrink", "shrink NAS-Bench-101 from 423,624 cells to 13,000 on real accuracies"),
    ("make report", "compare all methods; results next to the paper's"),
)
"""Commands to suggest after a full run, with what each does."""
COMPARED = (
    *("method", "size", "mean", "ours, same size", "difference, SD", "ours is", "with our quota: ours is"),
    *("best kept", "best", "FLOPs coverage"),
)
"""Columns of a comparison that are printed, if present."""
ON_LABELS = ("method", "size", "queries", "evaluated", "mean", "difference", "FLOPs coverage")
"""The same of a comparison on a part of the labels."""
RANKED = ("trained on", "size", "ranked", "networks", "Pearson", "Spearman", "Kendall", "found")
"""Columns of a ranking that are printed."""
COST_NAMES = {"flops": "M multiply-adds", "params": "M parameters"}
"""Headings of costs of found networks that are shown in millions."""
MILLION = 10**6
"""Costs below are shown as they are: they have another unit."""
MAX_WORD = 30
"""Characters up to which a word is never broken; longer ones, such as paths, are folded."""
LONG_COUNT = 10**21
"""Numbers from here on are too wide for a table."""


def count_text(n: int) -> str:
    """Return a number of architectures: all digits, from `LONG_COUNT` on three of them, such as 1.52e35."""
    return f"{n:,}" if n < LONG_COUNT else f"{n:.3g}".replace("e+", "e")


def iteration_line(state: State) -> str:
    """Return the progress line of the last iteration."""
    r = state.records[-1]
    line = (
        f"iteration {r['iteration']:>2}  size {r['size']:>7,}  seen {r['seen']:>7,}  "
        f"labels {r['labels']:>6,}  mean predicted {r['mean_predicted']:.4g}"
    )
    return line + (f"  new {100 * r['turnover']:.1f} %" if r["iteration"] else "")


@contextmanager
def progress(title: str) -> Iterator[Callable[[State], None]]:
    """Show a spinner on stderr, and print a line after each iteration."""
    with err.status(Text(title)) as status:

        def after_iteration(state: State) -> None:
            err.print(Text(iteration_line(state), style="dim"), soft_wrap=True)
            status.update(Text(f"{title}: iteration {state.iteration + 1}"))

        yield after_iteration


@contextmanager
def lines(title: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on stderr, and print each progress line."""
    with err.status(Text(title)):
        yield lambda line: err.print(Text(line, style="dim"), soft_wrap=True)


def note(line: str) -> None:
    """Print a note to stderr."""
    err.print(Text(line), soft_wrap=True)


def show_reuse(reuse: Reuse) -> None:
    """Print how many labels came from earlier runs, if any."""
    if text := reuse.note():
        out.print(Text(f"Note: {text}."), soft_wrap=True)


def shrink_line(metrics: Mapping[str, Any], unit: str) -> str:
    """Return one line with the sizes and means of the full and the shrunk space."""
    m = metrics
    kind = "true" if "mean_true" in m else "predicted"
    return (
        f"{count_text(m['full_size'])} architectures to {m['size']:,}, {unit}: "
        f"{kind} mean {m[f'full_mean_{kind}']:.4g} to {m[f'mean_{kind}']:.4g}"
    )


def table_of(title: str, rows: Sequence[Mapping[str, str]], left: Collection[str] = ("method",)) -> Table:
    """Return a table of texts; columns not in `left` are right-aligned."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        single = not any(" " in text for text in (name, *(row[name] for row in rows)))  # never break a name or number
        table.add_column(name, justify="left" if name in left else "right", no_wrap=single, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table


def print_table(table: Table) -> None:
    """Print a table with all names in full: if the terminal is too narrow for them, the table is wider than it."""
    texts = [[*map(str, (column.header, *column.cells))] for column in table.columns]
    full = [max(cell_len(line) for text in own for line in text.splitlines() or [""]) for own in texts]
    longest = [max((cell_len(word) for text in own for word in text.split()), default=0) for own in texts]
    least = [n if c.no_wrap else min(w, MAX_WORD) for c, n, w in zip(table.columns, full, longest, strict=True)]
    room = max(0, out.width - sum(least) - 3 * len(least) - 1)
    for rank, i in enumerate(sorted(range(len(least)), key=lambda i: full[i] - least[i])):
        more = min(full[i] - least[i], room // (len(least) - rank))
        table.columns[i].width, room = least[i] + more, room - more
    wide = Console(highlight=False, width=max(out.width, sum(c.width or 0 for c in table.columns) + 3 * len(least) + 1))
    wide.print(table)


def shrink_table(metrics: Mapping[str, Any]) -> Table:
    """Return a table of the full and the shrunk space: true values if a benchmark table exists, else predictions."""
    m = metrics
    rows = [("architectures", count_text(m["full_size"]), f"{m['size']:,}")]
    if "mean_true" in m:
        rows += [
            ("mean (true)", f"{m['full_mean_true']:.4g}", f"{m['mean_true']:.4g}"),
            ("best (true)", f"{m['full_max_true']:.4g}", f"{m['max_true']:.4g}"),
            ("best one", "", "kept" if m["kept_best"] else "lost"),
            ("of the ten best", "10", f"{m['top10_kept']}"),
        ]
    else:
        rows += [
            ("mean (predicted)", f"{m['full_mean_predicted']:.4g}", f"{m['mean_predicted']:.4g}"),
            ("best (predicted)", f"{m['full_best_predicted']:.4g}", f"{m['best_predicted']:.4g}"),
        ]
    rows.append(("good networks", f"{100 * (m['p_good'] - m['shrink_index']):.1f} %", f"{100 * m['p_good']:.1f} %"))
    if "tau" in m:
        interval = f"{m['tau']:.2f} ({m['tau_low']:.2f} to {m['tau_high']:.2f})"
        rows.append(("predictor's tau, cross-validated", "", interval))
    rows += [
        ("queries (predicted)", "", f"{m['queries']:,}"),
        ("labels (true values requested)", "", f"{m['labels']:,}"),
    ]
    title = f"{m['benchmark']}, seed {m['seed']}, {m['method'] if 'method' in m else m['variant']}"
    return table_of(title, [{"": name, "full space": full, "shrunk space": own} for name, full, own in rows], ("",))


def show_shrink(outcome: Outcome) -> None:
    """Print the summary table of a shrink and the folder of its files."""
    print_table(shrink_table(outcome.metrics))
    state_metric(outcome)
    for note in outcome.metrics["notes"]:
        out.print(Text(f"Note: {note}."))
    out.print(Text(f"Stopped: {outcome.metrics['stop']}."))
    _tail(outcome)


def show_data(outcome: Outcome) -> None:
    """Print the summary of a prepared table and the folder of its files."""
    m = outcome.metrics
    out.print(f"{m['size']:,} architectures of {m['space']}: mean {m['mean']:.4g}, best {m['max']:.4g} ({m['metric']})")
    _tail(outcome)


def show_assessment(outcome: Outcome) -> None:
    """Print the test metrics of the predictor, one row for each seed."""
    rows = outcome.table("assessment.parquet").to_pylist()
    print_table(table_of(f"predictor of {outcome.metrics['benchmark']}", [_texts(row, 3) for row in rows]))
    state_metric(outcome)
    _tail(outcome)


def show_locality(outcome: Outcome) -> None:
    """Print correlation and accuracy difference by edit distance and kind, and the threshold distance."""
    rows = [
        {
            "edits": f"{r['distance']}",
            "kind": r["change"],
            "pairs": f"{r['n']:,}",
            "correlation": f"{r['correlation']:.3f} ({r['correlation_low']:.2f} to {r['correlation_high']:.2f})",
            "difference": f"{r['aad']:.3g} ({r['aad_low']:.3g} to {r['aad_high']:.3g})",
            "median": f"{r['aad_median']:.3g}",
        }
        for r in outcome.table("locality.parquet").to_pylist()
    ]
    m = outcome.metrics
    print_table(table_of(f"locality of {m['benchmark']}, with 95 % intervals", rows, ("kind",)))
    state_metric(outcome)
    out.print(
        f"Threshold edit distance: {m['threshold_distance']}. The space's distribution is not rejected for "
        f"{100 * m['share_not_rejected']:.0f} % of small uniform samples (Kolmogorov-Smirnov, 5 %)."
    )
    _tail(outcome)


def show_comparison(outcome: Outcome) -> None:
    """Print one row for each method, next to lissnas cut to the same size, and remarks."""
    from lissnas.oracles.direction import MINIMIZE
    from lissnas.shrinkers import held_out
    from lissnas.stages import compare, compare_labels  # imports matplotlib

    rows = outcome.csv("summary.csv")
    shown: tuple[str, ...]
    minimize = outcome.metrics.get("direction") == MINIMIZE
    if "held_out" in outcome.metrics:
        shown, method_cells = ON_LABELS, compare_labels.method_cells
        remarks = held_out.remarks(rows, -1 if minimize else 1)
    else:
        shown, method_cells, remarks = COMPARED, compare.method_cells, compare.remarks(rows, minimize)
    title = f"methods on {outcome.metrics['benchmark']}, {rows[0]['seeds']} seeds"
    cells = map(method_cells, rows)
    print_table(table_of(title, [{name: c[name] for name in shown if name in c} for c in cells]))
    state_metric(outcome)
    deviation = "" if "held_out" in outcome.metrics else " SD: standard deviation of the full space."
    out.print(f"Ours: lissnas, cut to the method's size.{deviation}")
    for line in remarks:
        out.print(Text(f"- {line}"))
    _tail(outcome)


def show_report(outcome: Outcome) -> None:
    """Print the numbers of tables and figures, and the path of the page."""
    m = outcome.metrics
    out.print(f"{m['tables']} tables and {m['figures']} figures on {m['benchmarks']} benchmarks")
    say(f"Page: {outcome.folder / 'index.html'}")
    _tail(outcome)


def training_line(what: str, p: Progress) -> str:
    """Return the progress line of a training."""
    return f"{what}: step {p.step:,} of {p.steps:,}  loss {p.loss:.3f}  rate {p.rate:.3g}"


def search_line(history: History) -> str:
    """Return the progress line of a search."""
    best = history.values[history.best(1)]
    shown = f"best {best[0]:.4g}" if len(best) else "all failed"
    return f"generation {int(history.generation[-1])}: {len(history.rows):,} evaluated, {shown}"


def _best_rows(search: Outcome) -> list[dict[str, str]]:
    """Return the rows of `best.json` for a table, without empty columns."""
    found = search.json("best.json")
    large = {cost for row in found for cost, value in row["costs"].items() if cost in COST_NAMES and value >= MILLION}
    rows = [
        {
            "network": row["arch"],
            **{name: "" if row[name] is None else f"{row[name]:.4g}" for name in ("label", "predicted", "supernet")},
            "ranked by": row["reason"],
            **{
                COST_NAMES[cost] if cost in large else cost: f"{value / 1e6:,.2f}" if cost in large else f"{value:,}"
                for cost, value in row["costs"].items()
            },
        }
        for row in found
    ]
    return [{name: cell for name, cell in row.items() if any(r[name] for r in rows)} for row in rows]


def show_found(outcome: Outcome) -> None:
    """Print the best networks of a search by evaluations."""
    m = outcome.metrics
    failed = f", {m['failed']:,} failed" if m["failed"] else ""
    title = f"best networks of {m['space']}: {m['labels']:,} with a value, {m['evaluated']:,} of them new{failed}"
    print_table(table_of(title, _best_rows(outcome), ("network",)))
    state_metric(outcome)
    if "best_rank" in m:
        out.print(
            f"The first has rank {m['best_rank']:,} of {m['full_size']:,} in the real table ({m['best_true']:.4g})."
        )
    _tail(outcome)


def show_search(search: Outcome, best: Outcome | None) -> None:
    """Print the best networks found, and the exported one."""
    m = search.metrics
    rows = _best_rows(search)
    print_table(table_of(f"best of {m['evaluated']:,} evaluated networks of {m['space']}", rows, ("network",)))
    state_metric(search)
    if "best_rank" in m:
        out.print(
            f"The first has rank {m['best_rank']:,} of {m['full_size']:,} in the real table ({m['best_true']:.4g})."
        )
    from lissnas.artifacts import read_json

    supernet = search.folder / "supernet" / "metrics.json"
    if best is not None or supernet.exists():
        _say_images(read_json(supernet) if best is None else best.metrics)
    if best is not None:
        say(exported_line(best))
    _tail(search)


def show_method(stages: Mapping[str, Outcome], places: Sequence[str]) -> None:
    """Print the summary of a full run: both spaces, the best network, files, and next commands.

    `stages` has `shrink` and `search`, and `supernet` and `retrain` if they ran; `places` are their MLflow runs.
    """
    shrunk, found, best = stages["shrink"], stages["search"], stages.get("retrain")
    print_table(shrink_table(shrunk.metrics))
    state_metric(shrunk)
    m = found.metrics
    top = found.json("best.json")[0]
    rank = f", rank {m['best_rank']:,} of {m['full_size']:,} in the real table" if "best_rank" in m else ""
    say(f"Best network by {top['reason']}: {top['arch']}, {top['score']:.4g}{rank}.")
    if best is not None:
        say(exported_line(best))
    for name, outcome in stages.items():
        pictures = ", ".join(sorted(path.name for path in outcome.folder.glob("*.png")))
        say(f"{name.capitalize():<9} {outcome.location}" + (f"  ({pictures})" if pictures else ""))
    say(f"MLflow    {len(places)} runs" if all(p.startswith("MLflow: run ") for p in places) else "\n".join(places))
    say("Next:")
    for command, why in NEXT:
        say(f"  {command:<13} {why}")


def show_supernet(outcome: Outcome) -> None:
    """Print the summary of a supernet's training."""
    m = outcome.metrics
    out.print(f"Supernet of {m['networks']:,} networks of {m['space']}: final training loss {m['loss']:.3f}")
    state_metric(outcome)
    _say_images(m)
    _tail(outcome)


def show_retrained(outcome: Outcome) -> None:
    """Print the retrained networks, then the exported one."""
    rows = [_texts(row, 2) for row in outcome.csv("retrained.csv")]
    print_table(table_of(f"retrained networks of {outcome.metrics['space']}", rows, ("arch",)))
    state_metric(outcome)
    _say_images(outcome.metrics)
    say(exported_line(outcome))
    _tail(outcome)


def _say_images(metrics: Mapping[str, Any]) -> None:
    if "images" in metrics:
        say(f"Images: {metrics['images']}.")


def exported_line(outcome: Outcome) -> str:
    """Return a line about the exported network."""
    b = outcome.metrics
    rank = f", rank {b['rank']:,} of {b['full_size']:,} in the real table" if "rank" in b else ""
    chosen = f", chosen by {b['chosen_by']} of {b['networks']}" if b["networks"] > 1 else ""
    return (
        f"Retrained and exported: {b['arch']}{chosen}{rank}; accuracy {b['validation']:.2f} % on validation "
        f"images, {b['test']:.2f} % on test images ({outcome.location})"
    )


def show_ranking(outcome: Outcome) -> None:
    """Print rank correlations of supernets, one row for each space and sample."""
    from lissnas.stages.ranking import ranking_cells  # torch takes seconds to load

    rows = outcome.csv("summary.csv")
    title = f"supernets ranking {outcome.metrics['benchmark']}, {rows[0]['seeds']} seed(s)"
    cells = map(ranking_cells, rows)
    print_table(table_of(title, [{name: c[name] for name in RANKED} for c in cells], ("trained on", "ranked")))
    state_metric(outcome)
    _tail(outcome)


def _texts(row: Mapping[str, Any], digits: int) -> dict[str, str]:
    return {name: f"{value:.{digits}f}" if isinstance(value, float) else str(value) for name, value in row.items()}


def state_metric(outcome: Outcome) -> None:
    """Print the metric of a result and its direction; results of earlier versions state none."""
    if "direction" in outcome.metrics:
        out.print(Text(f"Metric: {outcome.metrics['metric']}, {outcome.metrics['direction']}d."))


def _tail(outcome: Outcome) -> None:
    if outcome.reused:
        out.print("Nothing was done: the result of these parameters exists already.")
    say(f"Files: {outcome.location}")


def attempt_lines(line: Callable[[str], None]) -> Callable[[Attempt], None]:
    """Return a callback that passes the progress line of each attempt to `line`."""

    def report(one: Attempt) -> None:
        took = "" if one.seconds is None else f"  {one.seconds:.1f} s"
        line(f"{one.arch}  {'failed: ' + str(one.error) if one.value is None else f'{one.value:.4g}'}{took}")

    return report
