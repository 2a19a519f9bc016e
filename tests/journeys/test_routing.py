"""From a name to an upstream: names, groups, stand-ins and lines, before upstreams that do what a test tells them."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.raw_http import Answer, Exchange, begin, get, hello, post
from tests.scripted_upstream import Received, ScriptedUpstream, Talk, chat, completion
from tests.upstream_scripts import failing

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTED = ("large-chat", "large-code", "tiny-one", "embed-vectors")
CAPABILITIES = {"blind:1b": ["completion"], "seeing:1b": ["completion", "vision"], "vectors:1b": ["embedding"]}
OLLAMA_CHAT = "/api/chat"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PAIR = ["north/pair", "south/pair"]
CONFIG = {
    "models": {
        "everyday": {"targets": ["north/large-chat"]},
        "south/taken": {"targets": ["north/tiny-one"]},
        "by-weight": {"targets": PAIR, "choice": "weighted", "weights": [0, 1]},
        "by-chance": {"targets": PAIR, "choice": "weighted", "weights": [1, 1]},
        "by-load": {"targets": ["north/load", "south/load"], "choice": "least-busy"},
        "by-price": {"targets": ["north/dear", "south/cheap"], "choice": "lowest-cost"},
        "by-time": {"targets": ["north/time", "south/time"], "choice": "lowest-latency"},
    },
    "gates": {
        "north/wide": {"max_concurrent": 2, "max_waiting": 10},
        "north/full": {"max_concurrent": 1, "max_waiting": 1},
        "box/blind:1b": {"max_concurrent": 1, "max_waiting": 0},
        "north/narrow": {"max_concurrent": 1},
        "north/short": {"max_concurrent": 1, "max_wait_seconds": 1},
    },
    "routing": {"capability_fallback": True},
}


async def serve(talk: Talk) -> None:
    """A vendor that lists its models."""
    if talk.request.method == "GET":
        await talk.answer({"object": "list", "data": [{"id": name, "object": "model"} for name in LISTED]})
    else:
        await chat(talk)


async def serve_ollama(talk: Talk) -> None:
    path, body = talk.request.path, talk.request.json if talk.request.method == "POST" else {}
    if path == "/api/tags":
        rows = [{"name": name, "digest": name, "size": 7} for name in CAPABILITIES]
        await talk.answer({"models": rows})
    elif path == "/api/show":
        info = {"general.architecture": "small", "small.context_length": 4096}
        await talk.answer({"capabilities": CAPABILITIES[body["model"]], "model_info": info})
    elif "image" in talk.request.body.decode() and body["model"] == "blind:1b":
        await talk.answer({"error": {"message": "this model is missing data required for image input"}}, status=400)
    elif path == OLLAMA_CHAT:
        await talk.answer({"model": body["model"], "message": {"role": "assistant", "content": "Hi"}, "done": True})
    else:
        await talk.answer(completion(model=body["model"]))


def is_call(request: Received) -> bool:
    """Whether it is not one of the looks at models, which come by themselves, at an Ollama every few seconds."""
    return request.method == "POST" and request.path != "/api/show"


@dataclass
class Held:
    """A script that answers when it is told to, and knows how many waited for that at once."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0

    async def __call__(self, talk: Talk) -> None:
        if not is_call(talk.request):
            # An Ollama that lists nothing would have no models from then on.
            await (serve_ollama if talk.request.path.startswith("/api/") else serve)(talk)
            return
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go_on.wait()
        self.running -= 1
        await (serve_ollama if talk.request.path == OLLAMA_CHAT else chat)(talk)


@dataclass
class Site:
    gateway: GatewayProcess
    north: ScriptedUpstream
    south: ScriptedUpstream
    box: ScriptedUpstream

    def renew(self) -> "Site":
        for server, script in ((self.north, serve), (self.south, serve), (self.box, serve_ollama)):
            server.script = script
            server.requests.clear()
        return self

    async def ask(self, model: str, **more) -> Answer:
        headers = more.pop("headers", {})
        return await post(self.gateway.port, self.gateway.key, hello(model, **more), **headers)

    async def begin(self, model: str, **more) -> Exchange:
        headers = more.pop("headers", {})
        return await begin(self.gateway.port, self.gateway.key, hello(model, **more), **headers)

    async def gate(self, name: str) -> tuple[int, int]:
        """How many calls run there and how many wait."""
        details = (await get(self.gateway.port, self.gateway.key, "/health/details")).json
        found = next((gate for gate in details["gates"] if gate["name"] == name), {"running": 0, "waiting": 0})
        return found["running"], found["waiting"]

    async def until_gate(self, name: str, running: int, waiting: int) -> None:
        async def stands() -> bool:
            return await self.gate(name) == (running, waiting)

        await wait_until(stands)

    async def fill(self, server: ScriptedUpstream, model: str, count: int, gate: str) -> tuple[Held, list[Exchange]]:
        """So many calls of a model that all of them have their turn and no answer."""
        held = Held()
        server.script = held
        begun = [await self.begin(model) for _ in range(count)]
        await self.until_gate(gate, count, 0)
        await wait_until(lambda: held.running == count)
        return held, begun

    async def missing(self) -> list[dict]:
        return (await get(self.gateway.port, self.gateway.key, "/admin/api/missing-models")).json


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory) -> AsyncIterator[Site]:
    servers = ScriptedUpstream(serve), ScriptedUpstream(serve), ScriptedUpstream(serve_ollama)
    for server in servers:
        await server.start()
    north, south, box = servers
    providers = {
        "north": {"base_url": north.url, "api_key": ""},
        "south": {"base_url": south.url, "api_key": ""},
        "box": {"vendor": "ollama", "base_url": box.url},
    }
    folder = tmp_path_factory.mktemp("routing")
    try:
        async with running_gateway(folder, {**CONFIG, "providers": providers}) as gateway:

            async def is_listed() -> bool:
                names = {model["id"] for model in (await get(gateway.port, gateway.key, "/v1/models")).json["data"]}
                return {"north/tiny-one", "south/large-chat", "box/seeing:1b"} <= names

            await wait_until(is_listed)
            yield Site(gateway, *servers)
    finally:
        for server in servers:
            await server.stop()


@pytest.fixture
def site(running: Site) -> Site:
    return running.renew()


def asked(server: ScriptedUpstream) -> list[str]:
    """The models that an upstream was asked for."""
    return [request.json["model"] for request in server.requests if "/chat" in request.path]


# --- names


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("everyday", "north/large-chat"),
        ("north/large-chat", "north/large-chat"),
        ("NORTH/Large-Chat", "north/large-chat"),
        ("north/not-in-any-list", "north/not-in-any-list"),
        ("south/taken", "north/tiny-one"),
        ("ollama-blind-1b", "box/blind:1b"),
        ("blind:1b", "box/blind:1b"),
        ("seein", "box/seeing:1b"),
        ("every", "north/large-chat"),
    ],
)
async def test_every_kind_of_name_leads_to_its_model_and_the_answer_says_which(site, name, answered):
    answer = await site.ask(name)
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, answered)
    assert answer.json["model"] == name
    provider, _, model = answered.partition("/")
    assert asked(getattr(site, provider)) == [model]


async def test_a_stream_says_who_answers_too(site):
    answer = await site.ask("everyday", stream=True)
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, "north/large-chat")


async def test_ollamas_clients_are_told_who_answered(site):
    body = hello("blind:1b", stream=False)
    answer = await post(site.gateway.port, site.gateway.key, body, OLLAMA_CHAT)
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, "box/blind:1b")


@pytest.mark.parametrize("name", ["large", "la", "large-chatt"])
async def test_a_beginning_that_could_mean_several_models_is_refused(site, name):
    answer = await site.ask(name)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert asked(site.north) + asked(site.south) + asked(site.box) == []


async def test_an_unknown_name_is_refused_with_the_nearest_and_kept_for_the_operator(site):
    made = await site.gateway.run("keys", "create", "program")
    key = next(word for word in made.output.split() if word.startswith("sk-sw-"))
    answer = await site.ask("seeing:2b")
    assert (answer.status, answer.error["param"]) == (404, "model")
    assert "seeing:1b" in answer.error["message"]
    for _ in range(3):
        assert (await post(site.gateway.port, key, hello("seeing:2b"))).status == 404

    async def rows() -> list[dict]:
        found = [row for row in await site.missing() if row["name"] == "seeing:2b"]
        return found if sum(row["count"] for row in found) == 4 else []

    found = await wait_until(rows)
    assert Counter({row["key_id"]: row["count"] for row in found}).most_common()[0][1] == 3
    assert len(found) == 2
    assert all("seeing:1b" in row["nearest"] for row in found)


async def test_an_unknown_name_never_reaches_a_model_that_makes_vectors(site):
    for path in ("/v1/embeddings", "/api/embed"):
        body = {"model": "no-such-model-anywhere", "input": "Hello"}
        assert (await post(site.gateway.port, site.gateway.key, body, path)).status == 404
    assert (await site.ask("no-such-model-anywhere")).status == 404
    asked_for = [request for server in (site.north, site.south, site.box) for request in server.requests]
    assert [request for request in asked_for if is_call(request)] == []


# --- groups


async def test_weights_decide_who_answers(site):
    for _ in range(4):
        assert (await site.ask("by-weight")).headers["x-stellwerk-model"] == "south/pair"
    assert asked(site.north) == []


async def test_the_other_target_answers_when_the_chosen_one_fails(site):
    site.south.script = failing(500)
    answer = await site.ask("by-weight")
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, "north/pair")


@pytest.mark.parametrize("more", [{"headers": {"x_session_id": "s1"}}, {"prompt_cache_key": "s2"}])
async def test_the_calls_of_one_session_go_where_the_first_was_answered(site, more):
    for _ in range(12):
        await site.ask("by-chance", **more)
    assert sorted([len(asked(site.north)), len(asked(site.south))]) == [0, 12]


async def test_the_less_busy_target_answers(site):
    held = Held()
    site.north.script = held
    first = await site.begin("by-load")
    await wait_until(lambda: held.running == 1)
    assert (await site.ask("by-load")).headers["x-stellwerk-model"] == "south/load"
    held.go_on.set()
    assert (await first.read()).headers["x-stellwerk-model"] == "north/load"


async def test_the_cheaper_target_answers(site):
    for model, price in (("north/dear", 9), ("south/cheap", 1)):
        body = {"model": model, "input_per_1m": price, "output_per_1m": price}
        assert (await post(site.gateway.port, site.gateway.key, body, "/admin/api/prices")).status == 200

    async def is_cheap() -> bool:
        return (await site.ask("by-price")).headers["x-stellwerk-model"] == "south/cheap"

    await wait_until(is_cheap)


async def test_the_quicker_target_answers_once_both_are_known(site):
    held = Held()
    site.north.script = held
    first = await site.begin("by-time")
    await wait_until(lambda: held.running == 1)
    for _ in range(3):
        assert (await site.ask("south/time")).status == 200
    held.go_on.set()
    assert (await first.read()).headers["x-stellwerk-model"] == "north/time"
    for _ in range(3):
        assert (await site.ask("by-time")).headers["x-stellwerk-model"] == "south/time"


# --- stand-ins


async def test_a_request_names_who_is_tried_when_its_model_fails(site):
    site.north.script = failing(500)
    answer = await site.ask("north/large-chat", fallbacks=["south/large-chat"], seed=7)
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, "south/large-chat")
    [sent] = [request.json for request in site.south.requests if request.method == "POST"]
    assert "fallbacks" not in sent
    assert sent["seed"] == 7


async def test_openrouters_list_of_models_means_the_same_and_stays_here(site):
    site.north.script = failing(500)
    answer = await site.ask("north/large-chat", models=["south/large-chat"])
    assert answer.headers["x-stellwerk-model"] == "south/large-chat"
    assert all("models" not in request.json for request in site.south.requests if is_call(request))


async def test_a_further_model_that_there_is_not_is_refused_under_its_field(site):
    answer = await site.ask("north/large-chat", fallbacks=["no-such-model-anywhere"])
    assert (answer.status, answer.error["param"]) == (400, "fallbacks")
    assert asked(site.north) == []


def picture(model: str) -> dict:
    return hello(model, messages=[{"role": "user", "content": [PICTURE]}])


async def test_another_model_sees_for_one_that_is_blind_and_the_answer_says_so(site):
    answer = await post(site.gateway.port, site.gateway.key, picture("blind:1b"))
    assert (answer.status, answer.headers["x-stellwerk-model"]) == (200, "box/seeing:1b")
    assert answer.headers["x-stellwerk-fallback"] == "box/seeing:1b; reason=image"
    assert asked(site.box) == ["seeing:1b"]


async def test_what_no_model_can_do_is_refused_in_words(site):
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    body = hello("blind:1b", messages=[{"role": "user", "content": [sound]}])
    answer = await post(site.gateway.port, site.gateway.key, body)
    assert (answer.status, answer.error["code"]) == (400, "unsupported_operation")
    assert "takes no sound" in answer.error["message"]
    assert asked(site.box) == []


# --- lines


async def test_no_more_calls_run_than_the_gate_lets_through(site):
    held, begun = await site.fill(site.north, "north/wide", 2, "north/wide")
    begun += [await site.begin("north/wide") for _ in range(4)]
    await site.until_gate("north/wide", 2, 4)
    metrics = (await get(site.gateway.port, site.gateway.key, "/metrics")).body.decode()
    read = {
        (family.name, sample.labels.get("gate")): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert read["stellwerk_gate_running", "north/wide"] == 2
    assert read["stellwerk_gate_waiting", "north/wide"] == 4
    held.go_on.set()
    answers = [await exchange.read() for exchange in begun]
    assert [answer.status for answer in answers] == [200] * 6
    assert held.most == 2
    waited = sorted(answer.headers.get("x-stellwerk-queue-position", "") for answer in answers)
    assert waited == ["", "", "1", "2", "3", "4"]
    await site.until_gate("north/wide", 0, 0)


async def test_who_finds_the_room_full_is_told_when_to_come_back(site):
    held, begun = await site.fill(site.north, "north/full", 1, "north/full")
    begun.append(await site.begin("north/full"))
    await site.until_gate("north/full", 1, 1)
    answer = await site.ask("north/full")
    assert (answer.status, answer.error["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    held.go_on.set()
    assert [(await exchange.read()).status for exchange in begun] == [200, 200]


async def test_ollamas_clients_are_told_in_their_own_words(site):
    held = Held()
    site.box.script = held
    first = await begin(site.gateway.port, site.gateway.key, hello("blind:1b", stream=False), OLLAMA_CHAT)
    await site.until_gate("box/blind:1b", 1, 0)
    answer = await post(site.gateway.port, site.gateway.key, hello("blind:1b"), OLLAMA_CHAT)
    assert answer.status == 503
    assert isinstance(answer.error, str)
    assert int(answer.headers["retry-after"]) >= 1
    held.go_on.set()
    assert (await first.read()).status == 200


async def test_a_further_target_answers_when_the_room_is_full(site):
    held, begun = await site.fill(site.north, "north/full", 1, "north/full")
    begun.append(await site.begin("north/full"))
    await site.until_gate("north/full", 1, 1)
    assert (await site.ask("north/full", fallbacks=["south/x"])).headers["x-stellwerk-model"] == "south/x"
    held.go_on.set()
    assert [(await exchange.read()).status for exchange in begun] == [200, 200]


async def test_who_waits_too_long_is_told_so(site):
    held, [first] = await site.fill(site.north, "north/short", 1, "north/short")
    answer = await site.ask("north/short")
    assert (answer.status, answer.error["code"]) == (503, "queue_timeout")
    held.go_on.set()
    assert (await first.read()).status == 200


async def test_the_more_urgent_call_goes_first(site):
    held, begun = await site.fill(site.north, "north/narrow", 1, "north/narrow")
    for waiting, priority in enumerate(("low", "normal", "high"), start=1):
        begun.append(await site.begin("north/narrow", user=priority, headers={"x_stellwerk_priority": priority}))
        await site.until_gate("north/narrow", 1, waiting)
    held.go_on.set()
    assert [(await exchange.read()).status for exchange in begun] == [200] * 4
    served = [request.json.get("user") for request in site.north.requests if request.method == "POST"]
    assert served == [None, "high", "normal", "low"]


async def test_a_client_that_leaves_the_line_keeps_no_place_in_it(site):
    held, [first] = await site.fill(site.north, "north/narrow", 1, "north/narrow")
    leaving = await site.begin("north/narrow", user="leaving")
    await site.until_gate("north/narrow", 1, 1)
    staying = await site.begin("north/narrow", user="staying")
    await site.until_gate("north/narrow", 1, 2)
    leaving.close()
    await site.until_gate("north/narrow", 1, 1)
    held.go_on.set()
    assert [(await exchange.read()).status for exchange in (first, staying)] == [200, 200]
    served = [request.json.get("user") for request in site.north.requests if request.method == "POST"]
    assert served == [None, "staying"]


async def test_another_word_for_a_priority_is_refused(site):
    answer = await site.ask("everyday", headers={"x_stellwerk_priority": "urgent"})
    assert (answer.status, answer.error["param"]) == (400, "x-stellwerk-priority")


# --- switched off: last, because the config stays so


async def test_what_is_switched_off_is_refused_after_the_next_look_at_the_config(site):
    changed = json.loads(site.gateway.config.read_text())
    changed["routing"] = {"capability_fallback": False, "request_fallbacks": False, "prefixes": False}
    site.gateway.write_config(changed)
    site.gateway.signal(signal.SIGHUP)

    async def is_off() -> bool:
        return (await site.ask("north/large-chat", fallbacks=["south/large-chat"])).status == 400

    await wait_until(is_off)
    answer = await post(site.gateway.port, site.gateway.key, picture("blind:1b"))
    assert (answer.status, "image input" in answer.error["message"]) == (400, True)
    assert "x-stellwerk-fallback" not in answer.headers

    async def is_whole() -> bool:
        return (await site.ask("seein")).status == 404

    await wait_until(is_whole)
