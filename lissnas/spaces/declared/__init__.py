"""User-defined spaces, declared in YAML."""

from __future__ import annotations

from lissnas.spaces.declared.product import Declared, DeclaredSpace
from lissnas.spaces.declared.space import parse_space, read_space

__all__ = ["Declared", "DeclaredSpace", "parse_space", "read_space"]
