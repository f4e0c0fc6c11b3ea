"""Read YAML strictly: a file means the same in YAML 1.1 and 1.2, hence to PyYAML and DVC, or it is refused.

Refused are plain scalars that the two versions read differently (`010`, `1_000`, `0x1F`, `1:30`, `no`, dates), tags,
directives, duplicate keys and keys that are not text, infinite numbers and control characters; and everything that
would take unbounded time: deep nesting, long numbers, aliases that expand to many values.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_DEPTH = 50
"""The deepest setting of params.yaml is at level 6."""
MAX_VALUES = 100_000
"""Values of a file with its aliases expanded: the settings of more than a thousand runs."""
MAX_DIGITS = 40
"""Digits of a number: twice as many as in the largest seed."""

NULL = re.compile(r"~|null|Null|NULL|")
BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+([eE][-+][0-9]+)?)")
"""Includes `1e-3`, which is text in YAML 1.1: a number is meant, and DVC reads one."""
INTEGER_1_2 = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)")
"""An integer as DVC reads YAML 1.2; its floats are floats in Python, too."""

UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Controls of a terminal or of the direction of text, other line ends, and surrogates."""

PLAIN, QUOTED = "plain", "quoted"
MERGE = "<<"


class StrictYAMLError(ValueError):
    """A file is not YAML, or has more than one meaning; the message names the line and, if known, the key."""


def read_yaml(content: bytes) -> Any:
    """Return the value of a YAML document; None if it is empty.

    Raises:
        StrictYAMLError: It is refused.
    """
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StrictYAMLError(f"line {line}: is not UTF-8 text: {error.reason}") from None
    if found := UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise StrictYAMLError(f"line {line}: has the character {found[0]!r}; remove it")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = ", ".join(filter(None, [error.context, error.problem]))
        raise StrictYAMLError(f"{where}is not valid YAML: {what}") from None
    if loader.yaml_version is not None:
        raise StrictYAMLError("states a version of YAML; remove the line that begins with %YAML")
    return None if node is None else loader.value(node, ())


class _Loader(yaml.SafeLoader):
    """Makes nodes that know whether they are plain, refuses tags and deep nesting, and turns nodes into values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._values = 0

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:  # noqa: ARG002
        # Called for nodes without a tag; implicit[0] is True for a plain scalar.
        return PLAIN if kind is ScalarNode and implicit[0] else QUOTED

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if tag := getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem=f"remove the tag {tag!r}", problem_mark=event.start_mark)
        if self._level > MAX_DEPTH:
            problem = f"is nested more than {MAX_DEPTH} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def value(self, node: Node, keys: tuple[str, ...]) -> Any:
        """Return the value of the node at these keys; an error names them."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _make_error(node, keys, f"expands to more than {MAX_VALUES:,} values; write fewer aliases")
        if len(keys) > MAX_DEPTH:
            raise _make_error(node, keys, "is an alias of what it is in, or nested too deep")
        match node:
            case MappingNode():
                return self._mapping(node, keys)
            case SequenceNode():
                return [self.value(entry, (*keys, str(index))) for index, entry in enumerate(node.value)]
        return _scalar(node, keys)

    def _mapping(self, node: MappingNode, keys: tuple[str, ...]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        found: dict[str, Any] = {}
        seen = set()
        for key_node, value_node in node.value:
            is_merge = key_node.tag == PLAIN and key_node.value == MERGE
            key = MERGE if is_merge else _key(key_node, keys)
            if (is_merge, key) in seen:
                raise _make_error(key_node, keys, f"{key!r} is here a second time; merge the two")
            seen.add((is_merge, key))
            value = self.value(value_node, (*keys, key))
            if not is_merge:
                found[key] = value
                continue
            for mapping in value if isinstance(value, list) else [value]:
                if not isinstance(mapping, dict):
                    raise _make_error(value_node, keys, "<< takes a mapping, or a list of mappings")
                merged = mapping | merged
        return merged | found


def _key(node: Node, keys: tuple[str, ...]) -> str:
    key = _scalar(node, keys) if isinstance(node, ScalarNode) else node.value
    if not isinstance(key, str):
        shown = repr(node.value) if isinstance(node, ScalarNode) else "a list or mapping"
        raise _make_error(node, keys, f"has {shown} as a key; a key is a text: put it in quotes")
    return key


def _scalar(node: Node, keys: tuple[str, ...]) -> Any:
    """Return the text, number, boolean or null of a scalar."""
    text: str = node.value
    if node.tag == QUOTED or not _is_special(text):
        if found := UNPRINTABLE.search(text):
            raise _make_error(node, keys, f"has the character {found[0]!r}; remove it")
        return text
    if NULL.fullmatch(text):
        return None
    if BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if len(text) > MAX_DIGITS:
        raise _make_error(node, keys, f"is a number of {len(text):,} characters; the most are {MAX_DIGITS}")
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if text.lower() in ("yes", "no", "on", "off"):
        rule = f'{text} is a truth value in YAML 1.1 and a text in 1.2; write true or false, or "{text}" for the text'
    else:
        rule = (
            f"{text} is not the same finite number or text in YAML 1.1, YAML 1.2 and Python; write a number in decimal,"
            f' such as 10, 0.5 or 1e-3, or "{text}" for the text'
        )
    raise _make_error(node, keys, rule)


def _is_special(text: str) -> bool:
    """Return True for a plain scalar that is not text in YAML 1.1, YAML 1.2 or Python."""
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], [])
    if any(pattern.match(text) for _, pattern in resolvers) or INTEGER_1_2.fullmatch(text):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _make_error(node: Node, keys: tuple[str, ...], rule: str) -> StrictYAMLError:
    return StrictYAMLError(f"line {node.start_mark.line + 1}: {join_keys(keys)}: {rule}")


def join_keys(keys: Iterable[str]) -> str:
    """Return the path of a key as an error shows it, on one line."""
    return ".".join(key if key.isprintable() else repr(key) for key in keys) or "top level"
