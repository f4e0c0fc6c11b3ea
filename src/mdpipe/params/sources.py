"""The `sources` of params.yaml, one class per kind; `mdpipe.data.sources` reads them."""

import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, Tag

from mdpipe.file_formats import ending, refusal
from mdpipe.params.catalog import find_entry
from mdpipe.params.errors import CHECKSUM_PATTERN, DELIMITER_PATTERN, PACKAGE_PATTERN, URL_PATTERN, BrokenRules
from mdpipe.params.fields import Distinct, Files, NameList, Pattern, Positive, WatchedPath, by_form
from mdpipe.params.registry import Config, KindConfig

if TYPE_CHECKING:
    from mdpipe.params.root import Params

GRAY = ("mnist", "fashion_mnist")
"""Images of the catalog with one channel; all others have three."""

Modality = Literal["text", "image"]
ImageMode = Literal["L", "RGB"]
DecodeErrors = Annotated[
    Literal["strict", "ignore", "replace"],
    Field(
        description="Treatment of a document that is not UTF-8: refuse it, leave it out, or insert U+FFFD; the last"
        " two are counted."
    ),
]
SampleBy = Annotated[
    Literal["document", "line"],
    Field(description="Unit of text that is one document: a file or a line; JSON lines are always one per line."),
]


def _is_encoding(name: str) -> str:
    try:
        if codecs.lookup(name)._is_text_encoding:
            return name
    except LookupError:
        pass
    raise ValueError("Python knows no such text encoding; usual ones are utf-8, utf-16, cp1252 and latin-1")


def _is_in_the_catalog(name: str) -> str:
    find_entry(name)
    return name


def files_by_split(files: str | dict[str, str]) -> dict[str | None, str]:
    """Return the globs or files by the name of their split, which is None for a source without splits."""
    return {None: files} if isinstance(files, str) else dict(files.items())


class Source(KindConfig):
    """Raw text or images, as the `download` stage fetches them."""

    column_keys: ClassVar[tuple[str, ...]] = ()
    """The settings that name columns, fields or arrays."""

    path: WatchedPath
    """The file or folder that the source is read from and that DVC watches. A bundled source names the file that pins
    its package; a downloaded source, any file whose change should trigger a new download."""
    renamed: ClassVar[dict[str, str]] = {
        "documents": "sample_by",
        "broken_utf8": "decode_errors",
        "empty_rows": "empty_documents",
        "image": "image_column",
        "label": "label_column",
    }
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {
        "sample_by": {"file": "document"},
        "decode_errors": {"error": "strict", "skip": "ignore"},
    }
    renamed_kinds: ClassVar[dict[str, str]] = {
        "hub": "huggingface",
        "hub_images": "huggingface (with `image_column`)",
        "table": "parquet",
        "image_table": "parquet_images",
        "arrays": "npy",
        "planar_arrays": "npz_flat",
        "idx": "mnist_idx",
        "text_files": "text",
        "catalogue": "catalog",
    }

    @property
    def modality(self) -> Modality:
        """Return what the source contains: text, or images, which `huggingface` has with an `image_column`."""
        found = self.resolve()
        is_document = isinstance(found, DocstringsSource | DocumentSource)
        return "text" if is_document and getattr(found, "image_column", None) is None else "image"

    @property
    def has_classes(self) -> bool:
        """Return True if the images have class labels: the digits do, others by a setting for labels that is set."""
        found = self.resolve()
        is_set = any(getattr(found, key, None) is not None for key in ("labels", "label_column"))
        return is_set or isinstance(found, DigitsSource)

    @property
    def named_columns(self) -> dict[str, str]:
        """Return the columns, fields or arrays that are read, each with the key of the setting that names it."""
        named = {}
        for key in self.column_keys:
            value = getattr(self, key)
            names = value if isinstance(value, list) else [getattr(value, "field", value)]
            named.update({name: key for name in names if name is not None})
        return named

    @property
    def own_splits(self) -> list[str]:
        """Return the names of the splits that the source itself has."""
        found = self.resolve()
        if isinstance(found, HuggingFaceSource):
            return found.splits
        files = getattr(found, "pattern", getattr(found, "images", ""))
        return [split for split in files_by_split(files) if split is not None]

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Return the shape (H, W, C) of the images, as far as settings or the catalog state it."""
        match found := self.resolve():
            case NpzFlatSource(shape=(channels, height, width)):
                return height, width, channels
            case DigitsSource():
                return 8, 8, 1
            case PhotosSource(region=edge):
                return edge, edge, 3
        size, is_gray = getattr(found, "resize", None), getattr(found, "mode", None) == "L"
        if isinstance(self, CatalogSource):
            size = size or (find_entry(self.name).dataset or {}).get("image_size")
            is_gray |= self.name in GRAY
        return (size, size, 1 if is_gray else 3) if size else None

    def resolve(self) -> "Source":
        """Return the source that is read: the one that a catalog entry refers to, else this one."""
        return self

    def problems(self, params: "Params") -> BrokenRules:  # noqa: ARG002
        """Yield files that the kind does not read, by their names."""
        path = Path(self.path)
        if not path.is_dir() and (why := refusal(self.kind, ending(self.path))):
            yield ("path",), why
        if not path.is_file():
            for split, glob in files_by_split(getattr(self, "pattern", "")).items():
                if why := refusal(self.kind, ending(glob)):
                    yield ("pattern", *([] if split is None else [split])), why


class DocstringsSource(Source):
    """The docstrings of installed Python packages, one document per module; `python` is the standard library."""

    kind: Literal["docstrings"] = "docstrings"
    packages: Annotated[list[Annotated[str, Field(pattern=PACKAGE_PATTERN)]], Field(min_length=1), Distinct]
    """Import names of the packages, such as `numpy`, or `python`."""


class DocumentSource(Source):
    """Settings of every other source of text."""

    renamed: ClassVar[dict[str, str]] = {**Source.renamed, "field": "columns", "column": "columns"}

    empty_documents: Literal["error", "drop", "keep"] = "error"
    """Treatment of a document without text: refuse it, leave it out and count it, or keep it as an empty document,
    as the published zero-shot protocols do."""
    detokenizer: Literal["wikitext", "ptb", "lm1b", "lambada", "scientific_papers"] | None = None
    """Undo the spacing of tokenized benchmark text; null for plain text."""


class TextSource(DocumentSource):
    """UTF-8 text files, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["text"] = "text"
    pattern: Pattern = "**/*.txt"
    sample_by: SampleBy = "document"
    decode_errors: DecodeErrors = "strict"


class ColumnsSource(DocumentSource):
    """Settings of every source with the text in columns, of which each row or line is one document."""

    column_keys: ClassVar[tuple[str, ...]] = ("columns",)
    columns: Annotated[NameList, Distinct] = ["text"]
    """The columns with the text, which are the fields of JSON lines; of several, those that are not empty are joined by
    a line break."""


class JsonLinesSource(ColumnsSource):
    """JSON lines, one document per line, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["jsonl"] = "jsonl"
    pattern: Pattern = "**/*.jsonl"
    decode_errors: DecodeErrors = "strict"


class CsvSource(ColumnsSource):
    """CSV or TSV files, one document per row, plain or compressed (.gz, .bz2, .xz, .zst)."""

    kind: Literal["csv"] = "csv"
    pattern: Pattern = "**/*.csv"
    delimiter: Annotated[str, Field(pattern=DELIMITER_PATTERN)] = ","
    """The character between values: a comma, a semicolon as Excel writes it in much of Europe, or "\\t"."""
    header: Annotated[
        Annotated[Literal[True], Tag("a truth value")] | Annotated[NameList, Tag("a list")],
        by_form("must be true, or a list with the names of all columns"),
    ] = True
    """`true` if the first row names the columns; else the names of all columns in their order."""
    encoding: Annotated[str, AfterValidator(_is_encoding)] = "utf-8"
    """Encoding, such as utf-8, or cp1252 or utf-16 for files from Excel; a byte-order mark at the start is skipped."""


class ParquetSource(ColumnsSource):
    """Parquet or Arrow files, one document per row."""

    kind: Literal["parquet"] = "parquet"
    pattern: Pattern = "**/*.parquet"


class DecodedImageSource(Source):
    """Settings of every source of image files."""

    mode: ImageMode | None = None
    """Convert images to 8-bit gray (L) or RGB, transparent ones on white; null to refuse images in any other mode."""
    resize: Positive | None = None
    """Crop images to the central square and shrink it to this edge with a box filter; null if all have one size."""


class HuggingFaceSource(ColumnsSource, DecodedImageSource):
    """A data set on the Hugging Face Hub, through `datasets`: one text per row, or with `image_column` one image."""

    column_keys: ClassVar[tuple[str, ...]] = ("image_column", "label_column")
    kind: Literal["huggingface"] = "huggingface"
    name: str
    """Name on the Hub, `owner/name`, or a local folder of the same layout."""
    config: str | None = None
    """Configuration of the dataset; null for its only one."""
    splits: Annotated[NameList, Distinct] = ["train"]
    """The splits to download."""
    revision: str | None = None
    """Revision of the repository, preferably a commit; null for the newest."""
    image_column: str | None = None
    """The column with the images; null for a data set of text."""
    label_column: str | None = None
    """The column with the class numbers of the images; null for none."""

    def broken_rules(self) -> BrokenRules:
        """Yield settings for images of a data set of text, and the other way round."""
        if self.image_column is None:
            keys, rule = ("label_column", "mode", "resize"), "is for images: name their column in `image_column`, too"
        else:
            keys = ("columns", "empty_documents", "detokenizer")
            rule = "is for text, and with `image_column` the source has images; remove it"
        for key in keys:
            if getattr(self, key) != type(self).model_fields[key].default:
                yield (key,), rule

    @property
    def named_columns(self) -> dict[str, str]:
        """Return the columns of text or images, with the keys of their settings."""
        return dict.fromkeys(self.columns, "columns") if self.image_column is None else super().named_columns

    def problems(self, params: "Params") -> BrokenRules:
        """Yield a folder that DVC does not watch, too."""
        if (folder := Path(self.name)).is_dir() and not folder.resolve().is_relative_to(Path(self.path).resolve()):
            yield ("path",), f"`name` is a folder here, and DVC watches only `path`: set it to {self.name!r}, too"
        yield from super().problems(params)


class UrlSource(DocumentSource):
    """A text at a URL: plain, compressed, or a member of a zip archive."""

    column_keys: ClassVar[tuple[str, ...]] = ("columns",)
    kind: Literal["url"] = "url"
    url: Annotated[str, Field(pattern=URL_PATTERN)]
    """URL without user, password or token: params.yaml and dvc.lock are under version control."""
    sha256: Annotated[str, Field(pattern=CHECKSUM_PATTERN)] | None = None
    """SHA-256 of the download; null to accept any."""
    member: str | None = None
    """The file to take from a zip archive; null if the URL is not an archive."""
    columns: Annotated[NameList, Distinct] | None = None
    """The fields with the text in JSON lines, joined as those of `jsonl` are; null for plain text."""
    sample_by: SampleBy = "document"
    decode_errors: DecodeErrors = "strict"


class DigitsSource(Source):
    """The 1,797 handwritten digits of scikit-learn: 8x8 pixels, 17 gray levels."""

    kind: Literal["digits"] = "digits"


class PhotosSource(Source):
    """The two color photographs of scikit-learn, cut into disjoint squares."""

    kind: Literal["photos"] = "photos"
    region: Annotated[int, Field(ge=8, le=427)] = 64
    """Edge of a square in pixels. A square belongs to one split as a whole."""


class ImageFolderSource(DecodedImageSource):
    """Image files, gray or RGB, 8 bits per channel."""

    kind: Literal["image_folder"] = "image_folder"
    pattern: Pattern = "**/*"
    labels: Literal["folder"] | None = None
    """`folder`: the first folder below those named in `pattern` is the class; null for images without classes."""


class ParquetImagesSource(DecodedImageSource):
    """Images in Parquet or Arrow files, one per row, as the bytes of an image file."""

    column_keys: ClassVar[tuple[str, ...]] = ("image_column", "label_column")
    kind: Literal["parquet_images"] = "parquet_images"
    pattern: Pattern = "**/*.parquet"
    image_column: str = "image"
    """The column with the images."""
    label_column: str | None = None
    """The column with the class numbers; null for none."""


class ImageTarSource(DecodedImageSource):
    """Image files in .tar archives, without classes."""

    kind: Literal["image_tar"] = "image_tar"
    pattern: Pattern = "**/*.tar"


class NpySource(Source):
    """Images in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C)."""

    column_keys: ClassVar[tuple[str, ...]] = ("field", "labels")
    kind: Literal["npy"] = "npy"
    field: str = "images"
    """The array's name in an .npz file; ignored for .npy, which has just one."""
    labels: str | None = None
    """The array with the class numbers, integers from 0, in an .npz file; null for none."""


class NpzLabels(Config):
    """The classes of images in .npz files."""

    field: str = "labels"
    """The array's name."""
    first: Annotated[int, Field(ge=0)] = 0
    """Number of the first class in the file; it becomes 0."""
    num_classes: Positive
    """Number of classes. Labels outside this range are refused."""
    renamed: ClassVar[dict[str, str]] = {"classes": "num_classes"}


class NpzFlatSource(Source):
    """Images in .npz files as flat rows, channel by channel: uint8 of shape (N, C * H * W)."""

    column_keys: ClassVar[tuple[str, ...]] = ("field", "labels")
    kind: Literal["npz_flat"] = "npz_flat"
    pattern: Pattern = "**/*.npz"
    field: str = "data"
    """The array's name."""
    shape: Annotated[tuple[Literal[1, 3], Positive, Positive], Field(strict=False)]
    """Shape (C, H, W) of one image."""
    labels: NpzLabels | None = None
    """Location of the classes; null for none."""


class MnistIdxSource(Source):
    """Images in IDX files, as MNIST has them, compressed or not."""

    kind: Literal["mnist_idx"] = "mnist_idx"
    images: Files
    """The file with the images, relative to `path`, or a mapping of split names to files."""
    labels: Files | None = None
    """The file with the classes, in the same form; null for none."""

    def broken_rules(self) -> BrokenRules:
        """Yield that images and labels are of other splits."""
        images, labels = files_by_split(self.images), files_by_split(self.labels or {})
        if self.labels is not None and set(images) != set(labels):
            rule = f"`images` and `labels` must name the same splits, and `images` has {', '.join(map(str, images))}"
            yield ("labels",), rule


class CatalogSource(Source):
    """A benchmark data set of the catalog, as listed by `mdpipe datasets`."""

    kind: Literal["catalog"] = "catalog"
    name: Annotated[str, AfterValidator(_is_in_the_catalog)]
    """Name in the catalog, as listed by `mdpipe datasets`."""

    def resolve(self) -> Source:
        """Return the source that the entry refers to."""
        return Source.parse({**find_entry(self.name).source, "path": self.path})
