"""The published values of the paper's tables, and remarks on contradictions and missing data (`paper.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

from pydantic import TypeAdapter
from ruamel.yaml import YAML

PAPER = "Gopal et al., LISSNAS, IJCAI 2023"


@dataclass(frozen=True)
class Printed:
    """A row of one of the paper's tables: space, method, and published values by column.

    In the table "Not yet", `space` is the part of the paper and `method` its subject.
    """

    space: str
    method: str
    values: dict[str, str]
    remark: str = ""


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables, with the title and remarks for our table."""

    title: str
    rows: list[Printed] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


_TEXT = (files("lissnas.stages.report") / "paper.yaml").read_text(encoding="utf-8")
TABLES = TypeAdapter(dict[str, PaperTable]).validate_python(YAML(typ="safe", pure=True).load(_TEXT))
"""The paper's tables by name."""
