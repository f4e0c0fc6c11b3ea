"""The strict reader of YAML: DVC reads the same, and what has two meanings is refused with its line."""

import math
import time
from typing import Any

import pytest
from dvc.utils.serialize import loads_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdpipe.params.strict_yaml import MAX_DEPTH, StrictYAMLError, read_yaml

NUMBER_LIKE = st.text("0123456789" * 3 + "+-._:eExXoObaAf~ TZ", min_size=1, max_size=8)
WORDS = st.sampled_from(
    [word for root in ("yes", "no", "on", "off", "y", "n", "true", "false", "null", ".inf", ".nan", "nan")
     for word in (root, root.title(), root.upper(), "-" + root)]
    + ["~", "=", "<<", "2024-01-01", "2024-1-1 1:2:3", "12e03", "1e400", "0.1_2", "-_", "0o8", "08", "1__0", "+.5"]
)  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.one_of(NUMBER_LIKE, WORDS, ANY_TEXT, st.integers().map(str), st.floats().map(repr))


def dvc(text: str) -> Any:
    """What DVC reads; the exception where it reads nothing."""
    try:
        return loads_yaml(text)
    except Exception as error:  # ruamel lets errors of int() and of dates through
        return error


def is_identical(ours: Any, theirs: Any) -> bool:
    return type(ours) is type(theirs) and ours == theirs


def refusal(content: str | bytes) -> str:
    with pytest.raises(StrictYAMLError) as error:
        read_yaml(content.encode() if isinstance(content, str) else content)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.slow
@settings(max_examples=2000)
@given(scalar=SCALARS)
@example(".5e3")
@example("010")
@example("a\u2028b")
def test_a_scalar_means_the_same_to_dvc_or_is_refused(scalar):
    try:
        ours = read_yaml(f"key: {scalar}\n".encode())
    except StrictYAMLError:
        return
    theirs = dvc(f"key: {scalar}\n")
    assert isinstance(theirs, dict), (ours, theirs)
    for key in ours:
        assert is_identical(ours[key], theirs[key]), (ours, theirs)
    assert ours == theirs


@given(value=st.one_of(st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_a_number_as_it_is_usually_written_is_read(value):
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    assert is_identical(read_yaml(f"key: {text}".encode()), {"key": value})


@pytest.mark.parametrize(
    "text",
    [
        "base: &base {a: 1, b: [2, 3]}\nmine: {<<: *base, a: 4}",
        "one: &one {a: 1}\ntwo: &two {a: 2, b: 2}\nboth: {<<: [*one, *two], c: 3}",
        "a: 2\n<<: {a: 1, b: 3}",
        "---\na: 'it''s'\nb: \"tab\\tnewline\\n\"\nc: |\n  two\n  lines\nd: >-\n  folded\n  text\n...\n",
        '"<<": 1\na: ~\nb:\nc: {}\nd: []\n',
        "\ufeffa: 1\r\nb: 2\r\n",
        "? a\n: b\n",
        "a: 1e-3\nb: -.5\nc: 1.\nd: 86c4e6aa\ne: 1.2.3\nf: a:b\ng: a#b\nh: '@b'\n",
    ],
)
def test_a_document_means_the_same_to_dvc(text):
    assert read_yaml(text.encode()) == loads_yaml(text)


@pytest.mark.parametrize(
    ("scalar", "advice"),
    [
        ("010", "decimal"),
        ("0o17", "decimal"),
        ("0x1F", "decimal"),
        ("0b11", "decimal"),
        ("1_000", "decimal"),
        ("1:30", "decimal"),
        (".5e3", "decimal"),
        ("2024-01-01", '"2024-01-01"'),
        ("2024-99-99", '"2024-99-99"'),
        ("no", 'true or false, or "no"'),
        ("On", 'true or false, or "On"'),
        (".inf", "finite"),
        (".nan", "finite"),
        ("1e999", "finite"),
        ("9" * 5000, "number of 5,000 characters"),
        ('"\\e[31m"', r"'\x1b'"),
        ('"a\\0b"', r"'\x00'"),
        ('"\\u202e"', r"'\u202e'"),
        ("!!int zz", "remove the tag"),
        ("! zz", "remove the tag"),
        ("!!python/object:os.system x", "remove the tag"),
    ],
)
def test_an_ambiguous_scalar_is_refused_with_key_line_and_hint(scalar, advice):
    message = refusal(f"seed: 0\nruns:\n  a:\n    steps: {scalar}\n")
    assert message.startswith("line 4")
    assert advice in message
    if "tag" not in advice:
        assert "runs.a.steps" in message


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("a: 0\na: 1\n", 2, "'a' is here a second time"),
        ("b:\n  c: {<<: {}, <<: {}}\n", 2, "'<<' is here a second time"),
        ("b: 1\n[a, b]: 1\n", 2, "a list or mapping as a key"),
        ("b: 1\n{a: b}: 1\n", 2, "a list or mapping as a key"),
        ("1: 1\n", 1, "'1' as a key"),
        ("no: 1\n", 1, "truth value"),
        ("a: [0\n", 2, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 1\n", 2, "single document"),
        ("a: *b\n", 1, "undefined alias"),
        ("a: {<<: 1}\n", 1, "<< takes a mapping"),
        ("a: &a [*a]\n", 1, "alias of what it is in"),
        ("a: 1\nb: \0\n", 2, r"'\x00'"),
        ("a: 1\nb: \uffff\n", 2, "'\\uffff'"),
        ("a: 1\nb: \x1b[31m\n", 2, r"'\x1b'"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "not UTF-8"),
        ("a: 1\n".encode("utf-16-be"), 1, r"'\x00'"),
    ],
)
def test_a_broken_document_is_refused_with_line_and_reason(content, line, reason):
    message = refusal(content)
    assert message.startswith(f"line {line}"), message
    assert reason in message


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_a_stated_version_is_refused(version):
    assert "remove the line" in refusal(f"%YAML {version}\n---\na: 1\n")


def bomb(depth: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(10), "values"),
        (bomb(10).replace("[", "{<<: [").replace("]", "]}"), ""),
        ("a: " + "[" * 3000 + "]" * 3000, "levels"),
        ("a: " + "{a: " * 100_000, "levels"),
        ("- " * 10_000, "levels"),
        ("a: " + "9" * 1_000_000, "characters"),
        ("\n".join(f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, 200)).replace("*a0", "1"), "nested"),
    ],
)
def test_what_would_take_long_is_refused_within_seconds(text, reason):
    start = time.perf_counter()
    assert reason in refusal(text)
    assert time.perf_counter() - start < 5


def test_nesting_up_to_the_limit_is_read():
    value = read_yaml(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == MAX_DEPTH - 1
    assert math.isclose(read_yaml(b"a: 1e-3")["a"], 0.001)
