"""YAML whose scalars stay texts exactly as typed, with the line of each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lissnas.core.errors import ConfigError, first_line, short
from lissnas.core.typography import pasted

MAX_BYTES = 2 << 20
"""Characters of a declaration; 1,000 positions of 127 choices take half of it."""
MAX_DEPTH = 12
"""Nesting of lists and mappings; the grammar needs 6."""


class _PlainComposer(Composer):
    """Compose plain nodes; raise ComposerError for an alias, anchor or tag.

    Aliases can expand a short file without bounds, and tags can construct arbitrary objects.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        found = ""
        if isinstance(event, AliasEvent):
            found = f"the alias *{short(event.anchor)}; write the value out instead"
        elif event.anchor is not None:
            found = f"the anchor &{short(event.anchor)}; write values out instead of anchors and aliases"
        elif event.tag is not None:
            found = f"the tag {short(event.tag)}; values are plain text here, leave tags out"
        if found:
            raise ComposerError(None, None, found, event.start_mark)
        if isinstance(event, ScalarEvent):  # most nodes; skips the base class's slow resolution of types
            self.parser.get_event()
            return ScalarNode(None, event.value, event.start_mark, event.end_mark)
        return super().compose_node(parent, index)


def problems_in(source: str, found: Sequence[tuple[int, str]]) -> ConfigError:
    """Return a ConfigError that lists problems (line, message) in the order of lines."""
    return ConfigError(source, [f"line {line}: {what}" for line, what in sorted(set(found))])


def compose(text: str, source: str) -> Node:
    """Return the root node (ruamel) of a YAML text; raises ConfigError with the line of a syntax error."""
    if len(text) > MAX_BYTES:
        raise problems_in(source, [(1, f"more than {MAX_BYTES:,} characters; a declaration is shorter")])
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _PlainComposer
    yaml.max_depth = MAX_DEPTH
    try:
        root: Node = yaml.compose(text)
    except MaxDepthExceededError as error:
        found = error.problem_mark.line + 1, f"more than {MAX_DEPTH} lists and mappings inside each other"
    except ComposerError as error:
        what = "a second document; one file declares one space" if error.context else str(error.problem)
        found = error.problem_mark.line + 1, what
    except MarkedYAMLError as error:
        mark = error.problem_mark
        number = mark.line + 1 if mark else 1
        lines = text.split("\n")[max(0, number - 2) : number]  # the cause can be in the line before
        typo = next((hint for line in reversed(lines) if (hint := pasted(line))), "")
        found = number, f"not YAML: {first_line(error.problem)}{f' (there is {typo})' if typo else ''}"
    except (YAMLError, ValueError) as error:
        found = 1, f"not YAML: {first_line(error)}"
    else:
        return root
    raise problems_in(source, [found])


def plain(node: Node | None, problems: list[tuple[int, str]]) -> Any:
    """Return a node as dicts, lists and texts; append duplicate keys, and keys that aren't texts, to `problems`."""
    if isinstance(node, SequenceNode):
        return [plain(item, problems) for item in node.value]
    if not isinstance(node, MappingNode):
        return node.value if isinstance(node, ScalarNode) else ""
    out: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            problems.append((line, "a key is a list or a mapping; expected a text"))
        elif key.value in out:
            problems.append((line, f"duplicate key {short(repr(key.value))}, first in line {lines[key.value]}"))
        else:
            lines[key.value], out[key.value] = line, plain(value, problems)
    return out


def locate(root: Node | None, path: Sequence[str | int]) -> tuple[int, str]:
    """Return the line of the node at a path (of its key, in a mapping) and the path joined by dots.

    Parts of the path that don't exist are skipped.
    """
    node, line, words = root, root.start_mark.line if root else 0, []
    for part in path:
        if isinstance(node, MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == part), None)
            if entry is None:
                continue
            line, node = entry[0].start_mark.line, entry[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            continue
        words.append(short(str(part)))
    return line + 1, ".".join(words)
