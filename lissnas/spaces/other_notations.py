"""Likely causes of names that are no architectures: other libraries' notations, and damage by spreadsheets."""

from __future__ import annotations

import re

from lissnas.spaces.base import Space
from lissnas.spaces.choices import ChoiceSpace

FORMS = (
    (r"[0-9](\.[0-9]+)?[eE]\+?[0-9]+", "a spreadsheet made it a number, and its digits are lost; export it as text"),
    (r"[0-9]+\.0+", "a program made it a number; store it as text, without '.0'"),
    (r"Genotype\(.*", "it is a genotype of DARTS"),
    (r"\{.*", "it is a Python dictionary, as Once-for-All uses"),
    (r"[(\[][0-9 ,]*[)\]]", "it is a list of choices, as NASLib uses"),
    (r"[0-9]+", "it is an index, not an architecture"),
)
"""Patterns of names, and what they are; the first that matches is reported."""


def likely_cause(space: Space, name: str) -> str:
    """Return the likely cause of an invalid name as the end of a message, empty if there is none."""
    text = name.strip()
    of_digits = isinstance(space, ChoiceSpace) and type(space).format is ChoiceSpace.format
    if of_digits and text.isdecimal() and len(text) < space.genome_len:
        return "; leading zeros are lost, as in a spreadsheet: store the column as text"
    if space.name == "nasbench201" and "~" in text:
        if " " in text:
            return "; leave out the spaces"
        if not (text.startswith("|") and text.endswith("|")):
            return "; the outer | are missing"
    for pattern, what in FORMS:
        if re.fullmatch(pattern, text, re.DOTALL):
            return f"; {what}"
    return ""
