"""Benchmark text with its spaces undone, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.sources.text import DETOKENIZERS

RULES = {
    "wikitext": [
        ("the dogs ' tails", "the dogs' tails"),
        ("a well @-@ known 1 @,@ 234 @.@ 5 m", "a well-known 1,234.5 m"),
        ("one : two ; three . Four ! Five ? Six , seven", "one: two; three. Four! Five? Six, seven"),
        ("a ( round ) , a [ square ] and a { curly } one", "a (round), a [square] and a {curly} one"),
        ('he said " yes , of course . " and left', 'he said "yes, of course." and left'),
        ("the word ' word ' here", "the word 'word' here"),
        (" = Title = \n", " = Title =\n"),
        (" = = Section = = \n", " == Section ==\n"),
        (" = = = Part = = = \n", " === Part ===\n"),
        (" = = = = Point = = = = \n", " ==== Point ====\n"),
        ("at 21 \u00b0 C", "at 21\u00b0C"),
        ("a line . \n Another line . \n", "a line.\nAnother line.\n"),
        ("some N things", "some 1 things"),
        ("the cat 's tail", "the cat's tail"),
        ("it didn 't move", "it didn 't move"),
    ],
    "ptb": [
        ("the company 's profit", "the company's profit"),
        ("the brokers ' offices", "the brokers' offices"),
        ("it does n't say", "it doesn't say"),
        ("one line \n another", "one line\nanother"),
        (r"a 50\/50 chance", "a 50/50 chance"),
        ("about N N to N years", "about 1 1 to 1 years"),
        ("a loss of $ N million", "a loss of $1 million"),
        ("the # N billion bid", "the #1 billion bid"),
        ("mr. <unk> and <unk> corp.", "mr. ? and ? corp."),
        ("N at either end is N", "N at either end is N"),
    ],
    "lm1b": [
        ("see http : / / a.org / b and https : / / c.org", "see http://a.org/b and https://c.org"),
        ("I don 't know that it 's so , we 've said", "I don't know that it's so, we've said"),
        ("the end . The start", "the end. The start"),
        ("this is the end .", "this is the end."),
        ("he asked ( twice ) .", "he asked (twice) ."),
        ("really ? Yes ! So it is", "really? Yes! So it is"),
        ("is it so ?", "is it so?"),
        ("it is so !", "it is so!"),
        ("this , that : these ; those", "this, that: these; those"),
        ("either / or", "either/or"),
        ('he said " yes indeed " twice', 'he said "yes indeed" twice'),
        ("( round ) and [ square ] ones", "(round) and [square] ones"),
        ("$ 5 or \u00a3 4", "$5 or \u00a34"),
    ],
    "lambada": [
        ("\u201cYes,\u201d he said", '\n"Yes," he said'),
        ("  spaces around \n", "\nspaces around"),
        ("one line\n\nanother", "\none line\n\nanother"),
        ("it\u2019s kept ( so ) , too", "\nit\u2019s kept ( so ) , too"),
    ],
    "scientific_papers": [
        ("a well @-@ known result , he said .", "a well-known result, he said."),
        ("cost $ 5 or more", "cost $5 or more"),
    ],
}
rules = pytest.mark.parametrize(
    ("name", "tokenized", "written"),
    [(name, *lines) for name, examples in RULES.items() for lines in examples],
)
# A text can only change where it has one of these.
MARKERS = {
    "wikitext": "'@:;.!?,()[]{}\"=\u00b0\nN",
    "ptb": "'\n\\$#N<",
    "lm1b": ".?!,:;/\"'()[]$\u00a3",
}


@rules
def test_each_rule_gives_the_text_as_it_was_written(name, tokenized, written):
    assert DETOKENIZERS[name](tokenized) == written


@rules
def test_text_as_it_was_written_stays(name, tokenized, written):
    assert DETOKENIZERS[name](written) == written


def test_single_quotes_of_lm1b_join_what_they_enclose():
    """Not so if done twice: a quote in front of a letter is then taken for a contraction's apostrophe."""
    once = DETOKENIZERS["lm1b"]("he said ' yes indeed ' twice")
    assert once == "he said 'yes indeed' twice"
    assert DETOKENIZERS["lm1b"](once) == "he said'yes indeed' twice"


@pytest.mark.parametrize("name", MARKERS)
@given(data=st.data())
def test_text_without_markers_is_left_as_it_is(name, data):
    text = data.draw(st.text(st.characters(exclude_characters=MARKERS[name])))
    assert DETOKENIZERS[name](text) == text


@given(text=st.text(st.characters(exclude_characters="\u201c\u201d")))
def test_lambada_text_without_curly_quotes_changes_at_its_ends(text):
    assert DETOKENIZERS["lambada"](text) == "\n" + text.strip()


@given(text=st.text())
def test_detokenizing_lambada_twice_is_as_once(text):
    once = DETOKENIZERS["lambada"](text)
    assert DETOKENIZERS["lambada"](once) == once


@given(words=st.lists(st.sampled_from(["dogs", "do", "'s", "n't", "'", "N", "$", "#", "<unk>", r"1\/2", "\n"])))
def test_detokenizing_ptb_twice_is_as_once(words):
    once = DETOKENIZERS["ptb"](" ".join(words))
    assert DETOKENIZERS["ptb"](once) == once


def test_every_benchmark_has_rules():
    assert DETOKENIZERS.keys() == RULES.keys()
