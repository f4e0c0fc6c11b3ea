"""`mdpipe infill`: gaps are filled, everything around them stays, and mistakes are told in a line."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import Result

from mdpipe.commands.infill import with_gaps
from mdpipe.data.pixels import dequantize, quantize
from mdpipe.data.raw.schema import read_images
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.sampling import compatible_samplers
from tests.data.building import make_tokenizer
from tests.stages.reading import EDGE, LEVELS, levels_of, texts_of

Command = Callable[..., Result]
MASK = 27
"""Of letters."""

HIDDEN = np.zeros((EDGE, EDGE), dtype=bool)
HIDDEN[2:6, 1:7] = True


def write_grey(name: str, pixels: NDArray[np.uint8]) -> str:
    Image.fromarray(pixels).save(name)
    return name


@pytest.fixture
def digit(place: Path) -> NDArray[np.uint8]:
    """Levels (8, 8) of a digit, which digit.png shows and mask.png hides in the middle."""
    levels: NDArray[np.uint8] = np.array(read_images(Path("data/raw/digits")).images[7, :, :, 0])
    write_grey("digit.png", dequantize(levels, LEVELS))
    write_grey("mask.png", HIDDEN.astype(np.uint8) * 255)
    return levels


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ab[gap]cd", "ab...cd"),
        ("ab[gap:5]cd", "ab.....cd"),
        ("[gap:1]", "."),
        ("[gap]b[gap:2]", "...b.."),
        ("[gap:2][gap:2]", "...."),
        ("the [gap] of [gap:2]s", "the ... of ..s"),
        ("[gap] [gap]", "... ..."),
        ("So, [gap], or (in [gap]).", "so ... or in ... "),
        ("a[gap:2]\nb", "a.. b"),
        ("[gap:2] 12 [gap:2]", ".. one two .."),
        ("[gap", None),
        ("", None),
    ],
)
def test_gaps_stand_where_they_are_marked_and_spaces_beside_them_stay(text: str, shown: str | None) -> None:
    letters = make_tokenizer("text8")
    if shown is None:
        with pytest.raises(ValueError, match=r"no gap to fill; mark one with \[gap\], or with \[gap:12\]"):
            with_gaps(letters, text, gap=3)
    else:
        (tokens,) = with_gaps(letters, text, gap=3).tolist()
        assert "".join("." if token == MASK else letters.decode(np.array([token])) for token in tokens) == shown


@pytest.mark.parametrize("marker", ["[gap:x]", "[gap:0]", "[gap 12]", "[gap=3]", "[GAP]", "[gap:1234567]", "[gap:²]"])
def test_what_looks_like_a_gap_and_is_none_is_refused(marker: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{marker} marks no gap; write [gap], or [gap:12]")):
        with_gaps(make_tokenizer("text8"), f"a [gap] and {marker}", gap=3)


@pytest.mark.parametrize("sampler", compatible_samplers(MD4Config))
@pytest.mark.parametrize("words", ["words", "words and many more of them so that windows are filled one by one"])
def test_every_sampler_leaves_the_text_around_gaps_as_it_is(mdpipe: Command, sampler: str, words: str) -> None:
    arguments = ("--sampler", sampler, "--steps", 4, "--count", 5)
    texts = texts_of(
        mdpipe("infill", "chars_md4", "--text", f"some [gap:6] {words} [gap]s", "--gap", 2, *arguments).stdout
    )
    assert len(set(texts)) == 5
    for text in texts:
        assert len(text) == len(f"some ...... {words} ..s")
        assert (text[:5], text[11:-3], text[-1]) == ("some ", f" {words} ", "s")


def test_pieces_come_back_around_gaps_of_pieces(mdpipe: Command) -> None:
    """The text is given back to the letter, whatever pieces it is cut into."""
    before, after = "Größe:\n    [1, 2", "]  ▁ # end\n"
    texts = texts_of(mdpipe("infill", "subwords_genmd4", "--text", f"{before}[gap:3]{after}", "--count", 6).stdout)
    assert len(set(texts)) > 1
    assert all(text.startswith(before) and text.endswith(after) for text in texts)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A [gap] b", "mdpipe: the run's tokenizer reads 'A ' as 'a '\n"),
        ("a [gap]\n", "mdpipe: the run's tokenizer reads '\\n' as ' '\n"),
        ("a [gap] b", ""),
    ],
)
def test_text_that_the_tokenizer_alters_is_reported(mdpipe: Command, text: str, line: str) -> None:
    assert mdpipe("infill", "chars_md4", "--text", text, "--count", 1).stderr == line


def test_a_file_holds_what_would_have_been_printed(mdpipe: Command) -> None:
    printed = mdpipe("infill", "chars_md4", "--text", "a [gap]").stdout
    assert mdpipe("infill", "chars_md4", "--text", "a [gap]", "--out", "texts.txt").stdout == "texts.txt\n"
    assert Path("texts.txt").read_text() == printed


def test_a_seed_gives_the_same_filling_and_another_seed_another(mdpipe: Command) -> None:
    drawn = [mdpipe("infill", "chars_md4", "--text", "a [gap] b", "--seed", seed).stdout for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("text", ["a [gap] b", "[gap]b", f"{'a' * 20}[gap:12]{'b' * 8}"])
def test_left_to_right_a_gap_with_text_behind_it_is_refused(refusal: Callable[..., str], text: str) -> None:
    """Also where the gap ends with the network's window of 32 letters, in which nothing follows it."""
    assert refusal("infill", "chars_ar", "--text", text).startswith(
        "mdpipe: a run of autoregressive samples from left to right, without regard to the text after a gap"
    )


def test_left_to_right_a_gap_at_the_end_is_filled(mdpipe: Command) -> None:
    texts = texts_of(mdpipe("infill", "chars_ar", "--text", "the [gap:9]").stdout)
    assert all(text.startswith("the ") and len(text) == 13 for text in texts)


@pytest.mark.parametrize("sampler", compatible_samplers(MD4Config))
def test_every_sampler_leaves_the_pixels_that_are_not_masked(
    mdpipe: Command, digit: NDArray[np.uint8], sampler: str
) -> None:
    """First the digit with its hidden part in black, then five drawn ones that differ from each other there alone."""
    arguments = ("--image", "digit.png", "--mask", "mask.png", "--sampler", sampler, "--steps", 4, "--count", 5)
    assert mdpipe("infill", "digits", *arguments, "--out", "new/digits.png").stdout == "new/digits.png\n"
    levels = levels_of(Path("new/digits.png"))
    assert np.array_equal(levels[:, ~HIDDEN], np.tile(digit[~HIDDEN], (6, 1)))
    assert not levels[0, HIDDEN].any()
    assert len(np.unique(levels[1:, HIDDEN], axis=0)) == 5


def test_arrays_have_the_filled_images_alone(mdpipe: Command, digit: NDArray[np.uint8]) -> None:
    arguments = ("--image", "digit.png", "--mask", "mask.png", "--count", 3)
    for out in ("filled.npy", "filled.png"):
        assert mdpipe("infill", "digits", *arguments, "--out", out).exit_code == 0
    images = np.load("filled.npy")
    assert images.shape == (3, EDGE, EDGE, 1)
    assert np.array_equal(quantize(images[..., 0], 255, LEVELS), levels_of(Path("filled.png"))[1:])


def test_a_setting_of_the_sampler_reaches_the_filling(mdpipe: Command) -> None:
    drawn = [
        mdpipe("infill", "chars_md4", "--text", "a [gap:20]", "--sampler", "remdm", "--set", f"eta={eta}").stdout
        for eta in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_the_label_reaches_the_filling(mdpipe: Command, digit: NDArray[np.uint8]) -> None:
    for label in (0, 9):
        arguments = ("--image", "digit.png", "--mask", "mask.png", "--label", label, "--guidance", 100)
        assert mdpipe("infill", "digits", *arguments, "--out", f"{label}.png").exit_code == 0
    assert Path("0.png").read_bytes() != Path("9.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("chars_md4",), "give either --text, or --image and --mask"),
        (("chars_md4", "--text", "[gap]", "--image", "digit.png"), "give either --text, or --image and --mask"),
        (("digits", "--image", "digit.png"), "--image needs --mask: the mask is a picture that is black where"),
        (("digits", "--mask", "mask.png"), "--mask needs --image: "),
        (("chars_md4", "--text", "no marker"), "the text has no gap to fill"),
        (("chars_md4", "--text", "[gap] 漢字"), "the tokenizer 'text8' keeps nothing of ' 漢字'; write it in"),
        (("digits", "--text", "[gap]"), "run 'digits' draws pictures; give --image and --mask instead of --text"),
        (
            ("chars_md4", "--image", "digit.png", "--mask", "mask.png"),
            "run 'chars_md4' draws text; give --text instead of --image and --mask",
        ),
        (
            ("digits", "--image", "wide.png", "--mask", "mask.png"),
            "wide.png has 8 x 9 pixels; the run's pictures have 8 x 8",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "wide.png"),
            "wide.png has 8 x 9 pixels; the run's pictures have 8 x 8",
        ),
        (("digits", "--image", "no.png", "--mask", "mask.png"), "no.png is truncated or no image"),
        (("digits", "--image", "digit.png", "--mask", "cut.png"), "cut.png is truncated or no image"),
        (("digits", "--image", "digit.png", "--mask", "bad.png"), "bad.png is truncated or no image"),
        (("digits", "--image", "odd.png", "--mask", "mask.png"), "odd.png is truncated or no image"),
        (
            ("digits", "--image", "gone.png", "--mask", "mask.png"),
            "gone.png is no file; name a picture of 8 x 8",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "black.png"),
            "black.png is black all over, which leaves nothing",
        ),
        (("digits", "--image", "digit.png", "--mask", "mask.png", "--label", 10), "--label 10 is not known"),
        (("nobody", "--text", "[gap]"), "there is no run 'nobody'; trained in models/: chars_ar, chars_md4"),
        (
            ("chars_md4", "--text", "[gap]", "--set", "eta=1"),
            "--set eta=1: the sampler ancestral has no setting 'eta'",
        ),
        (
            ("chars_md4", "--text", "[gap]", "--out", "a.png"),
            "--out a.png does not say how to write texts; allowed: .txt",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "mask.png", "--out", "a.txt"),
            "--out a.txt does not say how to write images; allowed: .png",
        ),
        (
            ("chars_md4", "--text", "[gap]", "--sampler", "genmd4_ancestral"),
            "--sampler 'genmd4_ancestral' does not fit a run of md4",
        ),
    ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(
    refusal: Callable[..., str], digit: NDArray[np.uint8], arguments: tuple[object, ...], line: str
) -> None:
    write_grey("wide.png", np.zeros((8, 9), np.uint8))
    write_grey("black.png", np.zeros((8, 8), np.uint8))
    Path("no.png").write_text("no picture")
    whole = Path("digit.png").read_bytes()
    Path("cut.png").write_bytes(whole[:60])
    Path("bad.png").write_bytes(whole.replace(b"IDAT", b"ID\0T"))
    Path("odd.png").write_bytes(whole.replace(b"\rIHDR", b"\4IHDR"))
    assert refusal("infill", *arguments).startswith(f"mdpipe: {line}")


def test_as_a_program_it_fills_a_picture(place: Path, digit: NDArray[np.uint8]) -> None:
    command = [sys.executable, "-m", "mdpipe", "infill", "digits", "--image", "digit.png", "--mask", "mask.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("digits.png\n", "")
    assert np.array_equal(levels_of(Path("digits.png"))[4, ~HIDDEN], digit[~HIDDEN])
