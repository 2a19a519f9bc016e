import base64

import pytest

from stellwerk.client import BadAddress
from stellwerk.client.ocr import Page, Reading, describe, kind_of


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"BM", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_documents_are_known_by_their_first_bytes(data, kind):
    assert kind_of(data) == kind


@pytest.mark.parametrize("data", [b"", b"<svg", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_document_is_not_sent(data):
    with pytest.raises(BadAddress) as caught:
        describe(data)
    assert caught.value.code == "unsupported_document"


def test_a_file_is_sent_with_its_content(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"%PDF-1.7 whatever its name says")
    said = describe(file)
    assert said["type"] == "document_url"
    head, _, data = said["document_url"].partition(",")
    assert (head, base64.b64decode(data)) == ("data:application/pdf;base64", file.read_bytes())
    assert describe(str(file)) == said


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(BadAddress, match="cannot be read: No such file"):
        describe(tmp_path / "none.pdf")


def test_pages_without_plain_text_have_their_markdown():
    reading = Reading([Page(0, "# A", "A"), Page(1, "**B**")])
    assert (reading.text, reading.markdown) == ("A\n\n**B**", "# A\n\n**B**")
