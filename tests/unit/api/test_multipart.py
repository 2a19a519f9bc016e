import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api._multipart import read_form
from stellwerk.core.errors import BadRequest, GatewayError, UnsupportedMedia

TYPE = b"multipart/form-data; boundary=XX"


def form(*parts, boundary=b"XX"):
    body = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return body + b"--" + boundary + b"--\r\n"


def field(name, more=b""):
    return b'Content-Disposition: form-data; name="' + name + b'"' + more


def test_fields_and_files_are_found():
    body = form(
        (field(b"purpose"), b"batch"),
        (field(b"file", b'; filename="a \\"b\\".jsonl"') + b"\r\nContent-Type: application/jsonl", b"{}\r\n{}\r\n"),
    )
    parts = read_form(body, TYPE)
    assert (parts["purpose"].text, parts["purpose"].filename) == ("batch", None)
    file = parts["file"]
    assert (file.filename, file.content_type, file.content) == ('a "b".jsonl', "application/jsonl", b"{}\r\n{}\r\n")


def test_what_stands_before_the_first_boundary_is_left_alone():
    assert (
        read_form(b"preamble\r\n" + form((field(b"a"), b"1")), b'Multipart/Form-Data; boundary="XX"')["a"].text == "1"
    )


def test_of_two_parts_with_one_name_the_first_counts():
    assert read_form(form((field(b"a"), b"1"), (field(b"a"), b"2")), TYPE)["a"].text == "1"


@given(st.binary(max_size=200), st.text(st.characters(categories=["L", "N", "Zs"]), min_size=1, max_size=20))
def test_every_content_comes_back_as_it_was(content, name):
    if b"\r\n--XX" in b"\r\n" + content + b"\r\n--X":
        return
    parts = read_form(form((field(name.encode(), b'; filename="f"'), content)), TYPE)
    assert [(part.name, part.content) for part in parts.values()] == [(name, content)]


@pytest.mark.parametrize("kind", [None, b"application/json", b"multipart/mixed; boundary=XX"])
def test_another_type_is_refused(kind):
    with pytest.raises(UnsupportedMedia):
        read_form(b"", kind)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX",
        b"--XX\r\n",
        b"--XXY\r\n\r\n--XX--",
        b"--XX\r\nno colon\r\n\r\na\r\n--XX--",
        b"--XX\r\nContent-Type: a\r\n\r\na\r\n--XX--",
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\na',
        b'--XX\r\nContent-Disposition: form-data; name="a\x00"\r\n\r\na\r\n--XX--',
        form(*[(field(b"a%d" % n), b"") for n in range(33)]),
        form((b"X: " + b"a" * 9000 + b"\r\n" + field(b"a"), b"")),
    ],
)
def test_a_form_that_is_damaged_or_too_much_is_refused(body):
    with pytest.raises(BadRequest):
        read_form(body, TYPE)


def test_a_boundary_that_is_missing_is_said():
    with pytest.raises(BadRequest, match="boundary"):
        read_form(b"", b"multipart/form-data")


_PIECES = st.sampled_from([b"--XX", b"--", b"\r\n", b"\r\n\r\n", b'name="a"', b"form-data;", b"Content-Disposition: "])


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=8)), max_size=20).map(b"".join))
def test_no_body_makes_it_fail_in_another_way(body):
    try:
        parts = read_form(body, TYPE)
    except GatewayError:
        return
    assert all(name == part.name for name, part in parts.items())
