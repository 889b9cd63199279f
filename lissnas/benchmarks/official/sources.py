"""The official files: addresses, sizes, licences and checksums as published by their authors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lissnas.benchmarks.official.files import Digests
from lissnas.core.errors import DamagedFile, LissnasError

NO_CHECKSUM = "no checksum is published"


@dataclass(frozen=True)
class Source:
    """A published file, with the `sha256` and the `size`, as text, that its authors state."""

    benchmark: str
    file: str
    address: str
    size: str
    licence: str
    sha256: str | None = None
    note: str = ""

    @property
    def checksum(self) -> str:
        """The published checksum, for display."""
        if self.sha256:
            return f"sha256 {self.sha256}"
        digits = _md5_end(self.file)
        return f"MD5 ends in {digits} (from the file name)" if digits else NO_CHECKSUM


_DRIVE = "https://drive.google.com/file/d/{}/view"
SOURCES = (
    # README of github.com/google-research/nasbench, "Download the dataset".
    Source(
        "nasbench101",
        "nasbench_only108.tfrecord",
        "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
        "499 MB",
        "Apache-2.0",
        "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
        "108 epochs",
    ),
    Source(
        "nasbench101",
        "nasbench_full.tfrecord",
        "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
        "1.95 GB",
        "Apache-2.0",
        "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
        "4, 12, 36 and 108 epochs",
    ),
    # README of github.com/D-X-Y/NATS-Bench: the name contains the last digits of the pickle's MD5.
    Source(
        "nasbench201",
        "NATS-tss-v1_0-3ffb9-simple.tar",
        _DRIVE.format("17_saCsj_krKjlCBLOJEpNtzPXArMCqxU"),
        "about 1 GB",
        "MIT",
        note="read file by file, in little memory",
    ),
    Source(
        "nasbench201",
        "NATS-tss-v1_0-3ffb9.pickle.pbz2",
        _DRIVE.format("1vzyK0UVH2D3fTpa1_dSWnp1gvGpAxRul"),
        "about 1 GB",
        "MIT",
        note="read whole, in some 30 GB of memory",
    ),
    # README of github.com/D-X-Y/NAS-Bench-201.
    Source(
        "nasbench201",
        "NAS-Bench-201-v1_1-096897.pth",
        _DRIVE.format("16Y0UwGisiouVRxW-W5hEtbxmcHw_0hF_"),
        "4.7 GB",
        "MIT",
        note="read whole, in some 30 GB of memory",
    ),
    # README of github.com/yawen-d/TransNASBench.
    Source(
        "transnas",
        "transnas-bench_v10141024.pth",
        "https://drive.google.com/drive/folders/1HlLr2ihZX_ZuV3lJX_4i7q4w-ZBdhJ6o",
        "about 100 MB",
        "MIT",
    ),
    # README and model_downloader.py of github.com/automl/nasbench301.
    Source(
        "nasbench301",
        "nasbench301_models_v1_0.zip",
        "https://figshare.com/articles/software/nasbench301_models_v1_0_zip/13061510",
        "1.8 GB",
        "see the page",
        note="its models are pickles: convert them first (docs/how_to/official_data.md)",
    ),
    Source(
        "nasbench301",
        "nasbench301_models_v0_9.zip",
        "https://figshare.com/articles/software/nasbench301_models_v0_9_zip/12962432",
        "size not stated",
        "see the page",
        note="its models are pickles: convert them first (docs/how_to/official_data.md)",
    ),
)


def verify_published(benchmark: str, path: Path, found: Digests) -> str:
    """Check a file against the published checksums and return a description of the check.

    A file with the name of a published file must have its checksum. Raises DamagedFile or LissnasError if not.
    """
    fix = "Download it again: `lissnas data list` shows the address."
    source = next((s for s in SOURCES if (s.benchmark, s.file) == (benchmark, path.name)), None)
    if source is not None and source.sha256:
        if found.sha256 != source.sha256:
            raise DamagedFile(str(path), source.sha256, found.sha256, fix)
        return "has the published sha256"
    digits = _md5_end(path.name)
    if digits and found.md5:
        if not found.md5.endswith(digits):
            raise LissnasError(
                f"{path} is damaged: expected an MD5 that ends in {digits} (from its name), found {found.md5}. {fix}"
            )
        return f"its MD5 ends in {digits}, as its name says"
    same = next((s.file for s in SOURCES if s.sha256 == found.sha256), None)
    return f"has the published sha256 of {same}" if same else NO_CHECKSUM + " under this name"


def _md5_end(name: str) -> str | None:
    """Return the last MD5 digits in the name of a NAS-Bench-201 or NATS-Bench file."""
    match = re.fullmatch(r"NA\w+-(?:.*-)?v\d+_\d+-([0-9a-f]{5,6})\.(?:pth|pickle\.pbz2)", name)
    return match[1] if match else None
