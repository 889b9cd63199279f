"""Official benchmark files: read in their published formats, imported once, then selected by metric."""

from __future__ import annotations

from lissnas.benchmarks.official.files import UnreadableFile, digests
from lissnas.benchmarks.official.importing import KINDS, convert, parameters
from lissnas.benchmarks.official.layout import data_root
from lissnas.benchmarks.official.restricted import NotPlainData
from lissnas.benchmarks.official.select import imported, selectable
from lissnas.benchmarks.official.sources import SOURCES, Source

__all__ = [
    "KINDS",
    "SOURCES",
    "NotPlainData",
    "Source",
    "UnreadableFile",
    "convert",
    "data_root",
    "digests",
    "imported",
    "parameters",
    "selectable",
]
