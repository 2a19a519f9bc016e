import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import BadRequest, GatewayError, TooLarge, UnsupportedMedia
from stellwerk.engines.ocr.documents import Document, check_length, check_page, kind_of


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp"),
        (b"BM\x00\x00", "bmp"),
        (b"II*\x00", "tiff"),
        (b"MM\x00*", "tiff"),
        (b"%PDF-1.7", "pdf"),
        (b"\n\n%PDF-1.4", "pdf"),
    ],
)
def test_the_first_bytes_say_what_it_is(beginning, kind):
    assert kind_of(beginning, "text/html") == kind


def test_an_unknown_kind_is_refused_and_its_name_repeated():
    with pytest.raises(UnsupportedMedia, match=r"JPEG, PNG, WebP, BMP, TIFF or PDF file, though .* image/heic"):
        kind_of(b"\x00\x00\x00\x18ftypheic", "image/heic")


def test_nothing_is_no_document():
    with pytest.raises(BadRequest, match="empty"):
        kind_of(b"", "image/png")


@given(st.binary(max_size=40), st.text(max_size=80))
def test_any_bytes_are_told_apart_or_refused(data, content_type):
    with contextlib.suppress(GatewayError):
        assert kind_of(data, content_type) in {"jpeg", "png", "webp", "bmp", "tiff", "pdf"}


@given(st.text(max_size=80))
def test_what_the_sender_calls_it_cannot_break_the_message(content_type):
    with pytest.raises(UnsupportedMedia) as refused:
        kind_of(b"GIF89a", content_type)
    assert refused.value.message.isprintable()


def test_a_document_past_the_bound_is_refused():
    check_length(b"1234", 4)
    with pytest.raises(TooLarge):
        check_length(b"12345", 4)


@pytest.mark.parametrize("page", [-1, 2])
def test_a_page_that_is_not_there_is_refused(page):
    with pytest.raises(BadRequest) as refused:
        check_page(Document(id="x", data=b"", kind="pdf", pages=2), page)
    assert refused.value.param == "page"
