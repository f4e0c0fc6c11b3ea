"""Where data come from (`sources`) and what a model sees of them (`datasets`)."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mdpipe.params.base import Fraction, Name, Positive, Section

Modality = Literal["text", "image"]


class Source(Section):
    """Raw text or pictures, as the `download` stage fetches them."""

    path: str
    """The file or folder that the source is read from and that DVC watches. Bundled sources come with the pinned
    packages, so theirs is the file that pins them."""


class Docstrings(Source):
    """The documentation inside installed Python packages, one document a module; `python` is the standard library."""

    kind: Literal["docstrings"]
    packages: Annotated[list[str], Field(min_length=1)]


class Digits(Source):
    """The 1,797 handwritten digits that come with scikit-learn: 8x8 pixels, 17 grey levels."""

    kind: Literal["digits"]


class Photos(Source):
    """The two colour photographs that come with scikit-learn, cut into disjoint squares."""

    kind: Literal["photos"]
    region: Annotated[int, Field(ge=8, le=427)]
    """Edge of a square in pixels. A square belongs to one split as a whole."""


class TextFiles(Source):
    """UTF-8 text files, one document a file."""

    kind: Literal["text_files"]
    pattern: str
    """Which files of the folder count, as a glob: `*.txt`, or `**/*.md` for all levels."""


class JsonLines(Source):
    """JSON lines, one document a line."""

    kind: Literal["jsonl"]
    field: str
    """The key under which a line has its text."""


class ImageFolder(Source):
    """Picture files of one size, grey or RGB, 8 bits a channel."""

    kind: Literal["image_folder"]
    pattern: str
    """Which files of the folder count, as a glob: `*.png`, or `*/*.png` for a folder a class."""
    labels: Literal["folder"] | None
    """Whether the name of the folder that a file is in is its class; null for pictures without classes."""


class Arrays(Source):
    """Pictures in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C)."""

    kind: Literal["arrays"]
    field: str
    """The array's name in an .npz file; ignored for .npy, which has just one."""
    labels: str | None
    """The name of the array with the pictures' classes, whole numbers from 0, in an .npz file; null for none."""


AnySource = Annotated[
    Docstrings | Digits | Photos | TextFiles | JsonLines | ImageFolder | Arrays, Field(discriminator="kind")
]

SOURCE_MODALITY: dict[str, Modality] = {
    "docstrings": "text",
    "text_files": "text",
    "jsonl": "text",
    "digits": "image",
    "photos": "image",
    "image_folder": "image",
    "arrays": "image",
}


def has_classes(source: Source) -> bool:
    """Whether the pictures of a source come with classes."""
    return isinstance(source, Digits) or (isinstance(source, ImageFolder | Arrays) and source.labels is not None)


class Letters(Section):
    """text8's alphabet: a to z and the space; everything else is spelled out or dropped."""

    kind: Literal["letters"]


class Bytes(Section):
    """The 256 bytes of UTF-8."""

    kind: Literal["bytes"]


class Pieces(Section):
    """SentencePiece's unigram model with byte fallback, trained on the training split alone."""

    kind: Literal["pieces"]
    vocabulary: Annotated[int, Field(ge=300, le=65_536)]
    """Number of pieces; the 256 bytes, the end of text and the control symbols are among them."""


class Pixels(Section):
    """Pixel values, quantized evenly to a number of levels."""

    kind: Literal["pixels"]
    levels: Annotated[int, Field(ge=2, le=256)]


TextTokenizer = Annotated[Letters | Bytes | Pieces, Field(discriminator="kind")]


class Dataset(Section):
    """A source, split into training, validation and test parts and turned into tokens."""

    source: Name
    """A key of `sources`."""
    validation: Fraction
    """Share of the documents, or of the pictures, held out for validation."""
    test: Fraction
    """Share held out for testing."""


class TextDataset(Dataset):
    """Text as one stream of tokens, read in windows."""

    tokenizer: TextTokenizer
    length: Annotated[int, Field(ge=2, le=65_536)]
    """Tokens a window."""


class ImageDataset(Dataset):
    """Pictures as arrays of levels, cut into square tiles where they are larger than a tile."""

    tokenizer: Pixels
    size: Positive
    """Edge of a tile in pixels."""
    stride: Positive
    """Step between training tiles, which may overlap; held-out tiles never do."""


def _shape_of_dataset(data: Any) -> str:
    """Pixels make a dataset of pictures; all other tokenizers are for text."""
    tokenizer = data.get("tokenizer") if isinstance(data, dict) else getattr(data, "tokenizer", None)
    kind = tokenizer.get("kind") if isinstance(tokenizer, dict) else getattr(tokenizer, "kind", None)
    return "image" if kind == "pixels" else "text"


AnyDataset = Annotated[
    Annotated[TextDataset, Tag("text")] | Annotated[ImageDataset, Tag("image")], Discriminator(_shape_of_dataset)
]


def modality_of(dataset: Dataset) -> Modality:
    """What a dataset's tokens stand for."""
    return "image" if isinstance(dataset, ImageDataset) else "text"
