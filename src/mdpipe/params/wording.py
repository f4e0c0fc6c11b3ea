"""What pydantic finds wrong with a value, in the words of params.yaml: what is allowed there."""

import math
import re
from collections.abc import Mapping
from typing import Any

from mdpipe.params.nearest import did_you_mean

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
"""Of a source, dataset or run."""
PACKAGE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*$"
CHECKSUM_PATTERN = r"^[0-9a-f]{64}$"
URL_PATTERN = r"^https?://"
DELIMITER_PATTERN = r'^[^"\r\n]$'

PATTERN_RULES = {
    NAME_PATTERN: "a name has only small letters from a to z, digits and _, and begins with a letter",
    PACKAGE_PATTERN: "must be the name by which Python imports a package, such as scikit-learn's sklearn",
    CHECKSUM_PATTERN: "must be the 64 hexadecimal digits that `sha256sum FILE` prints, in small letters",
    URL_PATTERN: "must begin with http:// or https://",
    DELIMITER_PATTERN: "must be one character, neither a quotation mark nor a line break",
}

YAML_WORDS = {"None": "null", "True": "true", "False": "false"}
"""How YAML writes what Python writes otherwise."""


def in_yaml(value: Any) -> str:
    """Return a value as params.yaml has it."""
    return YAML_WORDS.get(repr(value), repr(value))


def rule_of(kind: str, message: str, context: Mapping[str, Any], value: Any) -> str:
    """Return what is allowed where a value was refused.

    Args:
        kind: pydantic's name of the problem.
        message: what pydantic says, which is the rule where it comes from one of our validators.
        context: the numbers and names that the rule has.
        value: what was refused.
    """
    match kind:
        case "int_type" | "int_from_float":
            return f"must be a whole number{_rewritten(value)}"
        case "float_type":
            return f"must be a number{_rewritten(value)}"
        case "bool_type":
            return "must be true or false" + ", without quotes" * (value in ("true", "false"))
        case "string_type":
            return "must be text" + f'; write "{value}"' * (isinstance(value, int | float) and value is not True)
        case "list_type":
            return "must be a list" + f"; write [{value}]" * (isinstance(value, str | int) and value is not True)
        case "dict_type":
            return "must be a mapping of names to settings"
        case "tuple_type":
            return "must be a list"
        case "greater_than":
            return f"must be above {_number(context['gt'])}"
        case "greater_than_equal":
            return f"must be at least {_number(context['ge'])}"
        case "none_required":
            return "takes no value"
        case "less_than" if context["lt"] == math.inf:
            return "must be finite"
        case "less_than":
            return f"must be below {_number(context['lt'])}"
        case "less_than_equal":
            return f"must be at most {_number(context['le'])}"
        case "multiple_of":
            return f"must be a multiple of {_number(context['multiple_of'])}"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "too_short":
            return "must have at least one entry"
        case "missing":
            return "is too short: an entry is missing"
        case "too_long":
            return f"must have at most {context['max_length']} entries, and has {context['actual_length']}"
        case "literal_error":
            return _one_of(context["expected"], value)
        case "string_pattern_mismatch":
            return PATTERN_RULES[context["pattern"]] + _fit_name(context["pattern"], value)
    return message.removeprefix("Value error, ")


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _rewritten(value: Any) -> str:
    """Return how to write a number that was written as something else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d[\d_,]*\.?\d*([eE][-+]?\d+)?\s*", value):
        return ", without quotes"
    return f"; write {value:.0f}" if isinstance(value, float) and value.is_integer() else ""


def _one_of(expected: str, value: Any) -> str:
    """Return the values of a literal, which pydantic joins like `'drop' or 'keep'`."""
    allowed = [YAML_WORDS.get(word, word) for word in re.findall(r"'[^']*'|[^\s,]+", expected) if word != "or"]
    hint = did_you_mean(value, [word.strip("'") for word in allowed]) if isinstance(value, str) else ""
    return f"must be {' or '.join(allowed) if len(allowed) < 3 else 'one of ' + ', '.join(allowed)}{hint}"


def _fit_name(pattern: str, name: str) -> str:
    """Return a suggestion in place of a name that is not fit for one."""
    fit = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"; write {fit!r}" if pattern == NAME_PATTERN and re.match(NAME_PATTERN, fit) else ""
