import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.ocr.layout import reading_order
from stellwerk.engines.ocr.page import OcrBox


def box(left, top, width, text, height=20, degrees=0.0):
    angle = math.radians(degrees)
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    turned = [
        (round(x * math.cos(angle) - y * math.sin(angle)), round(x * math.sin(angle) + y * math.cos(angle)))
        for x, y in corners
    ]
    return OcrBox(tuple(turned), text, 1.0)


def read(boxes):
    return [[line.text for line in run] for run in reading_order(boxes)]


def columns(*lefts, rows=5, width=280, degrees=0.0):
    return [
        box(left, 100 + 30 * row, width, f"{number}{row}", degrees=degrees)
        for number, left in enumerate(lefts)
        for row in range(rows)
    ]


def test_lines_are_read_from_top_to_bottom_and_pieces_from_left_to_right():
    boxes = [box(300, 52, 100, "world"), box(10, 90, 300, "below"), box(10, 50, 200, "hello")]
    assert read(boxes) == [["hello world", "below"]]


def test_a_page_that_is_askew_keeps_its_lines_apart():
    starts = [(10, 200 + 37 * row, 500 + 53 * row % 211, 800) for row in range(6)]
    boxes = [
        box(left, 50 + 30 * row, right - left - 12, f"{row}{part}", degrees=3)
        for row, line in enumerate(starts)
        for part, (left, right) in enumerate(pairwise((*line, 1000)))
    ]
    random.Random(1).shuffle(boxes)
    assert read(boxes) == [[" ".join(f"{row}{part}" for part in range(4)) for row in range(6)]]


def test_two_columns_are_read_one_after_the_other():
    assert read(columns(10, 310)) == [[f"0{row}" for row in range(5)], [f"1{row}" for row in range(5)]]


def test_three_columns_are_read_one_after_the_other():
    assert [run[0] for run in read(columns(10, 310, 610))] == ["00", "10", "20"]


def test_columns_that_are_askew_are_found():
    assert [run[0] for run in read(columns(10, 320, degrees=-1.5))] == ["00", "10"]


def test_a_headline_over_both_columns_comes_first_and_a_line_below_them_last():
    boxes = [*columns(10, 310), box(10, 40, 580, "headline"), box(10, 400, 580, "foot")]
    assert read(boxes) == [["headline"], [f"0{row}" for row in range(5)], [f"1{row}" for row in range(5)], ["foot"]]


def test_a_receipt_is_read_row_by_row():
    boxes = [box(10, 30 * row, 120 + 10 * (row % 3), f"item{row}") for row in range(8)]
    boxes += [box(500, 30 * row, 60, f"{row}.99") for row in range(8)]
    assert read(boxes) == [[f"item{row} {row}.99" for row in range(8)]]


def test_a_blank_page_has_no_lines():
    assert reading_order([]) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3000), st.integers(1, 900), st.integers(1, 80)), max_size=40
    )
)
def test_every_piece_is_read_exactly_once(places):
    boxes = [box(left, top, width, str(n), height) for n, (left, top, width, height) in enumerate(places)]
    told = [piece.box.text for run in reading_order(boxes) for line in run for piece in line.pieces]
    assert sorted(told) == sorted(box.text for box in boxes)
