import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.ocr.loops import find_loop

WORDS = "The signal box was built in 1912 and still controls every train between the harbour and the main line."


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Angebot\n" + "und so weiter, " * 40, "Angebot\nund so weiter, "),
        ("a" * 400, "a"),
        (f"{WORDS}\n" * 8, f"{WORDS}\n"),
        ("Kopf\n" + "Zeile\n" * 12 + WORDS, "Kopf\nZeile\n"),
        ("<table>\n" + "<tr><td>x</td></tr>" * 30, "<table>\n<tr><td>x</td></tr>"),
    ],
)
def test_what_is_said_again_and_again_is_found(text, kept):
    place = find_loop(text)
    assert place is not None
    assert text[:place].rstrip() == kept.rstrip()


def test_a_loop_that_counts_is_found():
    text = WORDS + "".join(f"\n{number}. Item of the list" for number in range(400))
    assert find_loop(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        WORDS,
        f"{WORDS}\n\n" * 3,
        "Contents" + " ." * 300 + " 12",
        "| --- | --- |\n" * 20,
        "<table>" + "<tr><td></td><td></td></tr>" * 20 + "</table>",
        "-" * 200,
        "Name: " + "_" * 400,
        "\n".join(f"{day:02}.03.2024 | Bar | {day * 7},50 €" for day in range(1, 31)),
        "Ja\nNein\n" * 20,
    ],
)
def test_pages_as_they_are_hold_no_loop(text):
    assert find_loop(text) is None


@given(st.text(max_size=300), st.text(alphabet="abcdefg 1\n", min_size=1, max_size=40), st.integers(20, 60))
def test_a_loop_is_found_whatever_stands_before_it(before, unit, times):
    text = before + ("x" + unit) * times
    place = find_loop(text)
    if len(unit) * times >= 300:
        assert place is not None
    assert place is None or 0 < place <= len(text)


@given(st.text(max_size=2000))
def test_no_text_is_too_strange(text):
    place = find_loop(text)
    assert place is None or 0 <= place <= len(text)
