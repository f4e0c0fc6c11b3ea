"""Detokenizers: undo the spaces that tokenized benchmark text has around punctuation.

The zero-shot protocol of SEDD (Lou et al. 2024), which MDLM and later work share, scores text after these rules. They
follow the protocol even where plain English would need more, and apply in the order of the code.
"""

import re
from collections.abc import Callable, Mapping


def detokenize_wikitext(text: str) -> str:
    """Restore WikiText as SEDD's data preparation does (Lou et al. 2024).

    " @-@ ", " @,@ " and " @.@ " become the mark. Separate apostrophes after "s", " 's" and : ; . ! ? and commas join
    the word before, brackets and quotes what they enclose, "=" of a heading each other, degree signs both sides. Spaces
    at line breaks go, and " N " becomes " 1 ".
    """
    text = text.replace("s '", "s'")
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    for mark in ":;.!?,":
        text = _join_to_the_word_before(text, mark)
    for opening, closing in ("()", "[]", "{}", '""', "''"):
        enclosed = re.compile(rf"(\{opening})([^\{closing}]*)(\{closing})")
        text = enclosed.sub(lambda found: found[1] + found[2].strip() + found[3], text)
    for length in (4, 3, 2):
        text = text.replace(" ".join("=" * length), "=" * length)
    text = text.replace(" \u00b0 ", "\u00b0")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return text.replace(" N ", " 1 ").replace(" 's", "'s")


def detokenize_ptb(text: str) -> str:
    r"""Restore Penn Treebank as SEDD's data preparation does (Lou et al. 2024).

    " 's", " n't" and a separate apostrophe after "s" join the word before. A line break loses the spaces around it, and
    "\/" becomes "/". Numbers were replaced by N: " N " becomes " 1 ", and "$" or "#" joins a 1 that follows. "<unk>"
    becomes "?".
    """
    text = text.replace(" 's", "'s").replace("s ' ", "s' ").replace(" n't", "n't")
    text = text.replace(" \n ", "\n").replace(r"\/", "/")
    text = re.sub(" N(?= )", " 1", text)
    text = text.replace("$ 1", "$1").replace("# 1", "#1")
    return text.replace("<unk>", "?")


def detokenize_lm1b(text: str) -> str:
    """Restore One Billion Words as SEDD's data preparation does (Lou et al. 2024).

    "http : / / " and "https : / / " lose their spaces. An apostrophe before a letter joins the word before, which
    restores contractions ("don 't", "it 's"), and so do ? and !, also at the end, and , : and ; within the line. A full
    stop joins a word of letters and digits after a space. A separate "/" joins both sides, quotes and brackets join
    what they enclose, "$" and "£" what follows.
    """
    for scheme in ("http", "https"):
        text = text.replace(f"{scheme} : / / ", f"{scheme}://")
    text = re.sub(r" '(?=\w)", "'", text)
    text = re.sub(r"( \w+) \. ", r"\1. ", text)
    text = re.sub(r"( \w+) \.$", r"\1.", text)
    for mark in "?!":
        text = _join_to_the_word_before(text, mark)
        text = re.sub(rf" \{mark}$", mark, text)
    for mark in ",:;":
        text = _join_to_the_word_before(text, mark)
    text = text.replace(" / ", "/")
    for opening, closing in ('""', "''", "()", "[]"):
        text = re.sub(rf"\{opening} ([^\{opening}\{closing}]+) \{closing}", rf"{opening}\1{closing}", text)
    for currency in "$£":
        text = text.replace(f"{currency} ", currency)
    return text


def detokenize_lambada(text: str) -> str:
    """Restore LAMBADA as SEDD's data preparation does (Lou et al. 2024).

    Curly double quotes become straight; the text begins with a line break and has no other space around it.
    """
    return "\n" + text.replace("\u201c", '"').replace("\u201d", '"').strip()


def detokenize_scientific_papers(text: str) -> str:
    """Apply WikiText's rules and then LM1B's, as MDLM does for PubMed and arXiv (Sahoo et al. 2024)."""
    return detokenize_lm1b(detokenize_wikitext(text))


DETOKENIZERS: Mapping[str, Callable[[str], str]] = {
    "wikitext": detokenize_wikitext,
    "ptb": detokenize_ptb,
    "lm1b": detokenize_lm1b,
    "lambada": detokenize_lambada,
    "scientific_papers": detokenize_scientific_papers,
}


def _join_to_the_word_before(text: str, mark: str) -> str:
    return text.replace(f" {mark} ", f"{mark} ")
