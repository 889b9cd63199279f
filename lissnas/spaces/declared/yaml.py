"""YAML as text with line numbers: nothing is resolved, constructed or evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lissnas.core.errors import ConfigError, first_line, short, unknown_name

DEEPEST = 12
"""Nesting of lists and mappings; the grammar needs six."""
LONGEST = 1_000
"""Characters of a text; a name of a position or a choice has a few."""
MOST_PROBLEMS = 1_000
"""Problems after which a file is read no further."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?")


@dataclass
class Node:
    """A text, a list or a mapping, and the line it starts in; none of them where an alias stood."""

    line: int
    text: str | None = None
    items: list[Node] | None = None
    pairs: list[tuple[Node, Node]] | None = None


@dataclass
class Checked:
    """The problems of one file as they are found: each `say` keeps a line, nothing is raised yet."""

    source: str
    found: dict[tuple[int, str], None] = field(default_factory=dict)

    def say(self, line: int, what: str) -> None:
        """Keep a problem, each once; raises ConfigError with all that are kept where they become too many."""
        self.found[line, what] = None
        if len(self.found) > MOST_PROBLEMS:
            self.raise_any()

    def raise_any(self) -> None:
        """Raise ConfigError with all problems in the order of lines, if there are any."""
        if self.found:
            raise ConfigError(self.source, [f"line {line}: {what}" for line, what in sorted(self.found)])

    def mapping(self, node: Node, where: str, known: Iterable[str] | None = None) -> dict[str, Node]:
        """Return a mapping's entries; says unknown and repeated keys, and what is no mapping."""
        if node.pairs is None:
            self._not(node, where, "a mapping")
            return {}
        out: dict[str, Node] = {}
        for key, value in node.pairs:
            name = self.text(key, f"{where}: a key")
            if name is None:
                continue
            if name in out:
                self.say(key.line, f"{where}: {name!r} stands twice, first in line {out[name].line}")
            elif known is not None and name not in known:
                self.say(key.line, f"{where}: {unknown_name('key', name, known)}")
            else:
                out[name] = value
        return out

    def sequence(self, node: Node, where: str) -> list[Node]:
        """Return a list's items; says what is no list or an empty one."""
        if node.items is None:
            self._not(node, where, "a list")
        elif not node.items:
            self.say(node.line, f"{where}: the list is empty")
        return node.items or []

    def text(self, node: Node, where: str) -> str | None:
        """Return a text that can stand in a line; None, and said, for anything else."""
        if node.text is None:
            self._not(node, where, "a text")
            return None
        if not node.text:
            self.say(node.line, f"{where} is empty")
            return None
        if not node.text.isprintable() or node.text != node.text.strip():
            self.say(node.line, f"{where}: {node.text!r} has control characters, or spaces at an end")
            return None
        return node.text

    def number(self, node: Node, where: str) -> Decimal | None:
        """Return a decimal number; None, and said, for anything else."""
        text = self.text(node, where)
        value = None if text is None else number(text)
        if text is not None and value is None:
            self.say(node.line, f"{where}: expected a number, found {text!r}")
        return value

    def _not(self, node: Node, where: str, expected: str) -> None:
        found = (
            "a list"
            if node.items is not None
            else "a mapping"
            if node.pairs is not None
            else None
            if node.text is None  # an alias, which was said already
            else f"the text {node.text!r}"
            if node.text
            else "nothing"
        )
        if found is not None:
            self.say(node.line, f"{where}: expected {expected}, found {found}")


def number(text: str) -> Decimal | None:
    """Return the decimal number that a text is, or None."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def compose(text: str, checked: Checked) -> Node:
    """Return the tree of a YAML text; raises ConfigError where it is no YAML.

    Every scalar is the text that was typed. Aliases, anchors and tags are said: an alias can make a
    short file a huge one, and a tag asks for more than text.
    """
    root: Node | None = None
    stack: list[Node] = []
    keys: list[Node | None] = []
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            kind = type(event).__name__
            if kind in ("SequenceEndEvent", "MappingEndEvent"):
                stack.pop()
                keys.pop()
                continue
            if kind not in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent", "AliasEvent"):
                continue
            node = _node(kind, event, checked)
            if node.text is not None and len(node.text) > LONGEST:
                checked.say(node.line, f"a text of {len(node.text):,} characters, at most {LONGEST:,} are allowed")
                checked.raise_any()
            if not stack:
                if root is not None:
                    checked.say(node.line, "a second document; one file declares one space")
                    break
                root = node
            elif stack[-1].items is not None:
                stack[-1].items.append(node)
            elif keys[-1] is None:
                keys[-1] = node
            elif stack[-1].pairs is not None:
                if node.text == "":
                    node.line = keys[-1].line  # nothing stands there; the parser says where the next thing does
                stack[-1].pairs.append((keys[-1], node))
                keys[-1] = None
            if node.items is not None or node.pairs is not None:
                stack.append(node)
                keys.append(None)
            if len(stack) > DEEPEST:
                checked.say(node.line, f"more than {DEEPEST} lists and mappings inside each other")
                checked.raise_any()
    except MarkedYAMLError as error:
        mark = error.problem_mark
        checked.say(mark.line + 1 if mark else 1, f"not YAML: {first_line(error.problem)}")
        checked.raise_any()
    except (YAMLError, ValueError) as error:
        checked.say(1, f"not YAML: {first_line(error)}")
        checked.raise_any()
    return root or Node(1, text="")


def _node(kind: str, event: Any, checked: Checked) -> Node:
    line = int(event.start_mark.line) + 1
    if kind == "AliasEvent":
        checked.say(line, f"the alias *{short(event.anchor)}; write the value out instead")
        return Node(line)
    if event.anchor is not None:
        checked.say(line, f"the anchor &{short(event.anchor)}; write values out instead")
    if event.tag is not None:
        checked.say(line, f"the tag {short(event.tag)}; values are plain text here, leave tags out")
    if kind == "ScalarEvent":
        return Node(line, text=str(event.value))
    return Node(line, items=[]) if kind == "SequenceStartEvent" else Node(line, pairs=[])
