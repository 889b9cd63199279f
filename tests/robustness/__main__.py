"""Run the studies of robustness: killed commands, simultaneous starts, fuzzed readers, mutants, long runs.

python -m tests.robustness --name faults     (or `make study NAME=faults`)
"""

from __future__ import annotations

from studies.run import run_study
from tests.robustness.faults import faults, races
from tests.robustness.fuzz import fuzz
from tests.robustness.mutants import mutants
from tests.robustness.soak import soak

if __name__ == "__main__":
    run_study({"faults": faults, "races": races, "fuzz": fuzz, "mutants": mutants, "soak": soak})
