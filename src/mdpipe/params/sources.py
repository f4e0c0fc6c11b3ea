"""Where data come from: the `sources` of params.yaml."""

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, model_validator
from pydantic_core import ValidationError

from mdpipe.params.base import Config, Distinct, Positive, WatchedPath, by_form
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


class Source(Config):
    """Raw text or pictures, as the `download` stage fetches them."""

    path: WatchedPath
    """The file or folder that the source is read from and that DVC watches. A bundled source names the file that pins
    its package; a downloaded source, any file whose change should download it again."""


class TextRows(Source):
    """What rows, lines and files of text have in common."""

    empty_rows: Literal["error", "drop", "keep"]
    """What to do with a row without text: refuse it, leave it out and count it, or keep it as an empty document, as the
    published zero-shot protocols do."""
    detokenizer: Literal["wikitext", "ptb", "lm1b", "lambada", "scientific_papers"] | None
    """Undo the spacing of tokenized benchmark text; null for plain text."""


class Docstrings(Source):
    """The docstrings of installed Python packages, one document per module; `python` is the standard library."""

    kind: Literal["docstrings"]
    packages: Annotated[list[PackageName], Field(min_length=1), Distinct]
    """Import names of the packages, such as `numpy`, or `python`."""


class Digits(Source):
    """The 1,797 handwritten digits of scikit-learn: 8x8 pixels, 17 gray levels."""

    kind: Literal["digits"]


class Photos(Source):
    """The two color photographs of scikit-learn, cut into disjoint squares."""

    kind: Literal["photos"]
    region: Annotated[int, Field(ge=8, le=427)]
    """Edge of a square in pixels. A square belongs to one split as a whole."""


class TextFiles(TextRows):
    """UTF-8 text files, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["text_files"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
    documents: Literal["file", "line"]
    """Whether a file or a line is one document."""
    broken_utf8: Literal["error", "replace", "skip"]
    """Refuse a document that is not UTF-8, insert U+FFFD, or leave the document out; the last two are counted."""


class JsonLines(TextRows):
    """JSON lines, one document per line, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["jsonl"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
    field: str
    """The key of the text in each line."""
    broken_utf8: Literal["error", "replace", "skip"]
    """Refuse a document that is not UTF-8, insert U+FFFD, or leave the document out; the last two are counted."""


class Table(TextRows):
    """Parquet or Arrow files, one document per row."""

    kind: Literal["table"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
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
    """CSV or TSV files, one document per row, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["csv"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
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
    """Such as utf-8, or cp1252 or utf-16 for files from Excel; a byte-order mark at the start is skipped."""


class Hub(TextRows):
    """A text data set on the Hugging Face Hub, through `datasets`; one document per row."""

    kind: Literal["hub"]
    name: str
    """On the hub, `owner/name`, or a local folder of the same layout."""
    config: str | None
    """Which of the data set's configurations; null for its only one."""
    splits: Annotated[list[str], Field(min_length=1), Distinct]
    """The splits to download."""
    column: str
    """The column with the text."""
    revision: str | None
    """Revision of the repository, preferably a commit; null for the newest."""


class Url(TextRows):
    """A text at a URL: plain, compressed, or a member of a zip archive."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=URL_PATTERN)]
    """Without user, password or token: params.yaml and dvc.lock are under version control."""
    sha256: Checksum | None
    """SHA-256 of the download; null to accept any."""
    member: str | None
    """The file to take from a zip archive; null if the URL is not an archive."""
    field: str | None
    """The key of the text in JSON lines; null for plain text."""
    documents: Literal["file", "line"]
    """Whether a file or a line is one document; JSON lines are always one per line."""
    broken_utf8: Literal["error", "replace", "skip"]
    """Refuse a document that is not UTF-8, insert U+FFFD, or leave the document out; the last two are counted."""


class Resized(Source):
    """What picture files have in common."""

    mode: Literal["L", "RGB"] | None
    """Convert images to 8-bit gray (L) or RGB, transparent ones on white; null to refuse images in any other mode."""
    resize: Positive | None
    """Crop images to the central square and shrink it to this edge with a box filter; null if all have one size."""


class ImageFolder(Resized):
    """Image files, gray or RGB, 8 bits per channel."""

    kind: Literal["image_folder"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
    labels: Literal["folder"] | None
    """`folder`: the first folder below those named in `pattern` is the class; null for images without classes."""


class ImageTable(Resized):
    """Images in Parquet or Arrow files, one per row, as the bytes of an image file."""

    kind: Literal["image_table"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
    image: str
    """The column with the images."""
    label: str | None
    """The column with the class numbers; null for none."""


class ImageTar(Resized):
    """Image files in .tar archives, without classes."""

    kind: Literal["image_tar"]
    pattern: Pattern
    """Which archives of the folder are read, as a glob, or a mapping of split names to globs."""


class HubImages(Resized):
    """An image data set on the Hugging Face Hub, through `datasets`; one image per row."""

    kind: Literal["hub_images"]
    name: str
    """On the hub, `owner/name`, or a local folder of the same layout."""
    config: str | None
    """Which of the data set's configurations; null for its only one."""
    splits: Annotated[list[str], Field(min_length=1), Distinct]
    """The splits to download."""
    image: str
    """The column with the images."""
    label: str | None
    """The column with the class numbers; null for none."""
    revision: str | None
    """Revision of the repository, preferably a commit; null for the newest."""


class Arrays(Source):
    """Images in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C)."""

    kind: Literal["arrays"]
    field: str
    """The array's name in an .npz file; ignored for .npy, which has just one."""
    labels: str | None
    """The array with the class numbers, integers from 0, in an .npz file; null for none."""


class PlanarLabels(Config):
    """The classes of images in .npz files."""

    field: str
    """The array's name."""
    first: Annotated[int, Field(ge=0)]
    """Number of the first class in the file; it becomes 0."""
    classes: Positive
    """Number of classes. Labels outside this range are refused."""


class PlanarArrays(Source):
    """Images in .npz files as flat rows, channel by channel: uint8 of shape (N, C * H * W)."""

    kind: Literal["planar_arrays"]
    pattern: Pattern
    """Which files of the folder are read, as a glob, or a mapping of split names to globs."""
    field: str
    """The array's name."""
    shape: Annotated[tuple[Literal[1, 3], Positive, Positive], Field(strict=False)]
    """Shape (C, H, W) of one image."""
    labels: PlanarLabels | None
    """Where the classes are stored; null for none."""


class Idx(Source):
    """Images in IDX files, as MNIST has them, compressed or not."""

    kind: Literal["idx"]
    images: Pattern
    """The file with the images, relative to `path`, or a mapping of split names to files."""
    labels: Pattern | None
    """The file with the classes, in the same form; null for none."""


class Catalogued(Source):
    """A benchmark data set of the catalog, as listed by `mdpipe datasets`."""

    kind: Literal["catalogue"]
    name: str
    """Name in the catalog, as listed by `mdpipe datasets`."""

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
