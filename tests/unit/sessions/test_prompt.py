import json

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from stellwerk.sessions.history import Message
from stellwerk.sessions.memory import Memory
from stellwerk.sessions.prompt import compose

CAME = msgspec.Raw(b'[ {"role":"user",  "content":"h\\u00e4"} ]')
PAST = (Message(role="user", content="q"), Message(role="assistant", content="a"))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
arrays = st.builds(
    lambda value, indent, ascii_only, before, after: msgspec.Raw(
        before + json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode() + after
    ),
    st.lists(values, max_size=4),
    st.sampled_from([None, 0, 3]),
    st.booleans(),
    st.sampled_from([b"", b" ", b"\n\t"]),
    st.sampled_from([b"", b" ", b"\r\n"]),
)
memories = st.builds(Memory, content=st.text(), cache=st.booleans())
histories = st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text()), max_size=6)


def composed(memory, history=(), *, anthropic=False, came=CAME):
    return msgspec.json.decode(compose(came, memory, history, anthropic=anthropic))


@given(arrays, memories, histories, st.booleans())
def test_the_request_stands_at_the_end_byte_for_byte(came, memory, history, anthropic):
    raw = bytes(compose(came, memory, history, anthropic=anthropic))
    inner = bytes(came).strip()[1:]
    assert raw.strip().endswith(inner)
    request = msgspec.json.decode(came)
    everything = msgspec.json.decode(raw)
    assert everything[len(everything) - len(request) :] == request
    first = everything[: len(everything) - len(request)]
    past = [{"role": message.role, "content": message.content} for message in history]
    assert first[bool(memory.content) :] == past
    if memory.content:
        assert first[0]["role"] == "system"


def test_with_nothing_to_add_the_request_goes_as_it_came():
    assert compose(CAME, Memory(), (), anthropic=True) is CAME
    assert compose(CAME, Memory(cache=True), (), anthropic=True) is CAME


def test_memory_comes_first_then_history_then_the_request():
    assert composed(Memory(content="be kind"), PAST) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "hä"},
    ]


def test_an_anthropic_model_is_told_what_to_cache():
    memory = Memory(content="be kind", cache=True)
    part = {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}
    assert composed(memory, anthropic=True)[0] == {"role": "system", "content": [part]}


@pytest.mark.parametrize(("cache", "anthropic"), [(True, False), (False, True), (False, False)])
def test_the_others_get_a_plain_text(cache, anthropic):
    first = composed(Memory(content="be kind", cache=cache), anthropic=anthropic)[0]
    assert first == {"role": "system", "content": "be kind"}


def test_the_beginning_stays_the_same_from_call_to_call():
    memory = Memory(content="be kind", cache=True)
    one = bytes(compose(CAME, memory, PAST, anthropic=False))
    other = bytes(compose(msgspec.Raw(b'[{"role":"user","content":"next"}]'), memory, PAST, anthropic=False))
    beginning = one.removesuffix(bytes(CAME)[1:])
    assert beginning.count(b"role") == 3
    assert other.startswith(beginning)


@pytest.mark.parametrize("came", [b"[]", b"[ ]", b" [\n] "])
def test_an_empty_request_gets_no_comma(came):
    assert composed(Memory(content="m"), came=msgspec.Raw(came)) == [{"role": "system", "content": "m"}]


@pytest.mark.parametrize("came", [b"{}", b"null", b"", b'"[]"'])
def test_what_is_no_array_is_refused(came):
    with pytest.raises(ValueError, match="not an array"):
        compose(msgspec.Raw(came), Memory(content="m"), (), anthropic=False)
