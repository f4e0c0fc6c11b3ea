"""What is measured of preparing data. Without numpy, so that a process that only starts others stays small."""

from dataclasses import dataclass
from typing import ClassVar

TOKENIZERS = ("bytes", "letters", "pieces", "gpt2")


@dataclass(frozen=True)
class DataConfiguration:
    """How much text, what makes tokens of it, and the machine's part in that.

    Raises:
        ValueError: a tokenizer that cannot be measured or has no files, or a number below 1.
    """

    size: int
    """Of the text as JSON lines, in MB."""
    tokenizer: str
    workers: int
    """Processes that read and encode."""
    kill: bool
    """Whether encoding is also killed halfway and run again."""
    seed: int
    """Of the text, the splits and the batches."""
    path: str | None
    """The folder of GPT-2's files."""
    folder: str | None
    """Where everything is written and kept; None for a temporary folder."""
    program: ClassVar[str] = "mdpipe.benchmarks.data"
    """The module that measures it."""

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(f"--tokenizer must be one of {', '.join(TOKENIZERS)}, not {self.tokenizer!r}")
        if self.tokenizer == "gpt2" and self.path is None:
            raise ValueError("--tokenizer gpt2 needs --path, a folder with GPT-2's vocab.json and merges.txt")
        for name in ("size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(self, name)}")

    @property
    def title(self) -> str:
        """What it is called where it could not be measured."""
        return f"{self.size} MB by {self.tokenizer} with {self.workers} workers"
