import pytest

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


@pytest.mark.parametrize("line", ["# no heading", "> no quote", "```", "===", "|a|b|"])
def test_what_stands_on_the_page_is_no_markup(line):
    assert "\\" + line in as_markdown(page(*BODY, (220, 20, line)))


def test_a_blank_page_is_empty():
    assert as_text([]) == as_markdown([]) == ""
