import base64
import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import UNKNOWN_OPERATIONS, Operation, Wire
from stellwerk.core.outcome import Estimate
from stellwerk.pipeline.estimate import LateEstimate, estimate
from tests.port_fakes import make_call

# Each text with the fewest and the most tokens that two generations of one vendor's tokenizers make of it.
TEXTS = {
    "one word": ("hi", 1, 1),
    "English": (
        "The signal box at the junction decides which train may pass, and it never lets two of them meet on the same "
        "track.",
        25,
        25,
    ),
    "German": (
        "Das Stellwerk am Bahnhof entscheidet, welcher Zug fahren darf, und lässt niemals zwei auf dasselbe Gleis; "
        "Geschwindigkeitsbegrenzungen gelten überall.",
        31,
        46,
    ),
    "Chinese": (
        "信号楼决定哪列火车可以通过，绝不会让两列火车在同一条轨道上相遇。今天天气很好，我们去公园散步吧。",
        40,
        57,
    ),
    "Japanese": (
        "信号扱所はどの列車が通過できるかを決めます。同じ線路で二本の列車が出会うことは決してありません。",
        39,
        55,
    ),
    "Korean": ("신호소는 어느 열차가 지나갈 수 있는지 결정하며 두 열차가 같은 선로에서 만나게 하지 않습니다.", 28, 46),
    "Russian": (
        "Пост централизации решает, какой поезд может пройти, и никогда не пускает два поезда на один путь.",
        26,
        43,
    ),
    "Arabic": ("يقرر صندوق الإشارات أي قطار يمكنه المرور، ولا يسمح أبدًا لقطارين بالالتقاء على نفس المسار.", 29, 61),
    "Python": (
        "def settle(self, meter: CallMeter) -> Outcome:\n    price, usage = meter.price, meter.usage\n"
        "    for record in self._recorders:\n        record(meter.outcome(cost))\n    return None\n",
        44,
        45,
    ),
    "indented code": (
        "if (a) {\n                for (;;) {\n                        x[i++] = y;\n                }\n        }\n",
        20,
        20,
    ),
    "JSON": ('{"id":17,"name":"track","open":false,"speeds":[80,120,160],"next":null}', 26, 26),
    "digits": ("3.14159265358979323846264338327950288419716939937510582097494459", 23, 23),
    "hexadecimal digits": ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 35, 35),
    "emoji": ("🚂🚃🚃🚃 👩‍👩‍👧‍👦 🎉🎉", 23, 35),
}
MESSAGE_TOKENS = (3, 7)
"""What a chat template adds for one message and the beginning of the answer."""


def ask(operation=Operation.CHAT, *, ascii_only=False, **fields):
    call = make_call(operation)
    raw = {name: msgspec.Raw(json.dumps(value, ensure_ascii=ascii_only).encode()) for name, value in fields.items()}
    return estimate(msgspec.structs.replace(call, fields={**call.fields, **raw}))


def chat(content, **fields):
    return ask(messages=[{"role": "user", "content": content}], **fields)


def data_url(size, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(b'x' * size).decode()}"


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("language", TEXTS)
def test_the_true_number_of_tokens_lies_between_the_bounds(language, ascii_only):
    text, fewest, most = TEXTS[language]
    for estimated, added in (
        (chat(text, ascii_only=ascii_only), MESSAGE_TOKENS),
        (ask(Operation.COMPLETION, prompt=text, ascii_only=ascii_only), (0, 1)),
        (ask(Operation.EMBEDDING, input=[text], ascii_only=ascii_only), (0, 2)),
    ):
        assert estimated.least_input_tokens <= fewest + added[0]
        assert estimated.input_tokens >= most + added[1]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("language", TEXTS)
def test_the_bounds_hold_for_long_texts_too_and_are_not_far_apart(language, ascii_only):
    text, fewest, most = TEXTS[language]
    estimated = chat("\n".join([text] * 60), ascii_only=ascii_only)
    assert estimated.least_input_tokens <= 60 * fewest + MESSAGE_TOKENS[0]
    assert 60 * most <= estimated.input_tokens <= 60 * (most + 1) * 3 + 100


def test_each_digit_may_be_a_token():
    assert chat("3141592653" * 100).input_tokens >= 1_000 + MESSAGE_TOKENS[1]


def test_messages_and_texts_of_a_list_have_tokens_around_them():
    many = ask(messages=[{"role": "user", "content": "hi"}] * 1000)
    assert many.input_tokens >= 1000 * (1 + 7)
    assert many.least_input_tokens <= 1000 * (1 + 3)
    assert ask(Operation.EMBEDDING, input=["a"] * 1000).input_tokens >= 1000 * 3


def test_a_query_may_be_read_once_with_each_document():
    alone = ask(Operation.RERANK, query="word " * 100, documents=["Hi"])
    many = ask(Operation.RERANK, query="word " * 100, documents=["Hi"] * 50)
    assert many.input_tokens >= 50 * alone.least_input_tokens
    assert many.input_tokens >= 50 * 100
    # An embedding model reads it once.
    assert many.least_input_tokens <= 100 + 50
    assert many.output_tokens == 0


@pytest.mark.parametrize("field", ["tools", "functions", "response_format", "documents", "prediction", "grammar"])
def test_what_stands_beside_the_messages_is_counted_into_the_upper_bound(field):
    extra = [{"type": "function", "function": {"name": "find", "description": "word " * 300}}]
    assert chat("hi", **{field: extra}).input_tokens >= chat("hi").input_tokens + 300
    assert chat("hi", **{field: extra}).least_input_tokens == chat("hi").least_input_tokens


@pytest.mark.parametrize(("operation", "field"), [(Operation.COMPLETION, "prompt"), (Operation.EMBEDDING, "input")])
@pytest.mark.parametrize("ids", [[15339, 1917, 0], [[15339], [1917, 0]]])
def test_token_ids_are_counted_one_by_one(operation, field, ids):
    estimated = ask(operation, **{field: ids})
    assert estimated.least_input_tokens == 3
    assert 3 <= estimated.input_tokens <= 30


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": data_url(300_000), "detail": "high"}},
        {"type": "image_url", "image_url": data_url(300_000, "image/svg+xml")},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"x" * 300_000).decode(), "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(300_000, "application/pdf")}},
        {"type": "image_url", "image_url": {"url": data_url(900)}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ],
)
def test_media_are_not_counted_as_text(part):
    one = chat([{"type": "text", "text": "What is this?"}, part])
    assert 1_600 <= one.input_tokens <= 1_800
    assert one.least_input_tokens <= 25
    assert ask(messages=[{"role": "user", "content": [part] * 5}]).input_tokens >= 5 * 1_600


def test_a_slash_may_be_escaped_in_media():
    raw = json.dumps([{"role": "user", "content": [{"image_url": {"url": data_url(9_000)}}]}]).replace("/", "\\/")
    call = make_call()
    estimated = estimate(msgspec.structs.replace(call, fields={"messages": msgspec.Raw(raw.encode())}))
    assert 1_600 <= estimated.input_tokens <= 1_800


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a" * 100_000},
        {"role": "user", "content": data_url(75_000)},
        {"role": "user", "content": [{"type": "text", "text": data_url(75_000)}]},
        {"role": "user", "content": '"url":"' + "a" * 100_000},
        {"role": "user", "content": '{"data": "' + "a" * 100_000},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a" * 90_000 + " " + "a" * 10_000}}]},
        {"role": "tool", "tool_call_id": "1", "content": base64.b64encode(b"x" * 75_000).decode()},
    ],
)
def test_a_text_cannot_pass_for_media(message):
    estimated = ask(messages=[message])
    assert estimated.input_tokens >= 33_000
    assert estimated.least_input_tokens >= 8_000


def test_a_text_cannot_pass_for_escaped_characters():
    assert chat("\\u" * 30_000).input_tokens >= 30_000
    assert chat("\\uabcd" * 10_000).input_tokens >= 20_000


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_completion_tokens": 100, "max_tokens": 50}, 100),
        ({"max_completion_tokens": None, "max_tokens": 50}, 50),
        ({"max_tokens": 0}, None),
        ({"max_tokens": 1, "n_predict": 500}, 500),
        ({"max_tokens": 1, "n_predict": -1}, None),
        ({"n_predict": 500}, 500),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "n": None}, 100),
        ({"n": 3}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": [1]}, None),
        ({"max_tokens": 100, "n": "x"}, 100),
    ],
)
def test_the_output_is_what_the_client_allows_over_all_choices(fields, output):
    assert chat("hi", **fields).output_tokens == output


def test_answers_without_a_limit_are_counted_all_the_same():
    assert chat("hi", n=3).answers == 3
    assert chat("hi").answers == 1
    assert ask(Operation.COMPLETION, prompt=["a", "b"], n=4).answers == 8


@pytest.mark.parametrize(
    ("prompt", "prompts"), [("a", 1), (["a, [b", '"c"'], 2), ([1, 2, 3], 1), ([[1, 2], [3], [4]], 3)]
)
def test_each_prompt_of_a_completion_is_answered(prompt, prompts):
    assert ask(Operation.COMPLETION, prompt=prompt, max_tokens=10).output_tokens == 10 * prompts
    assert ask(Operation.COMPLETION, prompt=prompt, max_tokens=10, n=2, best_of=4).output_tokens == 40 * prompts


def test_an_embedding_writes_nothing():
    assert ask(Operation.EMBEDDING, input="hi", max_tokens=100).output_tokens == 0


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["url", "data", "text", "content"]), inner),
)


scalars = st.none() | st.integers() | st.text(max_size=3) | st.just([1])


@given(st.sampled_from(sorted(UNKNOWN_OPERATIONS)), anything, scalars, scalars)
def test_any_json_is_estimated(operation, prompt, limit, choices):
    body = dict.fromkeys(("messages", "prompt", "input", "query", "documents"), prompt)
    estimated = ask(operation, **body, max_tokens=limit, n=choices)
    assert 1 <= estimated.least_input_tokens <= estimated.input_tokens
    assert estimated.output_tokens is None or estimated.output_tokens >= 0


def test_pages_are_counted_and_nothing_else_of_a_document():
    estimated = ask(Operation.OCR, pages=[3, 4, 7])
    assert (estimated.pages, estimated.input_tokens, estimated.output_tokens) == (3, 0, 0)


runs = st.sampled_from(["a" * 700, "=" * 511, "1" * 1_300, '"', " ", "\\", "\n", "data:x;base64,", "é", "ok "])


@given(st.lists(runs, max_size=12).map("".join), st.sampled_from(["url", "data", "text"]))
def test_any_long_string_is_estimated(text, key):
    estimated = ask(messages=[{"role": "user", "content": [{key: text}]}])
    assert 1 <= estimated.least_input_tokens <= estimated.input_tokens
    if key == "text":
        assert estimated.input_tokens >= len(text) // 3


def test_a_long_number_is_no_media():
    call = make_call()
    raw = msgspec.Raw(b'[{"role":"user","data":' + b"1" * 5_000 + b"}]")
    estimated = estimate(msgspec.structs.replace(call, fields={"messages": raw}))
    assert estimated.input_tokens >= 5_000


@pytest.mark.parametrize(
    "content",
    [
        "a" * 2_000_000,
        ("a" * 1_100 + " ") * 1_800,
        ("a" * 600 + '"') * 3_300,
        '"url":"' * 280_000,
        "\\u" * 1_000_000,
        "🚂" * 500_000,
        [{"data": "a" * 511}] * 3_900,
    ],
)
def test_two_megabytes_of_anything_take_no_long_time(content):
    raw = msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))
    call = make_call()
    call = msgspec.structs.replace(call, fields={"messages": raw})
    began = time.perf_counter()
    assert isinstance(estimate(call), Estimate)
    assert time.perf_counter() - began < 10


IMAGE = "iVBORw0KGgo" + "A" * 40_000


def ollama(wire, **fields):
    call = make_call(model="m")
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}
    return estimate(msgspec.structs.replace(call, wire=wire, fields=raw))


@pytest.mark.parametrize("images", [1, 3])
def test_images_of_ollamas_clients_do_not_count_as_text(images):
    messages = [{"role": "user", "content": "What is this?", "images": [IMAGE] * images}]
    chat = ollama(Wire.OLLAMA_CHAT, messages=messages)
    generate = ollama(Wire.OLLAMA_GENERATE, prompt="What is this?", images=[IMAGE] * images)
    for each in (chat, generate):
        assert 1_600 * images < each.input_tokens < 1_600 * images + 200
        assert each.least_input_tokens < 20


@pytest.mark.parametrize(
    ("options", "limit"), [({"num_predict": 7}, 7), ({"num_predict": -1}, None), ({"num_predict": 0}, None), ({}, None)]
)
def test_ollamas_clients_limit_their_answers_in_the_options(options, limit):
    assert ollama(Wire.OLLAMA_CHAT, messages=[], options=options).output_tokens == limit
    assert ollama(Wire.OLLAMA_GENERATE, prompt="x", options=options, max_tokens=3).output_tokens == limit


def test_a_long_text_in_a_list_that_is_called_otherwise_counts_as_text():
    assert ollama(Wire.OLLAMA_CHAT, messages=[{"role": "user", "content": [IMAGE]}]).input_tokens > 10_000


def test_a_late_estimate_is_the_estimate_made_once_and_only_when_it_is_looked_at():
    call = make_call(max_tokens=9, n=2)
    late = LateEstimate(call)
    assert late._made is None
    made = estimate(call)
    assert (late.input_tokens, late.output_tokens, late.answers) == (made.input_tokens, 18, 2)
    assert late.make() == made
    assert late.make() is late.make()
