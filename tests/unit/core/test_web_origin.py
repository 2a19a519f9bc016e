import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.web_origin import NotAnOrigin, read_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("HTTPS://App.Example.ORG", "https://app.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://host:80", "https://host:80"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndo", "chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndo"),
        (
            "moz-extension://0d1a2b3c-0000-4000-8000-00000000abcd",
            "moz-extension://0d1a2b3c-0000-4000-8000-00000000abcd",
        ),
        ("app://obsidian.md", "app://obsidian.md"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_an_origin_is_spelled_as_browsers_spell_it(text, origin):
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "origin_form"),
        ("app.example.org", "origin_form"),
        ("localhost:3000", "origin_form"),
        ("https://", "origin_form"),
        ("file://", "origin_form"),
        ("https://user@host", "origin_form"),
        ("https://a b", "origin_form"),
        ("https://bücher.example", "origin_form"),
        ("https://host:0", "origin_form"),
        ("https://host:65536", "origin_form"),
        ("https://host:port", "origin_form"),
        ("https://host:", "origin_form"),
        ("https://[::1", "origin_form"),
        ("https://[1:2]", "origin_form"),
        ("https://host\r\nx: y", "origin_form"),
        (f"https://{'a' * 300}", "origin_form"),
        ("https://host/", "url_path"),
        ("https://host/page?x#y", "url_path"),
        ("https://host\\page", "url_path"),
        ("https://host:443", "origin_port"),
        ("http://host:80", "origin_port"),
        ("null", "origin_null"),
        ("NULL", "origin_null"),
        ("*", "origin_wildcard"),
        ("https://*.example.org", "origin_wildcard"),
        ("http://localhost:*", "origin_wildcard"),
        ("chrome-extension://*", "origin_wildcard"),
    ],
)
def test_what_is_no_origin_says_why(text, code):
    with pytest.raises(NotAnOrigin) as caught:
        read_origin(text)
    assert caught.value.code == code


@given(st.text(alphabet="aA0:/.*[]-\r\n ?#@\\é", max_size=20).map(lambda rest: f"http://{rest}") | st.text(max_size=40))
def test_whatever_is_read_can_stand_in_a_header_and_is_its_own_spelling(text):
    try:
        origin = read_origin(text)
    except NotAnOrigin:
        return
    assert origin.isascii()
    assert origin.isprintable()
    assert " " not in origin
    assert read_origin(origin) == origin
