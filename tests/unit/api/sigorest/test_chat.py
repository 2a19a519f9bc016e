import json

import msgspec
import pytest

from stellwerk.api._guard import Request
from stellwerk.api.sigorest.chat import Chat, fold_names, with_defaults
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.plan import Model
from tests.port_fakes import ALICE, RecordedExchange

GPT = Model(provider="m", name="gpt-5-mini", id="m/gpt-5-mini", max_output_tokens=4096, temperature=(0.0, 2.0))
GPT = msgspec.structs.replace(GPT, completion_tokens=True)
CLAUDE = Model(provider="m", name="claude", id="m/claude", max_output_tokens=8192, temperature=(0.0, 1.0))
EMBEDDING = Model(provider="m", name="e", id="m/e", temperature=(0.0, 0.0))


def raw(**fields):
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}


def plain(fields):
    return {name: json.loads(bytes(value)) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("model", "given", "sent"),
    [
        (CLAUDE, {}, {"temperature": 0.5, "max_tokens": 8192}),
        (CLAUDE, {"temperature": None, "max_tokens": None}, {"temperature": 0.5, "max_tokens": 8192}),
        (CLAUDE, {"temperature": 0, "max_tokens": 0}, {"temperature": 0, "max_tokens": 8192}),
        (CLAUDE, {"temperature": 1.7, "max_tokens": 10}, {"temperature": 1, "max_tokens": 10}),
        (CLAUDE, {"max_completion_tokens": 7}, {"temperature": 0.5, "max_tokens": 7}),
        (GPT, {}, {"temperature": 1, "max_completion_tokens": 4096}),
        (GPT, {"max_tokens": 9, "temperature": 0.3}, {"temperature": 0.3, "max_completion_tokens": 9}),
        (EMBEDDING, {}, {}),
        (EMBEDDING, {"temperature": 0.9, "max_tokens": 3}, {"temperature": 0.9, "max_tokens": 3}),
    ],
)
def test_what_is_left_out_takes_the_models_own_value_and_what_is_given_is_brought_into_its_range(model, given, sent):
    fields = raw(model="x", seed=7, **given)
    assert plain(with_defaults(fields, model)) == {"model": "x", "seed": 7, **sent}


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"model":"x"}', b"\xff", b"[" * 100_000])
def test_a_body_that_needs_no_change_is_not_touched(body):
    assert fold_names(body) is body


def test_documented_names_are_read_in_any_case_and_others_are_left_alone():
    folded = json.loads(fold_names(b'{"Model":"x","MESSAGES":[],"Session_ID":"s","logitBias":1}'))
    assert folded == {"model": "x", "messages": [], "session_id": "s", "logitBias": 1}


class Conversations:
    async def run(self, call, exchange, session_id):
        self.call, self.session_id = call, session_id


async def ask(body, total=1800.0):
    conversations = Conversations()
    chat = Chat(conversations, {"claude-h": CLAUDE}.get, lambda: total)
    exchange = RecordedExchange(body=json.dumps(body).encode())
    await chat.answer(Request(exchange, "req_1", ALICE))
    return conversations


BODY = {"model": "claude-h", "messages": [{"role": "user", "content": "Hallo"}]}


@pytest.mark.parametrize(
    ("given", "seconds"), [({}, 180), ({"timeout": 0}, 180), ({"timeout": -3}, 180), ({"timeout": 120}, 120)]
)
async def test_a_call_has_three_minutes_when_its_client_does_not_say(given, seconds):
    call = (await ask({**BODY, **given})).call
    assert call.deadline - call.received == seconds


async def test_a_call_never_has_more_time_than_the_gateway_gives():
    call = (await ask({**BODY, "timeout": 9999}, total=600.0)).call
    assert call.deadline - call.received == 600


async def test_the_fields_of_this_api_do_not_go_upstream():
    asked = await ask({**BODY, "Session_Id": "p", "retries": 2, "tools": []})
    assert asked.session_id == "p"
    assert asked.call.attempts == 2
    assert set(asked.call.fields) == {"model", "messages", "tools", "temperature", "max_tokens"}


async def test_a_model_that_is_not_offered_here_is_refused():
    with pytest.raises(NotFound) as caught:
        await ask({**BODY, "model": "nobody"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_further_models_are_only_those_that_are_offered_here():
    assert (await ask({**BODY, "fallbacks": ["claude-h"]})).call.fallbacks == ("claude-h",)
    with pytest.raises(BadRequest) as refused:
        await ask({**BODY, "fallbacks": ["claude-h", "m/claude"]})
    assert refused.value.param == "fallbacks"
