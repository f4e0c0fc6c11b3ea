"""What people are shown of names, values and addresses that others chose."""

import socket

import pytest
import requests
import torch

from mdpipe.console import report_errors
from mdpipe.messages import counted, listed_names, printable, printable_lines, reason, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 猫 😀.png", "café 猫 😀.png"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("a\nmdpipe: all is well\r", r"a\nmdpipe: all is well\r"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_escaped_and_others_stay(text, shown):
    assert printable(text) == shown
    assert printable_lines(f"{text}\n") == shown.replace(r"a\nmdpipe", "a\nmdpipe") + "\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a.txt", "https://example.org/a.txt"),
        ("https://me:s3cret@example.org:8080/a.txt", "https://example.org:8080/a.txt"),
        ("https://me:p@ss@example.org", "https://example.org"),
        ("http://example.org/a?token=1&b=2#part", "http://example.org/a"),
        ("http://me@[::1]:80/a?b", "http://[::1]:80/a"),
        ("see 'http://u:p@h/a?b=c', and more?", "see 'http://h/a', and more?"),
        ("no address? me:you@home", "no address? me:you@home"),
    ],
)
def test_an_address_loses_user_password_and_query(url, shown):
    assert without_secrets(url) == shown


def test_library_reasons_have_no_memory_address_or_query():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(requests.ConnectionError) as refused:
        requests.get(f"http://me:s3cret@127.0.0.1:{port}/a?token=1", timeout=5)
    told = reason(refused.value)
    assert "Connection refused" in told
    assert "/a" in told
    assert not {"0x", "token", "s3cret"} & {word for word in ("0x", "token", "s3cret") if word in told}
    assert "\n" not in told


def test_a_long_reason_is_cut_and_an_empty_one_is_named():
    assert len(reason(ValueError("x" * 10_000))) < 400
    assert reason(EOFError()) == "EOFError"


def test_many_names_are_counted():
    assert listed_names(["a", "b\n"]) == r"'a', 'b\n'"
    assert listed_names([str(number) for number in range(1000)]).endswith("'9' and 990 more")
    assert listed_names([]) == "none"


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_the_command_line_prints_no_escape_codes_and_no_password(error):
    def bad_input():
        raise error("\x1b[2Ja.png of http://me:s3cret@h/a?b is bad\nsecond line")

    bad_input.__globals__["__name__"], before = "mdpipe.data", __name__
    try:
        with pytest.raises(SystemExit) as ended, report_errors():
            bad_input()
    finally:
        bad_input.__globals__["__name__"] = before
    assert ended.value.code == "mdpipe: \\x1b[2Ja.png of http://h/a is bad\nsecond line"


def test_only_lack_of_memory_becomes_one_sentence():
    with pytest.raises(SystemExit, match="mdpipe: not enough memory for this"), report_errors():
        torch.empty(2**62, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), report_errors():
        torch.zeros(2) @ torch.zeros(3, 4)


def test_one_is_counted_in_the_singular():
    assert [counted(count, "files") for count in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]
    assert counted(1, "classes") == "1 class"
    assert counted(1, "images with the name of an earlier one") == "1 image with the name of an earlier one"
