"""What a run does with the labels that earlier runs stored, and how many of them it used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEANINGS = {
    "program": "the command of the program",
    "files": "the content of the program",
    "names": "the meaning of architecture names (space.yaml)",
    "metric": "the metric",
    "space": "the space",
    "recipe": "the recipe",
    "images": "the images",
    "seed": "the seed",
}
"""Settings that labels depend on -> how a note names them."""


@dataclass
class Reuse:
    """How one run treats stored labels. Labels of other settings are kept, but not used unless they are adopted."""

    force: bool = False
    """Request all labels again; those stored by earlier runs are not used any more."""
    keep_failed: bool = False
    """Don't request again what failed in an earlier run."""
    adopt: bool = False
    """Use stored labels of other settings too."""
    say: Callable[[str], None] = lambda line: None
    """Called with each note."""
    started: bool = False
    """Whether the labels were opened in this run."""
    failed_before: Counter[str] = field(default_factory=Counter)
    """Failures of earlier runs by architecture, which don't count as attempts of this run."""
    _path: Path = field(default_factory=Path)
    _known: set[str] = field(default_factory=set)
    _requested: set[str] = field(default_factory=set)

    def start(self, path: Path, values: Collection[str], failures: Counter[str]) -> None:
        """Start a run with the stored values and failures of its settings."""
        self.started, self._path, self._known = True, path, {*values}
        if self.keep_failed:
            self._known |= failures.keys()
        elif failures := Counter({name: n for name, n in failures.items() if name not in self._known}):
            self.failed_before = failures
            self.say(
                f"Note: {path} has {_count(len(failures), 'failed label')}, requested again when needed; "
                "--keep-failed keeps them failed."
            )

    def leave(self, path: Path, n: int, differ: Collection[str]) -> None:
        """Report `n` stored labels of other settings."""
        why = " and ".join(f"{MEANINGS.get(name, name)} changed" for name in sorted(differ))
        self.say(
            f"Note: {path} has {_count(n, 'label')} that this run does not use: "
            f"{why or 'stored by an earlier version of lissnas'}. "
            f"--reuse-answers uses them; to drop them, delete {path}."
        )

    def used(self, names: Collection[str]) -> None:
        """Count the labels that the run needs."""
        self._requested.update(names)

    def note(self) -> str:
        """Return how many labels came from earlier runs; empty if none."""
        n = len(self._requested & self._known)
        if not n:
            return ""
        return (
            f"{n:,} of {len(self._requested):,} labels are from {self._path}, requested by earlier runs; "
            "--force requests them again"
        )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def differing(about: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the settings that differ; none if the others are unknown."""
    if other is None:
        return []
    found = [name for name in {**about, **other} if about.get(name) != other.get(name)]
    return [name for name in found if name != "files" or "program" not in found]  # another command has other files
