import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Wire
from stellwerk.pipeline.image_links import find_image_links, put_in
from stellwerk.providers._engine_requests import check_fields
from tests.port_fakes import make_call

DATA = "data:image/png;base64,AAAA"


def raw(messages: bytes):
    return msgspec.structs.replace(make_call(), fields={"messages": msgspec.Raw(messages)})


def content(*parts, role="user"):
    return {"role": role, "content": list(parts)}


def image(url, **more):
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_links_are_found_where_they_stand_and_counted_with_all_images():
    call = make_call(
        messages=[
            {"role": "system", "content": "https://a/ is no image"},
            content({"type": "text", "text": "?"}, image(DATA), image("https://a/1.png")),
            content({"type": "image_url", "image_url": "HTTP://b/2.png"}, role="tool"),
        ]
    )
    found = [(link.url, link.number, link.place, link.bare) for link in find_image_links(call)]
    assert found == [
        ("https://a/1.png", 2, "messages[1].content[2].image_url", False),
        ("HTTP://b/2.png", 3, "messages[2].content[0].image_url", True),
    ]


@pytest.mark.parametrize(
    "part",
    [
        rb'{"type":"image\u005furl","image\u005furl":{"url":"http://a/"}}',
        rb'{"type":"image_url","\u0069mage_url":{"\u0075rl":"\u0068ttp://a/"}}',
        rb'{"type":"image_url","image_url":{"url":"data:x"},"image_url":{"url":"http:\/\/a\/"}}',
        rb'{"type" : "image_url" , "image_url" : { "url" : "http://a/" } }',
    ],
)
def test_no_spelling_hides_a_link(part):
    call = raw(b'[{"role":"user","content":[%b]}]' % part)
    links = find_image_links(call)
    assert [link.url for link in links] == ["http://a/"]
    check_fields({"messages": put_in(call.fields["messages"], links, {"http://a/": DATA.encode()})})


@pytest.mark.parametrize(
    "messages",
    [
        b"null",
        b"{}",
        b"[[]]",
        b'[{"content":[{"image_url":"http://a/"}]}]',
        b'[{"content":[{"type":"video_url","video_url":{"url":"http://a/"}}]}]',
        b'[{"content":[{"type":"image_url","image_url":{"url":["http://a/"]}}]}]',
        b'[{"content":[{"type":"image_url","image_url":{"url":"ftp://a/"}}]}]',
        b'[{"content":[{"type":"image_url","image_url":{"url":" http://a/"}}]}]',
        b'[{"content":[{"type":"image_url","image_url":"http://a/"}',
        rb'[{"content":[{"type":"image_url","image_url":"http://a/","x":"\ud800"}]}]',
        b'{"image_url":"http://a/' + b"[" * 100_000,
    ],
)
def test_what_is_no_image_at_an_address_is_left_to_whoever_answers(messages):
    assert list(find_image_links(raw(messages))) == []


def test_only_chats_in_openais_words_name_images_by_address():
    call = make_call(messages=[content(image("http://a/"))])
    assert find_image_links(msgspec.structs.replace(call, wire=Wire.OLLAMA_CHAT)) == ()


def test_nothing_but_the_links_is_changed():
    before = (
        b'[{"role":"system", "content":"x"},{"role":"user","name":"a","content":[{"type":"text","text":"\xc3\xbc \\n"},'
        b'{"type":"image_url","image_url":{"detail":"low","url":"http://a/","n":1.00e2},"uuid":12345678901234567890123},'
        b'{"type":"image_url","image_url":"http://b/"},{"type":"image_url","image_url":{"url":"http://a/"}}]}]'
    )
    call = raw(before)
    after = put_in(call.fields["messages"], find_image_links(call), {"http://a/": b"data:A", "http://b/": b"data:B"})
    expected = before.replace(b"http://a/", b"data:A").replace(b"http://b/", b"data:B")
    assert json.loads(bytes(after)) == json.loads(expected)
    assert b"1.00e2" in bytes(after)
    assert b"12345678901234567890123" in bytes(after)


LEAVES = (
    st.none() | st.booleans() | st.text(max_size=8) | st.sampled_from(["http://a/", "image_url", "HTTPS://b", DATA])
)
NAMES = st.sampled_from(["type", "image_url", "url", "content", "role", "x"])


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)))
def test_whatever_comes_what_was_found_is_replaced(messages):
    call = raw(json.dumps(messages).encode())
    links = find_image_links(call)
    after = put_in(call.fields["messages"], links, {link.url: b"data:," for link in links}) if links else None
    if after is not None:
        again = msgspec.structs.replace(call, fields={"messages": after})
        assert list(find_image_links(again)) == []
