import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Wire
from stellwerk.core.plan import Model
from stellwerk.routing.needs import Need, find_needs, lacks
from tests.port_fakes import make_call


def call(**fields):
    return make_call(**fields)


def said(*parts):
    return call(messages=[{"role": "user", "content": list(parts)}])


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        (call(), set()),
        (call(messages=[{"role": "user", "content": 'what is an "image_url" in JSON?'}]), set()),
        (said({"type": "text", "text": "Hi"}), set()),
        (said(IMAGE), {Need.IMAGE}),
        (said({"type": "image_url", "image_url": "https://a/b.png"}), {Need.IMAGE}),
        (said({"type": "image_url", "image_url": {"url": "data:audio/wav;base64,AA=="}}), {Need.AUDIO}),
        (said({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}), {Need.AUDIO}),
        (said(IMAGE, {"type": "audio"}), {Need.IMAGE, Need.AUDIO}),
        (call(tools=[{"type": "function"}]), {Need.TOOLS}),
        (call(tools=[]), set()),
        (call(tools=None), set()),
        (call(tools=[{"type": "function"}], tool_choice="none"), set()),
        (call(messages=[{"role": "user", "content": "Hi", "images": ["AA=="]}]), {Need.IMAGE}),
        (call(messages=[{"role": "user", "content": "Hi", "images": []}]), set()),
        (call(prompt="Hi", images=["AA=="]), {Need.IMAGE}),
    ],
)
def test_what_a_request_needs_is_read_from_its_body(asked, needs):
    assert find_needs(asked) == needs


def test_an_escape_does_not_hide_an_image():
    raw = json.dumps([{"role": "user", "content": [IMAGE]}]).replace('"type"', '"\\u0074ype"').encode()
    asked = msgspec.structs.replace(call(), fields={"messages": msgspec.Raw(raw)}, wire=Wire.OPENAI_CHAT)
    assert find_needs(asked) == {Need.IMAGE}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["type", "content", "images", "image_url", "url"]) | st.text(), inner)
        ),
        max_leaves=20,
    )
)
def test_whatever_the_messages_are_nothing_breaks(messages):
    assert find_needs(call(messages=messages)) <= set(Need)


def model(**facts):
    return Model(provider="local", name="m", id="m", certain=True, context_length=100, **facts)


@pytest.mark.parametrize(
    ("facts", "needs", "tokens", "lack"),
    [
        ({}, set(), 100, None),
        ({}, set(), 101, Need.CONTEXT),
        ({}, {Need.IMAGE}, 0, Need.IMAGE),
        ({"input_modalities": ("text", "image")}, {Need.IMAGE}, 0, None),
        ({"input_modalities": ("text", "image")}, {Need.AUDIO}, 0, Need.AUDIO),
        ({}, {Need.TOOLS}, 0, Need.TOOLS),
        ({"parameters": ("tools",)}, {Need.TOOLS}, 0, None),
    ],
)
def test_a_model_lacks_what_it_is_known_not_to_take(facts, needs, tokens, lack):
    assert lacks(model(**facts), frozenset(needs), tokens) is lack


def test_nothing_is_said_of_a_model_that_nobody_knows_for_sure():
    unsure = msgspec.structs.replace(model(), certain=False)
    assert lacks(unsure, frozenset(Need), 10**9) is None
