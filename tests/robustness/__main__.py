"""Studies of robustness: commands killed and started twice, fuzzed readers, mutants of the core, long runs.

python -m tests.robustness --name faults     (or `make study NAME=faults`)
"""

from __future__ import annotations

from typing import Annotated

import typer

from lissnas.cli import render
from lissnas.core import process
from lissnas.core.errors import UnknownName
from studies.pages import WORK, leave, made_by
from tests.robustness import faults as kills
from tests.robustness import fuzz as fuzzing
from tests.robustness import mutants as mutating
from tests.robustness import soak as soaking


def faults() -> None:
    """Kill commands at random instants."""
    with render.lines("killing") as on_trial:
        found = kills.faults_study(WORK / "faults", on_trial)
    leave("faults", found, kills.faults_page(found, made_by("faults")))


def races() -> None:
    """Start a command twice at once, again and again."""
    with render.lines("racing") as on_trial:
        found = kills.races_study(WORK / "races", on_trial)
    leave("races", found, kills.races_page(found, made_by("races")))


def soak() -> None:
    """Run flows and collect labels for a long time."""
    with render.lines("soaking") as on_run:
        runs = soaking.soak_runs(WORK / "soak" / "runs", soaking.RUNS, on_run)
        labels = soaking.soak_labels(WORK / "soak" / "labels", soaking.LABELS)
    leave("soak", [runs, labels], soaking.soak_page([runs, labels], made_by("soak")))


def mutants() -> None:
    """Change the core's code in small ways, and see whether a test notices."""
    with render.lines("changing") as on_mutant:
        rows = mutating.mutants_study(WORK / "mutants", on_mutant)
    leave("mutants", rows, mutating.mutants_page(rows, made_by("mutants")))


def fuzz() -> None:
    """Give readers inputs that nobody thought of."""
    with render.lines("fuzzing") as on_reader:
        rows = fuzzing.fuzz_study(WORK / "fuzz", on_reader)
    leave("fuzz", rows, fuzzing.fuzz_page(rows, made_by("fuzz")))


STUDIES = {"faults": faults, "races": races, "soak": soak, "mutants": mutants, "fuzz": fuzz}


def command(name: Annotated[str, typer.Option(help=f"Which study: {', '.join(STUDIES)}.")]) -> None:
    """Run a study, from where it was, and write studies/results/NAME.csv and NAME.md."""
    if name not in STUDIES:
        raise UnknownName("study", name, STUDIES)
    STUDIES[name]()


if __name__ == "__main__":
    process.run(lambda: typer.run(command))
