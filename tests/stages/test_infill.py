"""`mdpipe infill`: masks are filled, everything around them stays, and mistakes end in one line."""

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

from mdpipe.commands.interactive import encode_with_masks
from mdpipe.data.pixels import dequantize, quantize
from mdpipe.data.raw import read_images
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.sampling import compatible_samplers
from tests.data.builders import make_tokenizer
from tests.stages.sample_files import EDGE, LEVELS, levels_of, texts_of

Command = Callable[..., Result]
MASK = 27
"""Of letters."""

MALFORMED = [
    f"[{text}]" for text in ("MASK:x", "MASK:0", "MASK 12", "MASK=3", "mask", "MASK:1234567", "MASK:²", "gap:12")
]

HIDDEN = np.zeros((EDGE, EDGE), dtype=bool)
HIDDEN[2:6, 1:7] = True


def write_gray(name: str, pixels: NDArray[np.uint8]) -> str:
    Image.fromarray(pixels).save(name)
    return name


@pytest.fixture
def digit(place: Path) -> NDArray[np.uint8]:
    """Levels (8, 8) of a digit, which digit.png shows and mask.png hides in the middle."""
    levels: NDArray[np.uint8] = np.array(read_images(Path("data/raw/digits")).images[7, :, :, 0])
    write_gray("digit.png", dequantize(levels, LEVELS))
    write_gray("mask.png", HIDDEN.astype(np.uint8) * 255)
    return levels


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ab[MASK]cd", "ab...cd"),
        ("ab[MASK:5]cd", "ab.....cd"),
        ("[MASK:1]", "."),
        ("[MASK]b[MASK:2]", "...b.."),
        ("[MASK:2][MASK:2]", "...."),
        ("the [MASK] of [MASK:2]s", "the ... of ..s"),
        ("[MASK] [MASK]", "... ..."),
        ("So, [MASK], or (in [MASK]).", "so ... or in ... "),
        ("a[MASK:2]\nb", "a.. b"),
        ("[MASK:2] 12 [MASK:2]", ".. one two .."),
        ("[MASK", None),
        ("", None),
    ],
)
def test_masks_are_where_they_are_written_and_spaces_stay(text: str, shown: str | None) -> None:
    letters = make_tokenizer("text8")
    if shown is None:
        with pytest.raises(ValueError, match=r"no mask to fill; write one as \[MASK\], or as \[MASK:12\]"):
            encode_with_masks(letters, text, mask_length=3)
    else:
        (tokens,) = encode_with_masks(letters, text, mask_length=3).tolist()
        assert "".join("." if token == MASK else letters.decode(np.array([token])) for token in tokens) == shown


@pytest.mark.parametrize("marker", MALFORMED)
def test_a_malformed_mask_is_refused(marker: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{marker} is not a mask; write [MASK], or [MASK:12]")):
        encode_with_masks(make_tokenizer("text8"), f"a [MASK] and {marker}", mask_length=3)


@pytest.mark.parametrize("sampler", compatible_samplers(MD4Config))
@pytest.mark.parametrize("words", ["words", "words and many more of them so that windows are filled one by one"])
def test_every_sampler_keeps_the_text_around_masks(mdpipe: Command, sampler: str, words: str) -> None:
    arguments = ("--sampler", sampler, "--steps", 4, "--count", 5, "--length", 99)
    texts = texts_of(
        mdpipe("infill", "chars_md4", "--text", f"some [MASK:6] {words} [MASK]s", "--mask-length", 2, *arguments).stdout
    )
    assert len(set(texts)) == 5
    for text in texts:
        assert len(text) == len(f"some ...... {words} ..s")
        assert (text[:5], text[11:-3], text[-1]) == ("some ", f" {words} ", "s")


def test_text_beyond_the_window_needs_a_length_as_a_prompt_does(refusal: Callable[..., str], mdpipe: Command) -> None:
    """Of the 32 letters of the window, or of the given length; the message is the same."""
    after = "(texts longer than the model's window of 32 tokens are sampled window by window)\n"
    text, prompt = f"{'a' * 20}[MASK:12]b", "a" * 32
    arguments = [("infill", "chars_md4", "--text", text), ("generate", "chars_md4", "--prompt", prompt)]
    for command, what in zip(arguments, ["the text and its masks", "the prompt and what follows it"], strict=True):
        for length in ((), ("--length", 30)):
            most = length[-1] if length else 32
            message = f"mdpipe: {what} need 33 tokens, of {most} at most; give --length 33 or more "
            assert refusal(*command, *length) == message + after
        assert all(len(sample) == 33 for sample in texts_of(mdpipe(*command, "--length", 33).stdout))
    assert mdpipe("infill", "chars_md4", "--text", text[:-1]).exit_code == 0
    assert mdpipe("generate", "chars_md4", "--prompt", prompt[:-1]).exit_code == 0


def test_subwords_around_masks_are_kept(mdpipe: Command) -> None:
    """The text is given back to the letter, whatever pieces it is cut into."""
    before, after = "Größe:\n    [1, 2", "]  ▁ # end\n"
    text = f"{before}[MASK:3]{after}"
    texts = texts_of(mdpipe("infill", "subwords_genmd4", "--text", text, "--count", 6, "--length", 64).stdout)
    assert len(set(texts)) > 1
    assert all(text.startswith(before) and text.endswith(after) for text in texts)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A [MASK] b", "mdpipe: the run's tokenizer reads 'A ' as 'a '\n"),
        ("a [MASK]\n", "mdpipe: the run's tokenizer reads '\\n' as ' '\n"),
        ("a [MASK] b", ""),
    ],
)
def test_text_that_the_tokenizer_alters_is_reported(mdpipe: Command, text: str, line: str) -> None:
    assert mdpipe("infill", "chars_md4", "--text", text, "--count", 1).stderr == line


def test_a_file_holds_what_would_have_been_printed(mdpipe: Command) -> None:
    printed = mdpipe("infill", "chars_md4", "--text", "a [MASK]").stdout
    assert mdpipe("infill", "chars_md4", "--text", "a [MASK]", "--out", "texts.txt").stdout == "texts.txt\n"
    assert Path("texts.txt").read_text() == printed


def test_a_seed_gives_the_same_filling_and_another_seed_another(mdpipe: Command) -> None:
    outputs = [mdpipe("infill", "chars_md4", "--text", "a [MASK] b", "--seed", seed).stdout for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


@pytest.mark.parametrize("text", ["a [MASK] b", "[MASK]b", f"{'a' * 20}[MASK:12]{'b' * 8}"])
def test_left_to_right_a_mask_with_text_behind_it_is_refused(refusal: Callable[..., str], text: str) -> None:
    """Also where the mask ends with the network's window of 32 letters, in which nothing follows it."""
    assert refusal("infill", "chars_ar", "--text", text, "--length", 40).startswith(
        "mdpipe: a run of autoregressive samples from left to right, without regard to the text after a mask"
    )


def test_left_to_right_a_mask_at_the_end_is_filled(mdpipe: Command) -> None:
    texts = texts_of(mdpipe("infill", "chars_ar", "--text", "the [MASK:9]").stdout)
    assert all(text.startswith("the ") and len(text) == 13 for text in texts)


@pytest.mark.parametrize("sampler", compatible_samplers(MD4Config))
def test_every_sampler_leaves_the_pixels_that_are_not_masked(
    mdpipe: Command, digit: NDArray[np.uint8], sampler: str
) -> None:
    """First the digit with its hidden part in black, then five samples that differ from each other only there."""
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
    outputs = [
        mdpipe("infill", "chars_md4", "--text", "a [MASK:20]", "--sampler", "remdm", "--set", f"eta={eta}").stdout
        for eta in (0, 1)
    ]
    assert outputs[0] != outputs[1]


def test_the_label_reaches_the_filling(mdpipe: Command, digit: NDArray[np.uint8]) -> None:
    for label in (0, 9):
        arguments = ("--image", "digit.png", "--mask", "mask.png", "--label", label, "--guidance-scale", 100)
        assert mdpipe("infill", "digits", *arguments, "--out", f"{label}.png").exit_code == 0
    assert Path("0.png").read_bytes() != Path("9.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("chars_md4",), "give either --text, or --image and --mask"),
        (
            ("chars_md4", "--text", "a [MASK]", "--gap", 3),
            "--gap is now --mask-length, and [gap:12] in a text is [MASK:12]",
        ),
        (("chars_md4", "--text", "[MASK]", "--image", "digit.png"), "give either --text, or --image and --mask"),
        (("digits", "--image", "digit.png"), "--image needs --mask: the mask is an image that is black where"),
        (("digits", "--mask", "mask.png"), "--mask needs --image: "),
        (("chars_md4", "--text", "no marker"), "the text has no mask to fill"),
        (("chars_md4", "--text", "[MASK] 漢字"), "the tokenizer 'text8' keeps nothing of ' 漢字'; write it in"),
        (("digits", "--text", "[MASK]"), "run 'digits' samples images; give --image and --mask instead of --text"),
        (
            ("chars_md4", "--image", "digit.png", "--mask", "mask.png"),
            "run 'chars_md4' samples text; give --text instead of --image and --mask",
        ),
        (
            ("digits", "--image", "wide.png", "--mask", "mask.png"),
            "wide.png has 8 x 9 pixels; the run's images have 8 x 8",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "wide.png"),
            "wide.png has 8 x 9 pixels; the run's images have 8 x 8",
        ),
        (("digits", "--image", "no.png", "--mask", "mask.png"), "no.png is truncated or no image"),
        (("digits", "--image", "digit.png", "--mask", "cut.png"), "cut.png is truncated or no image"),
        (("digits", "--image", "digit.png", "--mask", "bad.png"), "bad.png is truncated or no image"),
        (("digits", "--image", "odd.png", "--mask", "mask.png"), "odd.png is truncated or no image"),
        (
            ("digits", "--image", "gone.png", "--mask", "mask.png"),
            "gone.png is not a file; name an image of 8 x 8",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "black.png"),
            "black.png is black everywhere, which leaves nothing",
        ),
        (("digits", "--image", "digit.png", "--mask", "mask.png", "--label", 10), "--label 10 is not known"),
        (("digits", "--image", "digit.png", "--mask", "mask.png", "--length", 9), "--length is for --text: an image"),
        (("no_run", "--text", "[MASK]"), "there is no run 'no_run'; trained in models/: chars_ar, chars_md4"),
        (
            ("chars_md4", "--text", "[MASK]", "--set", "eta=1"),
            "--set eta=1: the sampler ancestral has no setting 'eta'",
        ),
        (
            ("chars_md4", "--text", "[MASK]", "--out", "a.png"),
            "--out a.png does not say how to write texts; allowed: .txt",
        ),
        (
            ("digits", "--image", "digit.png", "--mask", "mask.png", "--out", "a.txt"),
            "--out a.txt does not say how to write images; allowed: .png",
        ),
        (
            ("chars_md4", "--text", "[MASK]", "--sampler", "genmd4_ancestral"),
            "--sampler 'genmd4_ancestral' does not fit a run of md4",
        ),
    ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(
    refusal: Callable[..., str], digit: NDArray[np.uint8], arguments: tuple[object, ...], line: str
) -> None:
    write_gray("wide.png", np.zeros((8, 9), np.uint8))
    write_gray("black.png", np.zeros((8, 8), np.uint8))
    Path("no.png").write_text("not an image")
    whole = Path("digit.png").read_bytes()
    Path("cut.png").write_bytes(whole[:60])
    Path("bad.png").write_bytes(whole.replace(b"IDAT", b"ID\0T"))
    Path("odd.png").write_bytes(whole.replace(b"\rIHDR", b"\4IHDR"))
    assert refusal("infill", *arguments).startswith(f"mdpipe: {line}")


def test_as_a_program_it_infills_an_image(place: Path, digit: NDArray[np.uint8]) -> None:
    command = [sys.executable, "-m", "mdpipe", "infill", "digits", "--image", "digit.png", "--mask", "mask.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("digits.png\n", "")
    assert np.array_equal(levels_of(Path("digits.png"))[4, ~HIDDEN], digit[~HIDDEN])
