"""Reading a user-defined space from YAML (grammar: `lissnas.spaces.declared.grammar`), without evaluating code."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from lissnas.core.errors import ConfigError, UserError
from lissnas.spaces.base import Space
from lissnas.spaces.cell import MAX_TABLE_BYTES, CellSpace, table_bytes
from lissnas.spaces.declared.declaration import CellDeclaration
from lissnas.spaces.declared.grammar import read_declaration
from lissnas.spaces.declared.product import SAMPLE_TRIES, Declared, DeclaredSpace
from lissnas.spaces.declared.yaml import MAX_BYTES, problems_in
from lissnas.spaces.edge_cell import EdgeCellSpace

__all__ = ["Declared", "DeclaredCell", "DeclaredEdgeCell", "DeclaredSpace", "parse_space", "read_space"]


class DeclaredCell(Declared, CellSpace):
    """A declared space of cells with operations on vertices."""


class DeclaredEdgeCell(Declared, EdgeCellSpace):
    """A declared space of cells with operations on edges."""


def read_space(path: Path) -> Space:
    """Return the space that a YAML file declares; raises ConfigError with all its problems."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise problems_in(str(path), [(line, f"byte {error.start} is not UTF-8; save it as UTF-8")]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from None
    return parse_space(text, str(path))


def parse_space(text: str, source: str) -> Space:
    """Return the space that a YAML text declares; `source` is its name in messages."""
    text = unicodedata.normalize("NFC", text)  # as labels are: the same letters can be written in two ways
    declaration = read_declaration(text, source)
    if isinstance(declaration, CellDeclaration):
        return _cell(declaration, source, text)
    space = DeclaredSpace(declaration, source, text)
    _check_not_empty(space)
    return space


def _cell(declaration: CellDeclaration, source: str, text: str) -> Space:
    """Return the declared space of cells; raises ConfigError if its tables or keys would be too large."""
    cell = declaration.cell
    kind: type[DeclaredCell | DeclaredEdgeCell] = DeclaredCell
    if cell.ops_on == "edges":
        kind = DeclaredEdgeCell
    elif (needed := table_bytes(len(cell.ops), cell.max_edges, cell.vertices)) > MAX_TABLE_BYTES:
        what = (
            f"cell: {len(cell.ops)} operations on vertices would need tables of {needed / 1e9:.1f} GB, at most "
            f"{MAX_TABLE_BYTES / 1e9:g} GB are allowed; use fewer operations, edges or vertices"
        )
        raise problems_in(source, [(cell.line, what)])
    try:
        space = kind(declaration.name, cell.ops, vertices=cell.vertices, max_edges=cell.max_edges, source=source)
    except UserError as error:
        raise problems_in(source, [(cell.line, f"cell: {error}")]) from None
    space.declare(declaration.metric, text)
    space.notation = (cell.ops_on, str(cell.vertices), *cell.ops)
    return space


def _check_not_empty(space: DeclaredSpace) -> None:
    """Raise ConfigError for a space without networks, by counting if it can be listed, else by sampling."""
    constraints = space.rules.constraints
    if not constraints:
        return
    try:
        space.reject(1, np.random.default_rng(0))
    except UserError:
        what = f"constraints leave (almost) no network: none of {SAMPLE_TRIES:,} uniform rows satisfies all of them"
        if space.size_exact:
            if space.size():
                return
            what = f"constraints leave no network: each of the {space.n_rows:,} rows breaks at least one of them"
        raise problems_in(space.source, [(min(c.line for c in constraints), what)]) from None
