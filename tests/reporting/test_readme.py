import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting.readme import replace_section

BODIES = st.text(alphabet="ab|\n -").map(lambda text: text.strip("\n"))


@given(before=BODIES, old=BODIES, new=BODIES, after=BODIES)
def test_only_what_stands_between_the_markers_changes(before, old, new, after):
    text = f"{before}<!-- results:begin -->{old}<!-- results:end -->{after}"
    replaced = replace_section(text, "results", new)
    assert replaced == f"{before}<!-- results:begin -->\n{new}\n<!-- results:end -->{after}"
    assert replace_section(replaced, "results", new) == replaced


def test_sections_do_not_touch_each_other():
    text = "".join(f"<!-- {name}:begin -->\nold {name}\n<!-- {name}:end -->\n" for name in ("one", "two"))
    replaced = replace_section(text, "two", "new")
    assert "old one" in replaced
    assert "old two" not in replaced


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nothing", "0 markers <!-- results:begin -->"),
        ("<!-- results:begin -->", "0 markers <!-- results:end -->"),
        ("<!-- results:begin --><!-- results:begin --><!-- results:end -->", "2 markers <!-- results:begin -->"),
        ("<!-- results:end --><!-- results:begin -->", "stands before"),
    ],
)
def test_markers_that_are_missing_doubled_or_turned_round_are_named(text, named):
    with pytest.raises(ValueError, match=named):
        replace_section(text, "results", "body")
