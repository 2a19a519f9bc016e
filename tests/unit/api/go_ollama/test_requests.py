import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.go_ollama.requests import find_key, read_generate
from stellwerk.core.errors import BadRequest, Unauthenticated
from tests.port_fakes import RecordedExchange

KEY = "sk-sw-canary"
_names = st.sampled_from(
    ["apikey", "ApiKey", "APIKEY", "model", "Model", "prompt", "stream", "images", "raw", "options"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


def key_of(body=b"", *, query=b"", method="POST", **headers):
    given = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return find_key(RecordedExchange(method=method, query=query, body=body, headers=given))


def plain(fields):
    return {name: json.loads(bytes(value)) for name, value in fields.items()}


@pytest.mark.parametrize("name", ["apikey", "apiKey", "APIKEY"])
def test_the_key_of_a_body_is_found_in_any_case(name):
    assert key_of(json.dumps({"prompt": "Hi", name: KEY}).encode()) == KEY


@pytest.mark.parametrize("query", [b"apikey=sk-sw-canary", b"x=1&apikey=sk%2Dsw%2Dcanary&apikey=other"])
def test_the_key_of_a_query_is_found_for_a_look_alone(query):
    assert key_of(method="GET", query=query) == KEY
    assert key_of(method="HEAD", query=query) == KEY
    with pytest.raises(Unauthenticated):
        key_of(b"{}", query=query)


@pytest.mark.parametrize(
    "query", [b"", b"apikey=", b"api_key=x", b"ApiKey=x", b"apikey=%ff", b"&".join([b"a=1"] * 40) + b"&apikey=x"]
)
def test_a_query_without_a_readable_key_has_none(query):
    with pytest.raises(Unauthenticated) as caught:
        key_of(method="GET", query=query)
    assert caught.value.code == "missing_api_key"


@pytest.mark.parametrize("body", [b"{}", b'{"apikey":""}', b'{"apikey":null}', b'{"prompt":"Hi"}'])
def test_a_body_without_a_key_has_none_whatever_the_headers_say(body):
    with pytest.raises(Unauthenticated) as caught:
        key_of(body, authorization=b"Bearer sk-sw-canary", x_api_key=b"sk-sw-canary")
    assert caught.value.code == "missing_api_key"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"nonsense", b'{"apikey":7}', b'{"apikey":["a"]}', b"\xff", b'{"apikey":"\xff"}']
)
def test_a_body_that_cannot_be_read_is_said_to_be_invalid(body):
    with pytest.raises(BadRequest, match="Invalid request body"):
        key_of(body)


def test_only_what_is_documented_is_passed_on():
    sent = {"apikey": KEY, "ApiKey": "2", "model": "m", "prompt": "p", "options": {"num_ctx": 1}, "system": "s"}
    body, fields = read_generate(json.dumps({**sent, "session_id": "x", "keep_alive": 0}).encode())
    assert (body.model, body.prompt, body.streams, body.system) == ("m", "p", False, None)
    assert plain(fields) == {"model": "m", "prompt": "p", "stream": False, "truncate": False}


def test_names_are_read_in_any_case_and_absent_values_are_left_out():
    sent = b'{"MODEL":"m","Prompt":"p","STREAM":true,"Images":[],"raw":null}'
    body, fields = read_generate(sent)
    assert plain(fields) == {"model": "m", "prompt": "p", "stream": True, "truncate": False}
    assert body.streams


def test_images_and_raw_are_passed_on():
    body, fields = read_generate(b'{"model":"m","prompt":"p","images":["QUJD"],"raw":true}')
    assert (body.images, body.raw) == (["QUJD"], True)
    assert plain(fields)["images"] == ["QUJD"]


@pytest.mark.parametrize("field", ['"model":1', '"prompt":[]', '"stream":"yes"', '"images":"x"', '"raw":1'])
def test_a_value_of_another_type_is_an_invalid_body(field):
    with pytest.raises(BadRequest, match=r"^Invalid request body$"):
        read_generate(f'{{"model":"m","prompt":"p",{field}}}'.encode())


def test_a_model_has_to_be_named():
    with pytest.raises(BadRequest, match="model is required"):
        read_generate(b'{"prompt":"p"}')


@given(st.binary() | st.dictionaries(_names, _values).map(lambda fields: json.dumps(fields).encode()))
def test_no_body_brings_anything_but_errors_for_clients_and_the_key_never_comes_through(body):
    try:
        key = key_of(body)
        assert key
        read, fields = read_generate(body)
    except (BadRequest, Unauthenticated):
        pass
    else:
        assert {name.lower() for name in fields} <= {"model", "prompt", "stream", "images", "raw", "truncate"}
        assert isinstance(read.prompt, str)


@given(st.text(min_size=1))
def test_any_text_comes_through_a_query(key):
    try:
        query = f"apikey={quote(key)}".encode()
    except UnicodeEncodeError:
        return
    assert key_of(method="GET", query=query) == key
