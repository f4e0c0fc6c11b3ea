"""The `datasets` of params.yaml: sources with their splits, tokenizers and packing."""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, GetPydanticSchema, ValidatorFunctionWrapHandler, model_validator

from mdpipe.params.errors import BrokenRules, did_you_mean, make_error, not_in
from mdpipe.params.fields import Fraction, Name, Positive
from mdpipe.params.registry import Config, KindConfig
from mdpipe.params.sources import Modality

if TYPE_CHECKING:
    from mdpipe.params.root import Params

HELD_OUT_FRACTION = 0.05
"""Fraction of a source that is for validation, and for testing, if nothing else is specified."""

# Tokenizers


class TokenizerConfig(KindConfig):
    """A tokenizer. One without other settings may be written as its name: `tokenizer: text8`."""

    renamed_kinds: ClassVar[dict[str, str]] = {"letters": "text8", "pieces": "sentencepiece", "json": "hf_tokenizer"}


class TextTokenizerConfig(TokenizerConfig):
    """A tokenizer of text."""


class Text8Tokenizer(TextTokenizerConfig):
    """text8's alphabet: a to z and the space; digits are spelled out, and everything else becomes a space."""

    kind: Literal["text8"] = "text8"


class BytesTokenizer(TextTokenizerConfig):
    """The 256 bytes of UTF-8."""

    kind: Literal["bytes"] = "bytes"


class SentencePieceTokenizer(TextTokenizerConfig):
    """SentencePiece with byte fallback, trained on the training split."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm: unigram likelihood, or merges of the most frequent pairs."""
    vocab_size: Annotated[int, Field(ge=300, le=65_536)] = 8192
    """Vocabulary size, including the 256 bytes, the end-of-text token and the control symbols."""
    max_train_chars: Positive | None = 10_000_000
    """Train on about this many characters, sampled from the whole training split; null for all of it. Training needs
    about twenty bytes of memory per character."""
    renamed: ClassVar[dict[str, str]] = {"vocabulary": "vocab_size", "model": "model_type", "sample": "max_train_chars"}


class GPT2Tokenizer(TextTokenizerConfig):
    """GPT-2's byte pairs, from vocab.json and merges.txt."""

    kind: Literal["gpt2"] = "gpt2"
    path: str = "openai-community/gpt2"
    """The folder with both files, or a repository on the Hub."""
    revision: str | None = None
    """Revision of the repository; null for the newest, or for a folder."""


class HFTokenizerFile(TextTokenizerConfig):
    """Any tokenizer.json of the `tokenizers` library."""

    kind: Literal["hf_tokenizer"] = "hf_tokenizer"
    path: str
    """The file, or a repository on the Hub that has one."""
    revision: str | None = None
    """Revision of the repository; null for the newest, or for a file."""
    eos_token: str
    """The token that ends a document."""
    renamed: ClassVar[dict[str, str]] = {"end_of_text": "eos_token"}


class ImageTokenizerConfig(TokenizerConfig):
    """A tokenizer of images."""


class PixelTokenizer(ImageTokenizerConfig):
    """Pixel values, quantized evenly to a number of levels."""

    kind: Literal["pixels"] = "pixels"
    levels: Annotated[int, Field(ge=2, le=256)] = 256
    """Vocabulary size; 256 keeps 8-bit values as they are."""


TextTokenizer = Annotated[
    Text8Tokenizer | BytesTokenizer | SentencePieceTokenizer | GPT2Tokenizer | HFTokenizerFile,
    GetPydanticSchema(lambda _, handler: handler(TextTokenizerConfig)),
]
ImageTokenizer = Annotated[PixelTokenizer, GetPydanticSchema(lambda _, handler: handler(ImageTokenizerConfig))]

# Splits


class SplitMapping(Config):
    """A split that is written as a mapping of one key."""

    def __str__(self) -> str:
        """Return it as it is written in params.yaml."""
        ((key, value),) = self
        return f"{{{key}: {value}}}"


class LastDocuments(SplitMapping):
    """The last documents or images of the source."""

    renamed: ClassVar[dict[str, str]] = {"last": "last_documents"}
    last_documents: Positive
    """Number of documents or images."""


class LastCharacters(SplitMapping):
    """The last characters of the source."""

    last_characters: Positive
    """Number of characters."""


class Windows(SplitMapping):
    """A fraction of the windows of the token stream, as MD4 splits OpenWebText. Windows of one document get into
    different splits, so held-out bits are lower than for new documents: use it to compare with that number only.
    """

    renamed: ClassVar[dict[str, str]] = {"chunks": "windows"}
    windows: Fraction
    """Fraction of the windows."""


FRACTION_RULE = "a fraction is a number between 0 and 1, such as 0.1"
SPLIT_RULE = (
    f"{FRACTION_RULE}; otherwise write the name of a split of the source, {{last_documents: N}}, {{last_characters: N}}"
    " or {windows: 0.1}"
)
WRITTEN_FRACTION = re.compile(r"\s*([-+]?\d*\.?\d+)\s*(?:(%)|/\s*(\d+)|(?<=\.\d))\s*")
"""Text that means a number: 10%, 1/10, and "0.1" in quotation marks."""


def _parse_split(value: Any) -> "SplitSpec | None":
    """Return what a split is, or say how to write what was probably meant."""
    match value:
        case None | LastDocuments() | LastCharacters() | Windows():
            return value
        case str():
            if not (found := WRITTEN_FRACTION.fullmatch(value)):
                return value
            fraction = float(found[1]) / (100 if found[2] else int(found[3] or 1) or 1)
            raise make_error(f"{FRACTION_RULE}; write {fraction:g}" if 0 < fraction < 1 else FRACTION_RULE)
        case int() | float() if not isinstance(value, bool):
            if 0 < value < 1:
                return value
            count = f"; for a number of documents or images write {{last_documents: {value:.0f}}}"
            raise make_error(FRACTION_RULE + (count if value >= 1 and value % 1 == 0 else ""))
        case dict():
            for form in (LastDocuments, LastCharacters, Windows):
                if [form.renamed.get(key, key) for key in value] == [*form.model_fields]:
                    return form.model_validate(value)
    raise make_error(SPLIT_RULE)


SplitSpec = Fraction | str | LastDocuments | LastCharacters | Windows
"""A fraction of the documents or images, where equal ones stay together; the name of a split that the source itself
has; or one of the mappings."""
AnySplit = Annotated[SplitSpec | None, BeforeValidator(_parse_split)]


class Splits(Config):
    """Parts of a source that are not trained on.

    Training reads the rest of the source, or of its split `train` if it has one.

    By default, the source's own splits `validation` and `test`, and 5 % of its documents or images where it has none.
    """

    validation: AnySplit = None
    """Validation split: a fraction, the name of a split of the source, or one of the mappings."""
    test: AnySplit = None
    """Test split, in the same forms."""

    def resolve(self, own: Collection[str]) -> dict[str, SplitSpec]:
        """Return both splits, given the names of the source's own ones."""
        specs = {"validation": self.validation, "test": self.test}
        return {
            split: spec or (split if split in own and split not in specs.values() else HELD_OUT_FRACTION)
            for split, spec in specs.items()
        }

    def broken_rules(self) -> BrokenRules:
        """Yield that the two splits leave nothing to train on, or contradict each other."""
        validation, test = pair = self.resolve(()).values()
        if sum(spec for spec in pair if isinstance(spec, float)) >= 1:
            rule = f"validation and test together leave nothing to train on (test is {test}); lower them"
            yield ("validation",), rule
        elif sum(spec.windows for spec in pair if isinstance(spec, Windows)) >= 1:
            yield ("validation",), "the windows of validation and test leave nothing to train on; lower them"
        elif LastDocuments in (forms := [type(spec) for spec in pair]) and LastCharacters in forms:
            yield ("test",), "validation and test are both to be last; count both in documents or both in characters"
        elif isinstance(validation, str) and validation == test:
            rule = (
                "validation and test are the same split of the source, so a choice made on one would be measured on it"
            )
            yield ("test",), rule


# Packing


class Packing(Config):
    """Convention by which documents become one stream of tokens, and the stream examples of `seq_len` tokens."""

    append_eos: bool = True
    """Append the end-of-text token to every document."""
    wrap_with_eos: bool = False
    """Begin and end every window with the end-of-text token; needs `drop_last: true`."""
    drop_last: bool = False
    """Drop the tokens that do not fill a last window; else, evaluation reads a shorter last one. Training then reads
    the windows in random order, but windows that start anywhere if there are no end-of-text tokens."""
    separate_documents: bool = False
    """Evaluate each document in separate windows, the last of which may be shorter; only in `zero_shot.sources`. If
    false, a window may have tokens of several documents."""
    renamed: ClassVar[dict[str, str]] = {
        "end_of_text": "append_eos",
        "block_ends": "wrap_with_eos",
        "remainder": "drop_last",
    }
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"drop_last": {"keep": "false", "drop": "true"}}

    @model_validator(mode="wrap")
    @classmethod
    def _find_named(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        """Accept the name of a convention for its settings."""
        if isinstance(data, str) and data in PACKINGS:
            return cast("Self", handler(PACKINGS[data].model_dump()))
        if isinstance(data, dict | Packing):
            return cast("Self", handler(data))
        hint = did_you_mean(data, PACKINGS) if isinstance(data, str) else ""
        keys = ", ".join(cls.model_fields)
        raise make_error(f"must be one of {', '.join(PACKINGS)}{hint}, or a mapping with the keys {keys}")

    def stream_tokens(self, seq_len: int) -> int:
        """Return the number of tokens of the stream in a window."""
        return seq_len - 2 * self.wrap_with_eos

    @property
    def has_fixed_windows(self) -> bool:
        """Return True if training reads the windows of evaluation only. Text8 is one text, of which it reads any."""
        return self.drop_last and (self.append_eos or self.wrap_with_eos)

    def broken_rules(self) -> BrokenRules:
        """Yield that windows of different lengths cannot be wrapped, and that separate documents have such windows."""
        if self.wrap_with_eos and not self.drop_last:
            yield ("drop_last",), "wrap_with_eos needs windows of one length: set drop_last to true"
        if self.separate_documents and self.drop_last:
            yield ("drop_last",), "separate_documents needs shorter last windows: set drop_last to false"


PACKINGS = {
    "stream": Packing(),
    "documents": Packing(separate_documents=True),
    "text8": Packing(append_eos=False, drop_last=True),
    "sedd": Packing(drop_last=True),
    "mdlm": Packing(wrap_with_eos=True, drop_last=True),
    "mdlm_zero_shot": Packing(append_eos=False, wrap_with_eos=True, drop_last=True),
}
"""Packings by name. `stream` counts every token once, and so does `documents`, which separates documents and is for
zero-shot evaluation only. `text8` is MD4's for text8, `sedd` is SEDD's, which MD4 follows, the others are MDLM's."""


def _or_a_name(schema: dict[str, Any]) -> None:
    """Accept the names of conventions in the JSON Schema."""
    schema["anyOf"] = [{"enum": [*PACKINGS], "type": "string"}, {"$ref": schema.pop("$ref")}]


class Protocol(Packing):
    """Convention by which a model is evaluated on foreign text: a packing, and the overlap of its windows."""

    stride: Positive | None = None
    """Evaluate windows that begin `stride` tokens apart and so overlap: the last `stride` tokens of a window are
    evaluated given the others, its context, and every token once. Null for windows without context."""

    def broken_rules(self) -> BrokenRules:
        """Yield the packing's problems, and that wrapped windows cannot overlap."""
        yield from super().broken_rules()
        if self.stride is not None and self.wrap_with_eos:
            yield ("stride",), "windows that overlap are not wrapped: set wrap_with_eos to false, or stride to null"


def _named_protocols(value: Any) -> Any:
    """Return protocols as a mapping; a name without a value is the name of a packing."""
    if value is None or isinstance(value, str):
        name = "stream" if value is None else value
        return {name: Protocol.model_validate(name)}
    if not isinstance(value, dict) or not value:
        names = ", ".join(map(str, value)) if isinstance(value, list) else "sedd, mdlm_zero_shot"
        raise make_error(f"must be the name of a protocol, or a mapping of at least one; write {{{names}}}")
    for name in PACKINGS.keys() & value.keys():
        # params.resolved.yaml has the settings of the named packings, too.
        named = Protocol.model_validate(name)
        if value[name] not in (None, named, named.model_dump()):
            raise make_error(f"{name!r} is a built-in packing; your own protocol needs another name")
    return {name: Protocol.model_validate(name) if protocol is None else protocol for name, protocol in value.items()}


Protocols = Annotated[
    dict[Name, Protocol],
    BeforeValidator(_named_protocols, json_schema_input_type=Literal[*PACKINGS] | dict[str, Protocol | None] | None),
]
"""Protocols of zero-shot evaluation by name."""

# Datasets


class Dataset(Config):
    """A source, split into training, validation and test parts and turned into tokens."""

    source: str
    """A key of `sources`."""
    splits: Splits = Splits()
    """The validation and test splits."""
    renamed: ClassVar[dict[str, str]] = {
        "length": "seq_len",
        "size": "image_size",
        "validation": "splits: {validation: ...}",
        "test": "splits: {test: ...}",
    }

    def problems(self, params: "Params") -> BrokenRules:
        """Yield a source that does not exist or has no such data, splits that images do not have, and larger tiles."""
        modality = modality_of(self)
        for key, spec in self.splits if modality == "image" else ():
            if isinstance(spec, LastCharacters | Windows):
                yield ("splits", key), "images have no characters and no windows"
        if self.source not in params.sources:
            yield ("source",), not_in("sources", self.source, params.sources)
            return
        source = params.sources[self.source]
        if source.modality != modality:
            yield ("tokenizer",), f"source {self.source!r} has {source.modality}s, not {modality}s"
        for key, spec in self.splits:
            if isinstance(spec, str) and spec not in source.own_splits:
                own = ", ".join(sorted(source.own_splits)) or "none; write a fraction, such as 0.1"
                yield ("splits", key), f"source {self.source!r} has no split of this name; it has {own}"
        if isinstance(self, ImageDataset) and (shape := source.image_shape) and self.image_size > min(shape[:2]):
            yield ("image_size",), f"must be at most {min(shape[:2])}, the edge of the images of source {self.source!r}"


class TextDataset(Dataset):
    """Text as one stream of tokens, read in windows."""

    tokenizer: TextTokenizer
    """Conversion of text to tokens."""
    packing: Annotated[Packing, Field(json_schema_extra=_or_a_name)] = PACKINGS["stream"]
    """The convention by which documents become windows: its name, or a mapping."""
    seq_len: Annotated[int, Field(ge=4, le=65_536)]
    """Tokens per window: the sequence length of the model."""

    def broken_rules(self) -> BrokenRules:
        """Yield that training reads documents in one stream."""
        if self.packing.separate_documents:
            rule = "separate documents are a protocol of zero_shot.sources; use stream"
            yield ("packing", "separate_documents"), rule


class ImageDataset(Dataset):
    """Images as arrays of levels. Images larger than a tile are cut into square tiles."""

    tokenizer: ImageTokenizer
    """Conversion of pixel values to tokens."""
    image_size: Positive
    """Edge of a tile in pixels, which is an image of the model."""
    stride: Positive | None = None
    """Distance between training tiles in pixels; null for `image_size`. With a smaller one, training tiles overlap;
    those of the other splits never do."""


def _parse_dataset(data: Any) -> Dataset:
    """Return the dataset, whose tokenizer decides which other keys it has."""
    if isinstance(data, Dataset):
        return data
    is_stated = isinstance(data, dict) and "tokenizer" in data
    if is_stated and TokenizerConfig.class_of(data["tokenizer"], "tokenizer") is PixelTokenizer:
        return ImageDataset.model_validate(data)
    return TextDataset.model_validate(data)


AnyDataset = Annotated[TextDataset | ImageDataset, BeforeValidator(_parse_dataset)]


def modality_of(dataset: Dataset) -> Modality:
    """Return the modality of a dataset."""
    return "image" if isinstance(dataset, ImageDataset) else "text"
