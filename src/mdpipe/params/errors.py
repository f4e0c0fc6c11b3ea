"""Error messages for params.yaml: the key, its value, the broken rule, and a hint."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from mdpipe.params.strict_yaml import join_keys

Keys = tuple[int | str, ...]
"""Path of a key: keys of mappings and positions in lists."""
BrokenRules = Iterator[tuple[Keys, str]]
"""Rules between settings that are broken, each with the path of the key to report."""

MIN_PREFIX = 3
"""Minimum length of a prefix for which `did_you_mean` suggests a name."""
ALLOWED = "; allowed: "
"""Text before the names that a rule allows."""
LONG_LIST = 40
"""Characters of a list of names that is not repeated in the errors of one file."""
MAX_SHOWN = 200
"""Maximum number of characters of a value in an error."""

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
RUN_PATTERN = r"^[a-z][a-z0-9_]*(-seed[0-9]+)?$"
PACKAGE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*$"
CHECKSUM_PATTERN = r"^[0-9a-f]{64}$"
URL_PATTERN = r"^https?://"
DELIMITER_PATTERN = r'^[^"\r\n]$'
NAME_RULE = "a name has only lowercase letters from a to z, digits and _, and begins with a letter"
PATTERN_RULES = {
    NAME_PATTERN: NAME_RULE,
    RUN_PATTERN: NAME_RULE,
    PACKAGE_PATTERN: "must be the name by which Python imports a package, such as scikit-learn's sklearn",
    CHECKSUM_PATTERN: "must be the 64 hexadecimal digits that `sha256sum FILE` prints, in lowercase",
    URL_PATTERN: "must begin with http:// or https://",
    DELIMITER_PATTERN: "must be one character, neither a quotation mark nor a line break",
}
RULES = {
    "dict_type": "must be a mapping of names to settings",
    "tuple_type": "must be a list",
    "none_required": "takes no value",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least one entry",
    "missing": "is too short: an entry is missing",
    "too_long": "must have at most {max_length} entries, and has {actual_length}",
}
"""Rules by pydantic's type of error, for types whose rule does not depend on the value."""

EXAMPLES = "docs/data.md, README.md and workflow/presets have examples"
EMPTY = {
    "dict_type": "write {} for no entries",
    "list_type": "write [] for no entries",
    "section": EXAMPLES,
    "kind": EXAMPLES,
}
"""Hints for sections without a value, by the type of the error."""
DEPENDENT_DEFAULT = "default_factory_not_called"
"""Pydantic's type of error for a default that depends on an invalid setting."""

YAML_WORDS = {"None": "null", "True": "true", "False": "false"}
SHOWN_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/?#@'\"<>]*@)?([^\s?#@'\"<>]*)(?:[?#][^\s@'\"<>]*)?")
"""A URL with well-formed user, password and query, which an error can therefore omit."""


@dataclass(frozen=True)
class Missing:
    """Placeholder of a missing value. No type accepts it, so the error says which values the key accepts."""

    key: str
    note: str | None = None
    """Description of the key."""
    may_be_null: bool = False


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'chars_md4'?)`, or "" if no known name is similar, ignoring case."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1)
    if not near and len(name) >= MIN_PREFIX:
        near = [candidate for candidate in by_lower_case if candidate.startswith(name.lower())]
    return f" (did you mean {by_lower_case[near[0]]!r}?)" if near else ""


def make_error(rule: str, kind: str = "rule", context: Mapping[str, Any] | None = None) -> PydanticCustomError:
    """Return the error for a validator to raise if a value breaks a rule."""
    return PydanticCustomError(kind, "{rule}", {**(context or {}), "rule": rule})


def errors_at(problems: Iterable[tuple[Keys, Any, PydanticCustomError]]) -> ValidationError:
    """Return the error for values that break rules, each with the path of its key."""
    details = [InitErrorDetails(type=error, loc=keys, input=value) for keys, value, error in problems]
    return ValidationError.from_exception_data("params", details)


def not_in(table: str, name: str, names: Iterable[str], why: str | None = None) -> str:
    """Return the rule that a value must be one of some names.

    Args:
        table: Kind of the names, such as `runs`.
        name: The invalid value.
        names: The allowed names.
        why: Reason why the value is invalid although it exists, or None.
    """
    allowed = sorted(names)
    listed = ", ".join(allowed) or "none is defined"
    if why is not None:
        return f"{why}; allowed are {table}: {listed}"
    return f"not one of {table}{did_you_mean(name, allowed)}{ALLOWED}{listed}"


def problem_lines(error: ValidationError, data: Any) -> list[str]:
    """Return a line for each error of a mapping, with the key, its value and the allowed values."""
    # A default that depends on an invalid setting is only a consequence of another error.
    found = [problem for problem in error.errors(include_url=False) if problem["type"] != DEPENDENT_DEFAULT]
    return list(_without_repetition(_line(problem, data) for problem in found))


def _without_repetition(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines, with a reference to an earlier line in place of the same long list of allowed names."""
    listed: dict[str, str] = {}
    for line in lines:
        start, sign, allowed = line.rpartition(ALLOWED)
        where = listed.setdefault(allowed, line.partition(": ")[0])
        is_repeated = sign and len(allowed) > LONG_LIST and line.partition(": ")[0] != where
        yield f"{start}{ALLOWED}the same as for {where}" if is_repeated else line


def _line(problem: ErrorDetails, data: Any) -> str:
    """Return a line such as `runs.chars_md4.train.steps: 0 is refused: must be at least 1`."""
    keys, value = [], data
    for part in problem["loc"]:
        # Other parts are pydantic's tags of union members.
        if part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            keys.append(str(part))
            value = value[part]
    given, kind, rule = problem["input"], problem["type"], rule_of(problem)
    if isinstance(given, Missing):
        note = " ".join((given.note or "").split()).partition(". ")[0].rstrip(".")
        note = f" ({note})" if note else ""
        return f"{join_keys([*keys, given.key])}: is missing; {rule}{', or null' * given.may_be_null}{note}"
    where = join_keys(keys)
    if value is None and kind in EMPTY:
        return f"{where}: is empty; {'' if kind in ('dict_type', 'list_type') else f'{rule}; '}{EMPTY[kind]}"
    if problem["loc"][-1:] == ("[key]",):
        return f"{where}: the name {_shorten(repr(given))} is refused: {rule}"
    if isinstance(value, dict) or kind == "unknown_keys":
        return f"{where}: {rule}"
    shown = _in_yaml(given if value is None else value)  # For a key without a value, the key.
    if keys[-1:] == ["url"] or "://" in shown:
        if not (url := SHOWN_URL.fullmatch(str(value))):
            return f"{where}: is refused (it is not shown, since it may hold a password): {rule}"
        shown = repr(url[1] + url[2])
    return f"{where}: {_shorten(shown)} is refused: {rule}"


def rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value refused by pydantic breaks."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    match kind:
        case "int_type" | "int_from_float":
            return f"must be a whole number{_suggest_number(value)}"
        case "float_type":
            return f"must be a number{_suggest_number(value)}"
        case "bool_type":
            return "must be true or false" + ", without quotes" * (value in ("true", "false"))
        case "string_type":
            return "must be text" + f'; write "{value}"' * (isinstance(value, int | float) and value is not True)
        case "list_type":
            return "must be a list" + f"; write [{value}]" * (isinstance(value, str | int) and value is not True)
        case "less_than" if context["lt"] == math.inf:
            return "must be finite"
        case "literal_error":
            return _one_of(context["expected"], value)
        case "string_pattern_mismatch":
            return PATTERN_RULES[context["pattern"]] + _fit_name(context["pattern"], value)
    if kind in RULES:
        return RULES[kind].format_map({key: f"{x:g}" if isinstance(x, float) else x for key, x in context.items()})
    return problem["msg"].removeprefix("Value error, ")


def _in_yaml(value: Any) -> str:
    return YAML_WORDS.get(repr(value), repr(value))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _suggest_number(value: Any) -> str:
    """Return a hint for a number that is written in another form."""
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d[\d_,]*\.?\d*([eE][-+]?\d+)?\s*", value):
        return ", without quotes"
    return f"; write {value:.0f}" if isinstance(value, float) and value.is_integer() else ""


def _one_of(expected: str, value: Any) -> str:
    """Return the rule for a literal, whose values pydantic lists as `'drop' or 'keep'`."""
    allowed = [YAML_WORDS.get(word, word) for word in re.findall(r"'[^']*'|[^\s,]+", expected) if word != "or"]
    hint = did_you_mean(value, [word.strip("'") for word in allowed]) if isinstance(value, str) else ""
    return f"must be {' or '.join(allowed) if len(allowed) < 3 else 'one of ' + ', '.join(allowed)}{hint}"


def _fit_name(pattern: str, name: str) -> str:
    """Return a suggestion for an invalid name."""
    fit = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"; write {fit!r}" if PATTERN_RULES[pattern] == NAME_RULE and re.match(NAME_PATTERN, fit) else ""
