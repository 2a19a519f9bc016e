from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.ocr.grounding import read_grounding

TITLE = "<|ref|>title<|/ref|><|det|>[[0, 0, 999, 100]]<|/det|>\n# Title\n\n"
TEXT = "<|ref|>text<|/ref|><|det|>[[100, 200, 500, 400], [1, 2, 3, 4]]<|/det|>\nSome words\n"


def test_places_become_boxes_in_pixels_and_their_tags_go():
    found = read_grounding(TITLE + TEXT, 999, 1998)
    assert found.text == "# Title\n\nSome words"
    assert [(box.label, box.text) for box in found.boxes] == [
        ("title", "# Title"),
        ("text", "Some words"),
        ("text", "Some words"),
    ]
    assert found.boxes[1].points == ((100, 400), (500, 400), (500, 800), (100, 800))


def test_pictures_are_named_where_they_stand():
    found = read_grounding("Before\n<|ref|>image<|/ref|><|det|>[[0,0,499,999]]<|/det|>\nAfter", 1000, 1000)
    assert found.text == "Before\n![img-0.jpeg](img-0.jpeg)\nAfter"
    assert (found.figures[0].right, found.figures[0].bottom) == (499, 1000)


def test_located_text_is_its_own_label():
    text = "<|ref|>Invoice 17<|/ref|><|det|>[[1,2,3,4]]<|/det|>\n<|ref|>Total<|/ref|><|det|>[[5,6,7,8]]<|/det|>"
    found = read_grounding(text, 999, 999)
    assert found.text == "Invoice 17\nTotal"
    assert [box.text for box in found.boxes] == ["Invoice 17", "Total"]
    assert found.boxes[0].label is None


def test_what_is_cut_off_leaves_no_tags():
    found = read_grounding("# Title\n<|ref|>text<|/ref|><|det|>[[1, 2, 3", 100, 100)
    assert "<|" not in found.text
    assert found.boxes == ()


def test_signs_of_latex_become_plain():
    assert read_grounding(r"a \coloneqq b \eqqcolon c", 1, 1).text == "a := b =: c"


@given(st.lists(st.sampled_from([TITLE, TEXT, "<|ref|>", "<|/det|>", "[[1,2,3,4]]", "word", "<|det|>"]), max_size=30))
def test_no_order_of_tags_is_too_strange(pieces):
    found = read_grounding("".join(pieces), 640, 480)
    assert all(0 <= x <= 640 and 0 <= y <= 480 for box in found.boxes for x, y in box.points)
