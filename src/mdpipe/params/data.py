"""What a model sees of a source: the `datasets` of params.yaml."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from mdpipe.params.base import Config, Fraction, Positive, by_form
from mdpipe.params.own import ByKind, kinds_in, require_kind
from mdpipe.params.problems import refused
from mdpipe.params.sources import Modality


class Letters(Config):
    """text8's alphabet: a to z and the space; everything else is spelled out or dropped."""

    kind: Literal["letters"]


class Bytes(Config):
    """The 256 bytes of UTF-8."""

    kind: Literal["bytes"]


class Pieces(Config):
    """SentencePiece with byte fallback, trained on the training split."""

    kind: Literal["pieces"]
    model: Literal["unigram", "bpe"]
    """SentencePiece algorithm: unigram likelihood, or merges of the most frequent pairs."""
    vocabulary: Annotated[int, Field(ge=300, le=65_536)]
    """Vocabulary size, including the 256 bytes, the end-of-text token and the control symbols."""
    sample: Positive | None
    """Train on about this many characters, sampled from the whole training split; null for all of it. Training needs
    about twenty bytes of memory per character."""


class Gpt2(Config):
    """GPT-2's byte pairs, from vocab.json and merges.txt."""

    kind: Literal["gpt2"]
    path: str
    """The folder with both files, or a repository on the Hub, such as openai-community/gpt2."""
    revision: str | None
    """Revision of the repository; null for the newest, or for a folder."""


class Json(Config):
    """Any tokenizer.json of the `tokenizers` library."""

    kind: Literal["json"]
    path: str
    """The file, or a repository on the Hub that has one."""
    revision: str | None
    """Revision of the repository; null for the newest, or for a file."""
    end_of_text: str
    """The token that ends a document."""


class Pixels(Config):
    """Pixel values, quantized evenly to a number of levels."""

    kind: Literal["pixels"]
    levels: Annotated[int, Field(ge=2, le=256)]
    """Vocabulary size; 256 keeps 8-bit values as they are."""


AnyTextTokenizer = Letters | Bytes | Pieces | Gpt2 | Json
TextTokenizer = Annotated[AnyTextTokenizer, Field(discriminator="kind"), ByKind("kind", "pixels")]


A_SHARE = "a share is a number between 0 and 1, such as 0.1"
OTHER_FORMS = "the name of a split of the source, {last: N}, {last_characters: N} or {chunks: 0.1}"
HELD_FORMS = f"{A_SHARE}; otherwise write {OTHER_FORMS}"
WRITTEN_SHARE = re.compile(r"\s*([-+]?\d*\.?\d+)\s*(?:(%)|/\s*(\d+)|(?<=\.\d))\s*")
"""Text that means a number: 10%, 1/10, and "0.1" in quotation marks."""


def _require_share(value: Any) -> Any:
    """Refuse what is not a share, and say how to write what was probably meant."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < 1:
            return value
        count = f"; for a number of documents or pictures write {{last: {value:.0f}}}"
        raise refused(A_SHARE + (count if value >= 1 and value % 1 == 0 else ""))
    raise refused(HELD_FORMS)


def _require_name(value: str) -> str:
    """Refuse text that means a share."""
    if found := WRITTEN_SHARE.fullmatch(value):
        share = float(found[1]) / (100 if found[2] else int(found[3] or 1) or 1)
        raise refused(f"{A_SHARE}; write {share:g}" if 0 < share < 1 else A_SHARE)
    return value


class Last(Config):
    """The last documents of the source."""

    last: Positive
    """Number of documents or images."""


class LastCharacters(Config):
    """The last characters of the source."""

    last_characters: Positive
    """Number of characters."""


class Chunks(Config):
    """A fraction of the blocks of the token stream, as MD4 splits OpenWebText. Parts of one document end up on both
    sides: use it to compare with that number, not for a new one.
    """

    chunks: Fraction
    """Fraction of the blocks."""


def _form_of_held(data: Any) -> str | None:
    """Return which of the forms is meant, so that only its rule is reported; None for any other mapping."""
    if isinstance(data, str):
        return "split"
    for form, section in (("last", Last), ("last_characters", LastCharacters), ("chunks", Chunks)):
        if isinstance(data, section) or (isinstance(data, dict) and [*data] == [form]):
            return form
    return None if isinstance(data, dict) else "share"


Held = Annotated[
    Annotated[Fraction, BeforeValidator(_require_share), Tag("share")]
    | Annotated[str, AfterValidator(_require_name), Tag("split")]
    | Annotated[Last, Tag("last")]
    | Annotated[LastCharacters, Tag("last_characters")]
    | Annotated[Chunks, Tag("chunks")],
    Discriminator(
        _form_of_held,
        custom_error_type="rule",
        custom_error_message="{rule}",
        custom_error_context={"rule": HELD_FORMS},
    ),
]
"""What is held out. A number is a share of the documents or pictures, where equal ones stay together; a text is the
name of a split that the source itself has."""


class PackingSettings(Config):
    """How documents become one stream of tokens, and the stream becomes examples."""

    end_of_text: bool
    """Append the end-of-text token to every document."""
    block_ends: bool
    """Begin and end every block with the end-of-text token; needs `remainder: drop`."""
    remainder: Literal["keep", "drop"]
    """Keep or drop the tokens after the last whole block. With `keep`, training reads windows from any position; with
    `drop`, it reads the blocks in random order."""


Convention = Literal["stream", "text8", "sedd", "mdlm", "mdlm_zero_shot"]
Packing = Annotated[
    Annotated[Convention, Tag("a text")] | Annotated[PackingSettings, Tag("a mapping")],
    by_form(
        f"must be one of {', '.join(get_args(Convention))}, or a mapping with the keys"
        f" {', '.join(PackingSettings.model_fields)}"
    ),
]
"""A convention by name, or one of one's own: `stream` counts every token once, and has the end-of-text token after
every document; `text8` is one text in blocks; `sedd` is `stream` in blocks; `mdlm` has the end-of-text token at both
ends of every block as well, and `mdlm_zero_shot` has it there alone."""


class Dataset(Config):
    """A source, split into training, validation and test parts and turned into tokens."""

    source: str
    """A key of `sources`."""
    validation: Held
    """Held out for validation: a fraction, the name of a split of the source, or one of the mappings."""
    test: Held
    """Held out for testing, in the same forms."""


class TextDataset(Dataset):
    """Text as one stream of tokens, read in windows."""

    tokenizer: TextTokenizer
    """How text becomes tokens."""
    packing: Packing
    """The convention by which documents become windows: its name, or a mapping."""
    length: Annotated[int, Field(ge=4, le=65_536)]
    """Tokens per window or block: the sequence length of the model."""


class ImageDataset(Dataset):
    """Images as arrays of levels. Images larger than a tile are cut into square tiles."""

    tokenizer: Pixels
    """How pixel values become tokens."""
    size: Positive
    """Edge of a tile in pixels."""
    stride: Positive
    """Distance between training tiles in pixels. Training tiles may overlap; held-out tiles never do."""


def _require_tokenizer(data: Any) -> Any:
    """Refuse an unknown tokenizer here, where all are allowed: it decides which other keys a dataset has."""
    if isinstance(data, dict) and "tokenizer" in data:
        known = kinds_in(AnyTextTokenizer | Pixels, "kind")
        require_kind(data["tokenizer"], "kind", known, within=("tokenizer",))
    return data


def _shape_of_dataset(data: Any) -> str:
    """Pixels make a dataset of pictures; all other tokenizers are for text."""
    tokenizer = data.get("tokenizer") if isinstance(data, dict) else getattr(data, "tokenizer", None)
    kind = tokenizer.get("kind") if isinstance(tokenizer, dict) else getattr(tokenizer, "kind", None)
    return "image" if kind == "pixels" else "text"


AnyDataset = Annotated[
    Annotated[TextDataset, Tag("text")] | Annotated[ImageDataset, Tag("image")],
    Discriminator(_shape_of_dataset),
    BeforeValidator(_require_tokenizer),
]


def modality_of(dataset: Dataset) -> Modality:
    """What a dataset's tokens stand for."""
    return "image" if isinstance(dataset, ImageDataset) else "text"
