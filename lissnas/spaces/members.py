"""Reading a shrunk space from its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas import artifacts
from lissnas.artifacts.remote import fetched
from lissnas.core.errors import InvalidArchitecture, UserError, first_line
from lissnas.core.memory_limit import limit_memory
from lissnas.spaces import Archs, ChoiceSpace, Space
from lissnas.spaces.balls import Balls
from lissnas.spaces.subspace import Subspace

MEMBERS = "subspace.parquet"
NAMES = 1 << 17
"""Names read at once."""


def read_subspace(folder: Path, space: Space) -> Subspace:
    """Read the shrunk space from the folder of a finished shrink; raises UserError or DamagedFile."""
    archs = read_members(folder, space)
    about = artifacts.read_json(folder / "subspace.json")
    if about["kind"] != "balls":
        return Subspace(space, listed=archs)
    assert isinstance(space, ChoiceSpace), "balls exist only in a ChoiceSpace"
    radii = pq.read_table(folder / MEMBERS, columns=["radius"])["radius"].to_numpy()
    return Subspace(space, balls=Balls(space, archs, radii))


def read_members(path: Path, space: Space) -> Archs:
    """Read the members of a shrunk space from its `subspace.parquet`, or from the folder that contains it.

    The file is verified if its folder has a manifest. Raises UserError if it is of another space, or empty.
    """
    path = fetched(path)
    path = path / MEMBERS if path.is_dir() else path
    if not path.exists():
        raise UserError(f"{path}: no such file. Pass the subspace.parquet of a finished shrink.")
    manifest = artifacts.read_manifest(path.parent) or {}
    data = artifacts.read_verified(path.parent, path.name, manifest) if path.name in manifest else path.read_bytes()
    if "subspace.json" in manifest:
        about = json.loads(artifacts.read_verified(path.parent, "subspace.json", manifest))
        if about["space"] != space.name:
            raise UserError(f"{path} is a subset of space {about['space']!r}, not of {space.name!r}")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        kind = file.schema_arrow.field("arch").type
        if not pa.types.is_string(kind):
            raise UserError(f"{path} is not a shrunk space: expected names in column arch, found {kind}")
        parts = [np.empty((0, space.genome_len), np.int8)]
        with limit_memory(len(data)):
            # In batches, because names take many times the memory of rows.
            for batch in file.iter_batches(NAMES, columns=["arch"], use_threads=False):
                if batch["arch"].null_count:
                    raise UserError(f"{path} is not a shrunk space: column arch has rows without a name")
                parts.append(_parsed(space, batch["arch"].to_pylist(), sum(map(len, parts))))
            members = np.concatenate(parts)
    except InvalidArchitecture as error:
        raise UserError(f"{path} is not of space {space.name}: {error}") from None
    except MemoryError:
        raise UserError(f"{path} is not a shrunk space: reading it takes more memory than its size allows") from None
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a shrunk space ({first_line(error)})") from None
    if not len(members):
        raise UserError(f"{path} is empty: there is nothing to search")
    return members


def _parsed(space: Space, names: list[str], before: int) -> Archs:
    """Parse a batch of names that follows `before` others; rows in InvalidArchitecture count from the first batch."""
    try:
        return space.parse(names)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(before + error.row, error.reason) from None
