import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stellwerk.engines.ocr.layout import reading_order
from stellwerk.engines.ocr.markdown import as_markdown, as_text
from stellwerk.engines.ocr.page import OcrBox


def page(*lines):
    """Lines as (top, height, text)."""
    boxes = [
        OcrBox(((10, top), (10 + 9 * len(text), top), (10 + 9 * len(text), top + height), (10, top + height)), text, 1)
        for top, height, text in lines
    ]
    return reading_order(boxes)


BODY = [(100 + 30 * n, 20, f"a line of the body with number {n}") for n in range(4)]


def test_larger_lines_are_headings_of_two_levels():
    text = as_markdown(page((0, 40, "Title"), (60, 28, "Part"), *BODY))
    assert text.splitlines()[:4] == ["# Title", "", "## Part", ""]
    assert text.count("#") == 3


def test_a_wider_gap_begins_a_paragraph():
    below = [(260 + 30 * n, 20, f"another {n}") for n in range(2)]
    assert as_text(page(*BODY, *below)).count("\n\n") == 1


@pytest.mark.parametrize("mark", ["•", "-", "–", "*", "·"])
def test_what_begins_with_a_dot_or_dash_is_an_item(mark):
    assert "- milk" in as_markdown(page(*BODY, (220, 20, f"{mark} milk")))


@pytest.mark.parametrize("line", ["# no heading", "> no quote", "===", "|a|b|", "---", "___", ":-|-:", "+ no item"])
def test_what_stands_on_the_page_is_no_markup(line):
    assert "\\" + line in as_markdown(page(*BODY, (220, 20, line)))


MARKED_UP = frozenset(
    {"html_block", "html_inline", "link_open", "image", "code_inline", "fence", "em_open", "strong_open"}
)


def kinds_of(markdown):
    tokens = MarkdownIt("commonmark").parse(markdown)
    return {token.type for block in tokens for token in (block, *(block.children or ()))}


@pytest.mark.parametrize(
    "line",
    [
        "<script>alert(1)</script>", "see <b>this</b>", "<!-- gone -->", "<https://evil.example>", "\\<b>",
        "[here](https://evil.example)", "![seen](https://evil.example/x.png)", "[name]: https://evil.example",
        "`code`", "```", "**bold**", "a *word* of it", "_so_", "__init__", "~~no~~", "# <i>no</i>", "- `item`",
    ],
)  # fmt: skip
def test_a_line_is_shown_as_it_stands_on_the_page(line):
    written = as_markdown(page(*BODY, (220, 20, line)))
    assert not kinds_of(written) & MARKED_UP
    assert not kinds_of(as_markdown(page(*BODY, (220, 45, line)))) & MARKED_UP


@given(st.text("ab 1*_`~<>/!?[]()\\:#-+|=.\"'&;", min_size=1, max_size=25))
def test_no_line_at_all_becomes_markup(line):
    assert not kinds_of(as_markdown(page(*BODY, (220, 20, line)))) & MARKED_UP


@pytest.mark.parametrize(
    "line",
    [
        "+49 221 1234",
        "#12",
        "-5,00 €",
        "Name: ______",
        "a_b_c",
        "3 < 5 > 2",
        "2 * 3",
        "[1]",
        "S. 4 [sic] (so)",
        "12.480,50 €",
    ],
)
def test_what_would_be_no_markup_stays_as_it_is(line):
    assert as_markdown(page(*BODY, (220, 20, line))).endswith("\n" + line)


def test_a_blank_page_is_empty():
    assert as_text([]) == as_markdown([]) == ""
