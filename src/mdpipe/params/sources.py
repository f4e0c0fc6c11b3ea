"""Where data come from: the `sources` of params.yaml."""

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, model_validator
from pydantic_core import ValidationError

from mdpipe.params.base import Distinct, Positive, Section, WatchedPath, by_form
from mdpipe.params.catalogue import entry
from mdpipe.params.own import ByKind
from mdpipe.params.problems import problem
from mdpipe.params.wording import CHECKSUM_PATTERN, DELIMITER_PATTERN, PACKAGE_PATTERN, URL_PATTERN

Modality = Literal["text", "image"]


def _stays_in_the_folder(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts:
        raise ValueError("is relative to the source's path, which DVC watches, and stays in there")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("`**` stands for folders, between slashes: `**/*.txt`")
    return path


Within = Annotated[str, AfterValidator(_stays_in_the_folder)]
Pattern = Annotated[
    Annotated[Within, Tag("a text")] | Annotated[dict[str, Within], Field(min_length=1), Tag("a mapping")],
    by_form("must be text, or a mapping of the source's own splits to texts, such as {train: a, test: b}"),
]
"""Which files of the folder count, as a glob: `*.txt`, or `**/*.md` for all levels. A mapping of names to globs where
the source comes in splits of its own: `{train: "train-*.parquet", test: "test-*.parquet"}`."""

PackageName = Annotated[str, Field(pattern=PACKAGE_PATTERN)]
Checksum = Annotated[str, Field(pattern=CHECKSUM_PATTERN)]


class Source(Section):
    """Raw text or pictures, as the `download` stage fetches them."""

    path: WatchedPath
    """The file or folder that the source is read from and that DVC watches. Bundled sources come with the pinned
    packages, so theirs is the file that pins them; fetched ones are watched by their other settings, and may have any
    file here whose change shall fetch them again."""


class TextRows(Source):
    """What rows, lines and files of text have in common."""

    empty_rows: Literal["error", "drop", "keep"]
    """What to do with one that has no text: refuse it, leave it out and count it, or keep it as a document that is
    nothing but its end, as the published zero-shot protocols do."""
    detokenizer: Literal["wikitext", "ptb", "lm1b", "lambada", "scientific_papers"] | None
    """Undo the spacing of tokenized benchmark text; null for plain text."""


class Docstrings(Source):
    """The documentation inside installed Python packages, one document a module; `python` is the standard library."""

    kind: Literal["docstrings"]
    packages: Annotated[list[PackageName], Field(min_length=1), Distinct]


class Digits(Source):
    """The 1,797 handwritten digits that come with scikit-learn: 8x8 pixels, 17 grey levels."""

    kind: Literal["digits"]


class Photos(Source):
    """The two colour photographs that come with scikit-learn, cut into disjoint squares."""

    kind: Literal["photos"]
    region: Annotated[int, Field(ge=8, le=427)]
    """Edge of a square in pixels. A square belongs to one split as a whole."""


class TextFiles(TextRows):
    """UTF-8 text files, perhaps packed as .gz, .bz2, .xz or .zst."""

    kind: Literal["text_files"]
    pattern: Pattern
    documents: Literal["file", "line"]
    """What a document is."""
    broken_utf8: Literal["error", "replace", "skip"]
    """What to do with a document that is no UTF-8: refuse it, put U+FFFD, or leave it out; the last two are counted."""


class JsonLines(TextRows):
    """JSON lines, one document a line, perhaps packed as .gz, .bz2, .xz or .zst."""

    kind: Literal["jsonl"]
    pattern: Pattern
    field: str
    """The key under which a line has its text."""
    broken_utf8: Literal["error", "replace", "skip"]
    """As for text files."""


class Table(TextRows):
    """Parquet or arrow files, one document a row."""

    kind: Literal["table"]
    pattern: Pattern
    column: str
    """The column with the text."""


def _is_encoding(name: str) -> str:
    try:
        if codecs.lookup(name)._is_text_encoding:
            return name
    except LookupError:
        pass
    raise ValueError("Python knows no such text encoding; usual ones are utf-8, utf-16, cp1252 and latin-1")


class Csv(TextRows):
    """CSV or TSV files, one document a row, perhaps packed as .gz, .bz2, .xz or .zst."""

    kind: Literal["csv"]
    pattern: Pattern
    columns: Annotated[list[str], Field(min_length=1)]
    """The columns with the text; of several, those that are not empty are joined by a line break."""
    delimiter: Annotated[str, Field(pattern=DELIMITER_PATTERN)]
    """The character between values: a comma, a semicolon as Excel writes it in much of Europe, or "\\t"."""
    header: Annotated[
        Annotated[Literal[True], Tag("a truth value")] | Annotated[list[str], Field(min_length=1), Tag("a list")],
        by_form("must be true, or a list with the names of all columns"),
    ]
    """true where the first row names the columns; else the names of all columns in their order."""
    encoding: Annotated[str, AfterValidator(_is_encoding)]
    """Such as utf-8, or cp1252 or utf-16 for files of Excel; a byte-order mark at the beginning is no text."""


class Hub(TextRows):
    """A text data set on a hub, through `datasets`; one document a row."""

    kind: Literal["hub"]
    name: str
    """On the hub, `owner/name`, or a local folder of the same layout."""
    config: str | None
    """Which of the data set's configurations; null for its only one."""
    splits: Annotated[list[str], Field(min_length=1), Distinct]
    """Which of its splits to fetch."""
    column: str
    """The column with the text."""
    revision: str | None
    """Of the repository, a commit at best; null for the newest."""


class Url(TextRows):
    """A text behind a URL: plain, packed, or a member of a zip archive."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=URL_PATTERN)]
    sha256: Checksum | None
    """Of what is fetched; null to take it as it comes."""
    member: str | None
    """The file of a zip archive that is meant; null for no archive."""
    field: str | None
    """For JSON lines the key of the text; null for plain text."""
    documents: Literal["file", "line"]
    """What a document is; JSON lines are always one a line."""
    broken_utf8: Literal["error", "replace", "skip"]
    """As for text files."""


class Resized(Source):
    """What picture files have in common."""

    mode: Literal["L", "RGB"] | None
    """What pictures are converted to, grey or RGB, transparent ones on white; null to refuse those that are neither."""
    resize: Positive | None
    """Edge of the squares to which pictures are cut, in the middle, and shrunk by a box filter; null for pictures that
    have one size."""


class ImageFolder(Resized):
    """Picture files, grey or RGB, 8 bits a channel."""

    kind: Literal["image_folder"]
    pattern: Pattern
    labels: Literal["folder"] | None
    """Whether the first folder below those that the pattern names is the class; null for pictures without classes."""


class ImageTable(Resized):
    """Pictures in parquet or arrow files, one a row, as the bytes of a picture file."""

    kind: Literal["image_table"]
    pattern: Pattern
    image: str
    """The column with the pictures."""
    label: str | None
    """The column with the classes' numbers; null for none."""


class ImageTar(Resized):
    """Picture files in .tar archives, without classes."""

    kind: Literal["image_tar"]
    pattern: Pattern
    """Which archives count."""


class HubImages(Resized):
    """A data set of pictures on a hub, through `datasets`; one picture a row."""

    kind: Literal["hub_images"]
    name: str
    """On the hub, `owner/name`, or a local folder of the same layout."""
    config: str | None
    """Which of the data set's configurations; null for its only one."""
    splits: Annotated[list[str], Field(min_length=1), Distinct]
    """Which of its splits to fetch."""
    image: str
    """The column with the pictures."""
    label: str | None
    """The column with the classes' numbers; null for none."""
    revision: str | None
    """Of the repository, a commit at best; null for the newest."""


class Arrays(Source):
    """Pictures in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C)."""

    kind: Literal["arrays"]
    field: str
    """The array's name in an .npz file; ignored for .npy, which has just one."""
    labels: str | None
    """The name of the array with the pictures' classes, whole numbers from 0, in an .npz file; null for none."""


class PlanarLabels(Section):
    """The classes of pictures in .npz files."""

    field: str
    """The array's name."""
    first: Annotated[int, Field(ge=0)]
    """The number that the first class has there; it becomes 0."""
    classes: Positive
    """How many there are. A label that is not among them is refused."""


class PlanarArrays(Source):
    """Pictures in .npz files, each a flat row and channel by channel: uint8 of shape (N, C * H * W)."""

    kind: Literal["planar_arrays"]
    pattern: Pattern
    field: str
    """The array's name."""
    shape: Annotated[tuple[Literal[1, 3], Positive, Positive], Field(strict=False)]
    """Of a picture, (C, H, W)."""
    labels: PlanarLabels | None
    """Where their classes are; null for none."""


class Idx(Source):
    """Pictures in the IDX files of MNIST and its kin, perhaps packed."""

    kind: Literal["idx"]
    images: Pattern
    """The file of pictures within the folder, or one for each of the source's own splits."""
    labels: Pattern | None
    """The same for their classes; null for none."""


class Catalogued(Source):
    """A data set of the literature, as `mdpipe datasets` lists it."""

    kind: Literal["catalogue"]
    name: str
    """Its name in the catalogue."""

    @model_validator(mode="after")
    def _is_known(self) -> "Catalogued":
        try:
            entry(self.name)
        except ValueError as error:
            raise ValidationError.from_exception_data("source", [problem(("name",), self.name, str(error))]) from None
        return self


TEXT = (Docstrings, TextFiles, JsonLines, Csv, Table, Hub, Url)
IMAGES = (Digits, Photos, ImageFolder, ImageTable, ImageTar, HubImages, Arrays, PlanarArrays, Idx)

AnySource = Annotated[
    Docstrings
    | TextFiles
    | JsonLines
    | Csv
    | Table
    | Hub
    | Url
    | Digits
    | Photos
    | ImageFolder
    | ImageTable
    | ImageTar
    | HubImages
    | Arrays
    | PlanarArrays
    | Idx
    | Catalogued,
    Field(discriminator="kind"),
    ByKind("kind"),
]


def resolved(source: Source) -> Source:
    """The source itself, or for one of the catalogue what that stands for."""
    if not isinstance(source, Catalogued):
        return source
    settings = dict(entry(source.name).source)
    known = {section.model_fields["kind"].annotation.__args__[0]: section for section in (*TEXT, *IMAGES)}  # type: ignore[union-attr]
    return known[settings["kind"]].model_validate({**settings, "path": source.path})


def modality_of_source(source: Source) -> Modality:
    """What a source has."""
    return "text" if isinstance(resolved(source), TEXT) else "image"


def has_classes(source: Source) -> bool:
    """Whether the pictures of a source come with classes."""
    found = resolved(source)
    if isinstance(found, ImageFolder | Arrays | PlanarArrays | Idx):
        return found.labels is not None
    return isinstance(found, Digits) or (isinstance(found, ImageTable | HubImages) and found.label is not None)
