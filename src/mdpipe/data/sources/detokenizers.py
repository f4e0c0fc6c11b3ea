"""Detokenizers: benchmark text as it was written, without the spaces that tokenising put around its marks.

The zero-shot protocol of SEDD (Lou et al. 2024), which MDLM and later work share, scores the text that these rules
give. So they do what the protocol does also where plain English would want more, and the rules apply in their order.
"""

import re
from collections.abc import Callable, Mapping


def detokenize_wikitext(text: str) -> str:
    """WikiText, as SEDD's data preparation restores it (Lou et al. 2024).

    An apostrophe that stands apart after an "s" joins it. " @-@ ", " @,@ " and " @.@ " are the mark alone.
    A lone : ; . ! ? or comma joins the word before. Brackets and quotes of either kind join what they enclose. Two to
    four "=" in a row close up into a heading's mark. A lone degree sign joins both sides, a line break has no space
    around it, " N " is " 1 ", and " 's" joins the word before.
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
    r"""Penn Treebank, as SEDD's data preparation restores it (Lou et al. 2024).

    " 's" and " n't" join the word before, and so does an apostrophe that stands alone after an "s". A line break
    between two spaces loses both, "\/" is "/". Every number was written N: " N " is " 1 ", and "$" or "#" joins a 1
    that follows. "<unk>" is "?".
    """
    text = text.replace(" 's", "'s").replace("s ' ", "s' ").replace(" n't", "n't")
    text = text.replace(" \n ", "\n").replace(r"\/", "/")
    text = re.sub(" N(?= )", " 1", text)
    text = text.replace("$ 1", "$1").replace("# 1", "#1")
    return text.replace("<unk>", "?")


def detokenize_lm1b(text: str) -> str:
    """One Billion Words, as SEDD's data preparation restores it (Lou et al. 2024).

    "http : / / " and "https : / / " close up. An apostrophe before a letter joins the word before, which mends every
    contraction ("don 't", "it 's"). A full stop joins a word of letters and digits alone that has a space before it;
    ? and ! join the word before, also at the end; comma : and ; do so within the line. A lone "/" joins both sides,
    quotes of either kind and round or square brackets join what they enclose, "$" and "£" what follows.
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
    """LAMBADA, as SEDD's data preparation restores it (Lou et al. 2024).

    Curly double quotes become straight; a line break stands before the text, and no other space around it.
    """
    return "\n" + text.replace("\u201c", '"').replace("\u201d", '"').strip()


def detokenize_scientific_papers(text: str) -> str:
    """WikiText's rules and then LM1B's, as MDLM applies them to PubMed and arXiv (Sahoo et al. 2024)."""
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
