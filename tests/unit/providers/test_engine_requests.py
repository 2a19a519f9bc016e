import json

import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Model
from stellwerk.providers._engine_requests import check_abilities, check_fields
from tests.port_fakes import make_call

TINY = Model(provider="local", name="tiny", id="tiny", local=True)
DATA = "data:image/png;base64,AAAA"


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], ["a", [1]], [1, "a"]])
def test_several_prompts_are_refused_because_the_engine_counts_only_the_first(prompt):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(Operation.COMPLETION, prompt=prompt).fields)
    assert (caught.value.param, caught.value.code) == ("prompt", "unsupported_parameter")


@pytest.mark.parametrize("prompt", ["a", "[1, 2]", ["a, b"], [1, 2], [[1, 2]], []])
def test_one_prompt_is_taken_in_every_form(prompt):
    check_fields(make_call(Operation.COMPLETION, prompt=prompt).fields)


def picture(url, *, kind="image_url"):
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind, kind: url}]}]


def messages(raw: bytes):
    return {"messages": msgspec.Raw(raw)}


@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/a.png",
        "HTTPS://example.com/a.png",
        "file:///etc/passwd",
        "//example.com/a.png",
        "/etc/passwd",
        " data:image/png;base64,AAAA",
        "",
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_an_engine_is_never_sent_to_fetch_something(kind, url, bare):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(messages=picture(url if bare else {"url": url}, kind=kind)).fields)
    assert (caught.value.param, caught.value.code) == ("messages[0].content", "unsupported_value")


@pytest.mark.parametrize(
    "part",
    [
        rb'{"type":"image\u005furl","image\u005furl":{"url":"http://a/"}}',
        rb'{"type":"image_url","\u0069mage_url":{"\u0075rl":"http://a/"}}',
        rb'{"type":"image_url","image_url":{"url":"data:x"},"image_url":{"url":"http://a/"}}',
        rb'{"type":"image_url","image_url":{"url":"data:x","url":"http:\/\/a\/"}}',
    ],
)
def test_no_spelling_hides_a_link(part):
    with pytest.raises(BadRequest, match="takes nothing from the network"):
        check_fields(messages(b'[{"role":"user","content":[%b]}]' % part))


def test_pictures_in_the_request_itself_and_talk_about_links_pass():
    check_fields(make_call(messages=picture({"url": DATA, "detail": "low"})).fields)
    check_fields(make_call(messages=picture(DATA)).fields)
    check_fields(make_call(messages=[{"role": "user", "content": '"image_url": "http://a/" Grüße'}]).fields)


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\u12"', b"[" * 100_000])
def test_messages_that_cannot_be_read_are_refused(text):
    with pytest.raises(BadRequest) as caught:
        check_fields(messages(rb'[{"content":[{"image_url":"data:","text":"\u0041","x":%b}]}]' % text))
    assert caught.value.param == "messages"


def test_a_model_that_can_is_let():
    able = Model(provider="local", name="m", id="m", parameters=("tools",), input_modalities=("text", "image"))
    fields = make_call(messages=picture(DATA), tool_choice="required").fields
    check_abilities(fields, check_fields(fields), able)


@pytest.mark.parametrize(
    ("part", "sense"),
    [
        (b'{"type":"image_url","image_url":{"url":"data:,"}}', "image"),
        (rb'{"type":"\u0069mage_url","image_url":{"url":"data:,"}}', "image"),
        (b'{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}', "audio"),
    ],
)
def test_a_model_gets_no_pictures_or_sound_that_it_does_not_take(part, sense):
    fields = messages(b'[{"role":"user","content":[%b]}]' % part)
    with pytest.raises(BadRequest, match=f"takes no {sense} input") as caught:
        check_abilities(fields, check_fields(fields), TINY)
    assert (caught.value.param, caught.value.code) == ("messages", "unsupported_value")


@pytest.mark.parametrize(
    "sound",
    [
        {"data": "http://169.254.169.254/latest", "format": "wav"},
        {"data": "file:///etc/passwd"},
        {"data": "HTTPS://example.com/a.wav"},
        {"data": "\thttp://example.com/a.wav"},
        {"data": ""},
        {"data": 7},
        {},
        "http://example.com/a.wav",
    ],
)
def test_sound_is_never_fetched_either(sound):
    with pytest.raises(BadRequest, match="base64") as caught:
        check_fields(make_call(messages=picture(sound, kind="input_audio")).fields)
    assert caught.value.param == "messages[0].content"


@pytest.mark.parametrize(
    "kind", ["input_video", "video_url", "audio_url", "image_embeds", "file", "image", None, 5, []]
)
def test_parts_that_only_some_engine_knows_are_refused(kind):
    part = {"type": kind, "data": "AAAA", "input_video": {"data": "http://a/"}}
    with pytest.raises(BadRequest, match="parts of the types"):
        check_fields(make_call(messages=[{"role": "user", "content": [part]}]).fields)


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_links_are_found_in_the_messages_of_every_role(role):
    talk = [{"role": "user", "content": "x"}, picture("http://a/")[0] | {"role": role}]
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(messages=talk).fields)
    assert caught.value.param == "messages[1].content"


def test_an_image_without_its_url_is_refused():
    with pytest.raises(BadRequest, match="has no URL"):
        check_fields(make_call(messages=picture({"detail": "low"})).fields)


@pytest.mark.parametrize(("operation", "field"), [(Operation.COMPLETION, "prompt"), (Operation.EMBEDDING, "input")])
@pytest.mark.parametrize(
    "texts", [{"prompt_string": "x"}, [{"prompt_string": "x"}], ["a", {"multimodal_data": []}], [[1, {"x": 1}]]]
)
def test_objects_among_texts_are_refused_because_they_are_another_way_to_send_images(operation, field, texts):
    with pytest.raises(BadRequest) as caught:
        check_fields({field: msgspec.Raw(json.dumps(texts).encode())})
    assert caught.value.param == field


@pytest.mark.parametrize("texts", ["a {b}", ["a"], ["{"], [1, 2], [[1, 2], [3]], [], ["[{"]])
def test_texts_and_tokens_to_embed_pass(texts):
    check_fields(make_call(Operation.EMBEDDING, input=texts).fields)


def test_a_temperature_below_zero_is_refused():
    for temperature in (0, 0.5, 2, None):
        check_fields(make_call(temperature=temperature).fields)
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(temperature=-0.5).fields)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("name", ["chat_template", "n_predict", "n_probs", "prompt_embeds", "mm_processor_kwargs"])
def test_fields_that_reach_into_the_engine_are_refused(name):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(**{name: 1}).fields)
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_several_answers_are_refused_because_the_engine_counts_only_one(name):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(**{name: 2}).fields)
    assert caught.value.param == name
    check_fields(make_call(**{name: 1}).fields)
    check_fields(make_call(**{name: None}).fields)


@pytest.mark.parametrize(
    ("name", "asking", "plain"),
    [
        ("functions", [{"name": "f", "parameters": {}}], []),
        ("web_search_options", {}, None),
        ("modalities", ["text", "audio"], ["text"]),
    ],
)
def test_what_an_engine_would_pass_over_in_silence_is_refused(name, asking, plain):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(**{name: asking}).fields)
    assert caught.value.param == name
    check_fields(make_call(**{name: plain}).fields)
