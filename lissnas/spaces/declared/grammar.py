"""The grammar of space.yaml: a declaration is read whole, and every problem in it is named at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

from lissnas.core.errors import unknown_name
from lissnas.spaces.declared.records import (
    AtMost,
    Cell,
    Constraint,
    Cost,
    Declaration,
    Exchange,
    Forbid,
    IfThen,
    Inactive,
    Match,
    Metric,
    Ordered,
    Position,
)
from lissnas.spaces.declared.yaml import Checked, Node, compose, number

MOST_CHOICES = 127
"""Choices of a position: rows are int8."""
MOST_POSITIONS, MOST_RULES = 1_000, 1_000
"""Positions of a space, and entries of each list of rules: drawn by the hundred thousand, more would not fit."""
MOST_GROUPS = 12
"""Groups of positions that one exchange may move."""
BASE = "base"
"""In `costs`: what every network costs."""
RESERVED = ("arch", "status", BASE)
"""Names that mean something else in a file of labels or in `costs`."""
KINDS = ("product", "cell")
DIRECTIONS = ("maximize", "minimize")
PRODUCT_KEYS = ("name", "kind", "metric", "positions", "constraints", "inactive", "equivalent", "costs")
CELL_KEYS = ("name", "kind", "metric", "cell")
OPS_ON = ("vertices", "edges")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def read_declaration(text: str, source: str) -> tuple[Declaration, Checked]:
    """Return what a text declares, and where further problems go; raises ConfigError with all of them."""
    checked = Checked(source)
    root = compose(text, checked)
    if root.pairs is None:
        checked.say(root.line, f"expected a mapping with the keys {', '.join(PRODUCT_KEYS)}")
        checked.raise_any()
    kind = next((v.text for k, v in root.pairs or () if k.text == "kind"), "product")
    tree = checked.mapping(root, "space", CELL_KEYS if kind == "cell" else PRODUCT_KEYS)
    if "kind" in tree:
        one_of(checked, tree["kind"], "kind", KINDS)
    for key in ("name", "metric", "cell" if kind == "cell" else "positions"):
        if key not in tree:
            checked.say(root.line, f"space: the key {key!r} is missing")
    name = checked.text(tree["name"], "name") if "name" in tree else None
    if name is not None and not _NAME.fullmatch(name):
        checked.say(tree["name"].line, f"name: expected letters, digits, '_', '-', '.', at most 64, found {name!r}")
    metric = _metric(checked, tree["metric"]) if "metric" in tree else Metric("", True)
    cell = _cell(checked, tree["cell"]) if "cell" in tree else None
    declaration = Declaration(name or "", metric, cell)
    if "positions" in tree:
        rules = _Rules(checked, _positions(checked, tree["positions"], metric.name))
        costs = rules.costs(tree["costs"]) if "costs" in tree else {}
        declaration = Declaration(
            name or "",
            metric,
            None,
            rules.positions,
            rules.constraints(tree["constraints"], costs) if "constraints" in tree else (),
            rules.inactive(tree["inactive"]) if "inactive" in tree else (),
            rules.exchanges(tree["equivalent"]) if "equivalent" in tree else (),
            costs,
        )
    checked.raise_any()
    return declaration, checked


def one_of(checked: Checked, node: Node, where: str, known: Sequence[str]) -> str | None:
    """Return a text that is one of the known ones; None, and said, for any other."""
    text = checked.text(node, where)
    if text is not None and text not in known:
        checked.say(node.line, unknown_name(where, text, known))
        return None
    return text


def _metric(checked: Checked, node: Node) -> Metric:
    tree = checked.mapping(node, "metric", ("name", "direction"))
    for key in ("name", "direction"):
        if node.pairs is not None and key not in tree:
            checked.say(node.line, f"metric: the key {key!r} is missing")
    name = checked.text(tree["name"], "metric: name") if "name" in tree else None
    if name in RESERVED:
        checked.say(tree["name"].line, f"metric: a metric can't be called {name!r}")
    direction = one_of(checked, tree["direction"], "metric: direction", DIRECTIONS) if "direction" in tree else None
    return Metric(name or "", direction != "minimize")


def _positions(checked: Checked, node: Node, metric: str) -> tuple[Position, ...]:
    out: dict[str, Position] = {}
    lines: dict[str, int] = {}
    items = checked.sequence(node, "positions")
    if len(items) > MOST_POSITIONS:
        checked.say(node.line, f"positions: {len(items):,} positions, at most {MOST_POSITIONS:,} are possible")
        checked.raise_any()
    for item in items:
        tree = checked.mapping(item, "positions", ("name", "choices"))
        for key in ("name", "choices"):
            if item.pairs is not None and key not in tree:
                checked.say(item.line, f"positions: the key {key!r} is missing")
        name = checked.text(tree["name"], "positions: name") if "name" in tree else None
        choices = _choices(checked, tree["choices"], f"position {name!r}") if "choices" in tree else ()
        if name is None:
            continue
        if name in out:
            checked.say(item.line, f"position {name!r} stands twice, first in line {lines[name]}")
        if name in (*RESERVED, metric):
            checked.say(item.line, f"a position can't be called {name!r}, which means something else in labels")
        numbers = [number(choice) for choice in choices]
        exact = tuple(n for n in numbers if n is not None)
        out[name] = Position(name, choices, exact if len(exact) == len(choices) else None)
        lines.setdefault(name, item.line)
    return tuple(out.values())


def _choices(checked: Checked, node: Node, where: str) -> tuple[str, ...]:
    items = checked.sequence(node, where)
    if len(items) > MOST_CHOICES:
        checked.say(node.line, f"{where} has {len(items)} choices, at most {MOST_CHOICES} are possible")
    found = [(item.line, checked.text(item, f"{where}: a choice")) for item in items[:MOST_CHOICES]]
    out: list[str] = []
    for line, choice in found:
        if choice is None:
            continue
        if "|" in choice:
            checked.say(line, f"{where}: the choice {choice!r} has a '|', which stands between choices")
        if choice in out:
            checked.say(line, f"{where}: the choice {choice!r} stands twice")
        out.append(choice)
    if len(items) == 1:
        checked.say(node.line, f"{where} has one choice; a position needs two, leave it out otherwise")
    return tuple(out)


class _Rules:
    """Reads what is said about positions by name."""

    def __init__(self, checked: Checked, positions: tuple[Position, ...]) -> None:
        self.checked = checked
        self.positions = positions
        self.index = {p.name: i for i, p in enumerate(positions)}

    def position(self, node: Node, where: str) -> int | None:
        """Return the number of a position; None, and said, for an unknown one."""
        name = self.checked.text(node, where)
        if name is None:
            return None
        if name not in self.index:
            self.checked.say(node.line, f"{where}: {unknown_name('position', name, self.index)}")
        return self.index.get(name)

    def group(self, node: Node, where: str, least: int) -> tuple[int, ...]:
        """Return a list of different positions; empty, and said, for anything else."""
        items = self.checked.sequence(node, where)
        found = [self.position(item, where) for item in items]
        known = [p for p in found if p is not None]
        for p in sorted(p for p, n in Counter(known).items() if n > 1):
            self.checked.say(node.line, f"{where}: position {self.positions[p].name!r} stands twice")
        if 0 < len(items) < least:
            self.checked.say(node.line, f"{where}: expected at least {least} positions")
        return tuple(known) if len(known) == len(items) == len(set(known)) >= least else ()

    def match(self, node: Node, where: str) -> Match:
        """Return `{position: choice or list of choices}`."""
        out = {}
        tree = self.checked.mapping(node, where)
        if node.pairs is not None and not node.pairs:
            self.checked.say(node.line, f"{where}: names no position")
        for key, value in node.pairs or ():
            if key.text not in tree:
                continue
            p = self.position(key, where)
            items = self.checked.sequence(value, where) if value.items is not None else [value]
            found = [self.choice(p, item, where) for item in items] if p is not None else []
            if p is not None:
                out[p] = frozenset(c for c in found if c is not None)
        return tuple(sorted(out.items()))

    def choice(self, p: int, node: Node, where: str) -> int | None:
        """Return the number of a choice of position `p`; None, and said, for an unknown one."""
        position = self.positions[p]
        text = self.checked.text(node, f"{where}: {position.name}")
        if text is None:
            return None
        if text not in position.choices:
            self.checked.say(
                node.line, f"{where}: {unknown_name(f'choice of {position.name}', text, position.choices)}"
            )
            return None
        return position.choices.index(text)

    def rules(self, node: Node, where: str) -> list[tuple[Node, str, Node]]:
        """Return the entries of a list of mappings: the mapping, its first key, what belongs to that."""
        out = []
        items = self.checked.sequence(node, where)
        if len(items) > MOST_RULES:
            self.checked.say(node.line, f"{where}: {len(items):,} rules, at most {MOST_RULES:,} are possible")
            self.checked.raise_any()
        for item in items:
            if item.pairs:
                out.append((item, item.pairs[0][0].text or "", item.pairs[0][1]))
            else:
                self.checked.mapping(item, where)
                if item.pairs is not None:
                    self.checked.say(item.line, f"{where}: an empty rule")
        return out

    def constraints(self, node: Node, costs: Mapping[str, Cost]) -> tuple[Constraint, ...]:
        """Return the rules that all must hold."""
        known = {"ordered": ("ordered",), "forbid": ("forbid",), "if": ("if", "then"), "at_most": ("at_most",)}
        out: list[Constraint] = []
        for item, rule, value in self.rules(node, "constraints"):
            rule = "if" if rule == "then" else rule
            if rule not in known:
                self.checked.say(item.line, f"constraints: {unknown_name('rule', rule, known)}")
                continue
            tree = self.checked.mapping(item, "constraints", known[rule])
            if rule == "ordered":
                out += [Ordered(item.line, group)] if (group := self.ordered(value)) else []
            elif rule == "forbid":
                out.append(Forbid(item.line, self.match(value, "forbid")))
            elif rule == "at_most":
                out += self.at_most(value, costs)
            elif "if" in tree and "then" in tree:
                out.append(IfThen(item.line, self.match(tree["if"], "if"), self.match(tree["then"], "then")))
            else:
                self.checked.say(item.line, "constraints: 'if' and 'then' belong together")
        return tuple(out)

    def ordered(self, node: Node) -> tuple[int, ...]:
        """Return positions of numbers that don't decrease."""
        group = self.group(node, "ordered", 2)
        for position in (self.positions[p] for p in group):
            if position.numbers is None:
                text = next(c for c in position.choices if number(c) is None)
                self.checked.say(node.line, f"ordered: position {position.name!r} has the choice {text!r}, no number")
        return group

    def at_most(self, node: Node, costs: Mapping[str, Cost]) -> list[Constraint]:
        """Return a limit of a cost, if it makes sense."""
        tree = self.checked.mapping(node, "at_most", ("cost", "value"))
        for key in ("cost", "value"):
            if node.pairs is not None and key not in tree:
                self.checked.say(node.line, f"at_most: the key {key!r} is missing")
        name = self.checked.text(tree["cost"], "at_most: cost") if "cost" in tree else None
        if name is not None and name not in costs:
            self.checked.say(node.line, f"at_most: {unknown_name('cost', name, costs or ('none',))}")
        value = self.checked.number(tree["value"], "at_most: value") if "value" in tree else None
        return [AtMost(node.line, name, value)] if name in costs and name is not None and value is not None else []

    def inactive(self, node: Node) -> tuple[Inactive, ...]:
        """Return what doesn't matter when; says rules that hang on each other in a circle."""
        out = []
        for item, _, _ in self.rules(node, "inactive"):
            tree = self.checked.mapping(item, "inactive", ("when", "positions"))
            if not ("when" in tree and "positions" in tree):
                self.checked.say(item.line, "inactive: expected the keys 'when' and 'positions'")
                continue
            match = self.match(tree["when"], "when")
            out.append(Inactive(item.line, match, self.group(tree["positions"], "inactive: positions", 1)))
        return self.sorted(out)

    def sorted(self, rules: list[Inactive]) -> tuple[Inactive, ...]:
        """Return rules in an order in which each comes after those that can switch off what it asks about."""
        left, done = list(rules), []
        while left:
            off = {p for rule in left for p in rule.positions}
            ready = [rule for rule in left if not off & {p for p, _ in rule.match}]
            if not ready:
                lines = ", ".join(str(rule.line) for rule in left)
                self.checked.say(left[0].line, f"inactive: the rules of lines {lines} hang on each other in a circle")
                return tuple(rules)
            done += ready
            left = [rule for rule in left if off & {p for p, _ in rule.match}]
        return tuple(done)

    def exchanges(self, node: Node) -> tuple[Exchange, ...]:
        """Return groups of positions that may change places."""
        out = []
        for item, rule, value in self.rules(node, "equivalent"):
            if rule != "exchange":
                self.checked.say(item.line, f"equivalent: {unknown_name('rule', rule, ('exchange',))}")
                continue
            self.checked.mapping(item, "equivalent", ("exchange",))
            nodes = self.checked.sequence(value, "exchange")
            groups = [self.group(inner, "exchange", 1) for inner in nodes]
            if nodes and all(groups) and self._alike(value.line, groups):
                out.append(Exchange(item.line, tuple(groups)))
        return tuple(out)

    def _alike(self, line: int, groups: list[tuple[int, ...]]) -> bool:
        """Whether groups can change places: several of one length, apart, position by position alike."""
        flat = [p for group in groups for p in group]
        problem = ""
        if len(groups) < 2 or len(groups) > MOST_GROUPS:
            problem = f"expected 2 to {MOST_GROUPS} groups of positions, found {len(groups)}"
        elif len({len(group) for group in groups}) > 1:
            problem = "the groups have different numbers of positions"
        elif len(set(flat)) < len(flat):
            problem = "a position is in two groups"
        else:
            for first, *others in zip(*groups, strict=True):
                a = self.positions[first]
                for b in (self.positions[p] for p in others):
                    if a.choices != b.choices:
                        problem = f"positions {a.name!r} and {b.name!r} don't have the same choices in the same order"
        if problem:
            self.checked.say(line, f"exchange: {problem}")
        return not problem

    def costs(self, node: Node) -> dict[str, Cost]:
        """Return what each choice costs, by name of the cost."""
        out = {}
        tree = self.checked.mapping(node, "costs")
        for key, value in node.pairs or ():
            if key.text is None or tree.get(key.text) is not value:
                continue
            if not _NAME.fullmatch(key.text):
                self.checked.say(key.line, f"costs: expected letters, digits, '_', '-', '.', found {key.text!r}")
            out[key.text] = self.cost(value, f"costs: {key.text}")
        return out

    def cost(self, node: Node, where: str) -> Cost:
        """Return one cost: `base`, and by position a number for each choice."""
        tree = self.checked.mapping(node, where, (BASE, *self.index))
        base = Decimal(0)
        by_choice = {}
        for name, value in tree.items():
            if name == BASE:
                base = self.price(value, f"{where}: {BASE}")
                continue
            position = self.positions[self.index[name]]
            prices = self.checked.mapping(value, f"{where}: {name}", position.choices)
            missing = [c for c in position.choices if c not in prices]
            if value.pairs is not None and missing:
                self.checked.say(value.line, f"{where}: {name}: no cost for {', '.join(map(repr, missing))}")
            by_choice[self.index[name]] = tuple(
                self.price(prices[c], f"{where}: {name}") if c in prices else Decimal(0) for c in position.choices
            )
        out = Cost(base, by_choice)
        if out.scale > 10**18 or out.highest * out.scale >= 2**62:
            self.checked.say(node.line, f"{where}: more than 18 digits are needed to add these up exactly")
        return out

    def price(self, node: Node, where: str) -> Decimal:
        """Return a number that is not negative, 0 where it was said to be none."""
        value = self.checked.number(node, where)
        if value is not None and value < 0:
            self.checked.say(node.line, f"{where}: a cost can't be negative, found {node.text}")
        return value or Decimal(0)


def _cell(checked: Checked, node: Node) -> Cell:
    tree = checked.mapping(node, "cell", ("vertices", "max_edges", "ops", "ops_on"))
    for key in ("vertices", "max_edges", "ops", "ops_on"):
        if node.pairs is not None and key not in tree:
            checked.say(node.line, f"cell: the key {key!r} is missing")
    vertices = _whole(checked, tree["vertices"], "cell: vertices", 2, 7) if "vertices" in tree else 2
    edges = vertices * (vertices - 1) // 2
    most = _whole(checked, tree["max_edges"], "cell: max_edges", 1, max(edges, 1)) if "max_edges" in tree else 1
    on = one_of(checked, tree["ops_on"], "cell: ops_on", OPS_ON) if "ops_on" in tree else None
    ops: dict[str, None] = {}
    for item in checked.sequence(tree["ops"], "cell: ops") if "ops" in tree else ():
        op = checked.text(item, "cell: an operation")
        if op in ops:
            checked.say(item.line, f"cell: the operation {op!r} stands twice")
        ops |= {op: None} if op is not None else {}
    return Cell(vertices, most, tuple(ops), on == "edges", node.line)


def _whole(checked: Checked, node: Node, where: str, low: int, high: int) -> int:
    text = checked.text(node, where)
    if text is None:
        return high
    if not re.fullmatch(r"[0-9]{1,4}", text) or not low <= int(text) <= high:
        checked.say(node.line, f"{where}: expected a whole number from {low} to {high}, found {text!r}")
        return high
    return int(text)
