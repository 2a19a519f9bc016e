import asyncio
import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import UNKNOWN_OPERATIONS, Operation
from stellwerk.core.errors import UpstreamError
from stellwerk.providers.ollama import Ollama, ollama_address, ollama_shortcode, ollama_shortcodes
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery, Settings, Source
from tests.port_fakes import StillClock

QWEN = {
    "name": "qwen3:8b",
    "model": "qwen3:8b",
    "modified_at": "2026-11-20T12:00:00.123456789+01:00",
    "size": 5_200_000_000,
    "digest": "a" * 64,
    "details": {"format": "gguf", "family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"},
}
QWEN_SHOWN = {
    "capabilities": ["completion", "tools", "thinking"],
    "model_info": {
        "general.architecture": "qwen3",
        "general.parameter_count": 8_190_735_360,
        "qwen3.context_length": 40960,
        "qwen3.embedding_length": 4096,
        "tokenizer.ggml.tokens": None,
    },
    "parameters": 'temperature                    0.6\nstop                           "<|im_end|>"',
}
NOMIC = {"name": "nomic-embed-text:latest", "digest": "b" * 64, "size": 274_000_000, "details": {}}
NOMIC_SHOWN = {
    "model_info": {
        "general.architecture": "nomic-bert",
        "nomic-bert.context_length": 2048,
        "nomic-bert.pooling_type": 1,
    }
}


class OllamaServer:
    """A scripted Ollama on a real socket."""

    def __init__(self):
        self.tags = []
        self.shown = {}
        self.requests = []
        self.at_once = 0
        self.most_at_once = 0
        self.raw_tags = None

    async def handle(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        length = next((int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), 0)
        body = json.loads(await reader.readexactly(length) or "null")
        self.requests.append((method, path, body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        status, answer = self.answer(path, body)
        self.at_once -= 1
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(payload)) + payload)
        await writer.drain()
        writer.close()

    def answer(self, path, body):
        if path == "/api/tags":
            return HTTPStatus.OK, self.raw_tags if self.raw_tags is not None else {"models": self.tags}
        if path == "/api/show" and body["model"] in self.shown:
            return HTTPStatus.OK, self.shown[body["model"]]
        return HTTPStatus.NOT_FOUND, {"error": "model not found"}

    def shows(self):
        return [body["model"] for method, path, body in self.requests if path == "/api/show"]


async def fetch(method, url, body):
    """The least HTTP client that can ask the server above."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    try:
        reader, writer = await asyncio.open_connection(name, int(port))
    except OSError:
        raise UpstreamError("no connection") from None
    writer.write(f"{method} /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body or b'')}\r\n\r\n".encode())
    writer.write(body or b"")
    answer = await reader.read()
    writer.close()
    head, _, payload = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), payload


@pytest.fixture
async def server():
    scripted = OllamaServer()
    listening = await asyncio.start_server(scripted.handle, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    scripted.address = f"http://{host}:{port}"
    async with listening:
        yield scripted


async def test_a_chat_model_is_listed_with_its_facts(server):
    server.tags, server.shown = [QWEN], {"qwen3:8b": QWEN_SHOWN}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert (model.provider, model.name, model.id) == ("ollama", "qwen3:8b", "ollama/qwen3:8b")
    assert model.context_length == 40960
    assert (model.quantization, model.size_bytes, model.local) == ("Q4_K_M", 5_200_000_000, True)
    assert (model.architecture, model.parameter_count) == ("qwen3", 8_190_735_360)
    assert model.embedding_length == 4096
    assert model.created == 1_795_172_400
    assert model.operations == {Operation.CHAT, Operation.COMPLETION}
    assert {"tools", "reasoning_effort", "temperature"} <= set(model.parameters)
    assert model.input_modalities == ("text",)


async def test_a_model_that_sees_takes_images(server):
    server.tags, server.shown = [QWEN], {"qwen3:8b": QWEN_SHOWN | {"capabilities": ["completion", "vision"]}}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert model.input_modalities == ("text", "image")
    assert "tools" not in model.parameters


async def test_a_model_that_hears_takes_sound(server):
    server.tags, server.shown = [QWEN], {"qwen3:8b": QWEN_SHOWN | {"capabilities": ["completion", "audio"]}}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert model.input_modalities == ("text", "audio")


@pytest.mark.parametrize(("shown", "certain"), [(QWEN_SHOWN, True), ({"model_info": {}}, False)])
async def test_what_a_model_takes_is_known_when_ollama_says_what_it_can_do(server, shown, certain):
    server.tags, server.shown = [QWEN], {"qwen3:8b": shown}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert model.certain is certain


async def test_an_embedding_model_does_only_that_also_when_ollama_is_too_old_to_say(server):
    server.tags, server.shown = [NOMIC], {NOMIC["name"]: NOMIC_SHOWN}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert model.operations == {Operation.EMBEDDING, Operation.RERANK}
    assert model.context_length == 2048
    assert (model.parameters, model.created) == ((), 0)


async def test_a_modelfile_may_shorten_the_context(server):
    server.tags, server.shown = [QWEN], {"qwen3:8b": QWEN_SHOWN | {"parameters": "num_ctx   8192\nstop   a b"}}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert model.context_length == 8192


async def test_a_cloud_model_is_not_called_local(server):
    server.tags = [QWEN | {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443", "size": 384}]
    server.shown = {"gpt-oss:120b-cloud": QWEN_SHOWN}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert (model.local, model.size_bytes) == (False, None)


async def test_details_are_asked_once_for_each_digest_and_forgotten_with_the_model(server):
    server.tags, server.shown = [QWEN, NOMIC], {"qwen3:8b": QWEN_SHOWN, NOMIC["name"]: NOMIC_SHOWN}
    ollama = Ollama(fetch, address=server.address)
    first = await ollama.models()
    assert await ollama.models() == first
    assert sorted(server.shows()) == ["nomic-embed-text:latest", "qwen3:8b"]
    server.tags = [QWEN | {"digest": "c" * 64}]
    await ollama.models()
    server.tags = [QWEN]
    await ollama.models()
    assert server.shows()[2:] == ["qwen3:8b", "qwen3:8b"]


async def test_a_model_without_details_stays_in_the_list_and_is_asked_about_again(server):
    server.tags = [QWEN]
    ollama = Ollama(fetch, address=server.address)
    (model,) = await ollama.models()
    assert (model.context_length, model.operations) == (None, UNKNOWN_OPERATIONS)
    server.shown = {"qwen3:8b": QWEN_SHOWN}
    (model,) = await ollama.models()
    assert model.context_length == 40960


async def test_only_a_few_questions_are_asked_at_the_same_time(server):
    server.tags = [QWEN | {"name": f"m{i}", "digest": str(i)} for i in range(40)]
    server.shown = {f"m{i}": QWEN_SHOWN for i in range(40)}
    assert len(await Ollama(fetch, address=server.address).models()) == 40
    assert server.most_at_once <= 4


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"models":[{"size":1}]}', b'{"models":[{"name":"\xff"}]}', b"404 page"]
)
async def test_an_answer_that_is_no_list_is_an_error(server, body):
    server.raw_tags = body
    with pytest.raises(UpstreamError):
        await Ollama(fetch, address=server.address).models()


@pytest.mark.parametrize("body", [b'{"models":null}', b'{"models":[]}', b"{}"])
async def test_an_empty_ollama_offers_nothing(server, body):
    server.raw_tags = body
    assert await Ollama(fetch, address=server.address).models() == []


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        b"[]",
        b'{"model_info":{"general.architecture":{},"general.parameter_count":"8B"}}',
        b'{"model_info":{"general.architecture":"","general.parameter_count":-1}}',
        b'{"capabilities":"tools"}',
    ],
)
async def test_unreadable_details_never_hide_a_model(server, shown):
    server.tags, server.shown = [QWEN], {"qwen3:8b": shown}
    (model,) = await Ollama(fetch, address=server.address).models()
    assert (model.context_length, model.architecture, model.parameter_count) == (None, None, None)


async def test_no_ollama_is_an_upstream_error():
    with pytest.raises(UpstreamError):
        await Ollama(fetch, address="http://127.0.0.1:1").models()


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "http://127.0.0.1:11434"),
        ({"OLLAMA_HOST": ""}, "http://127.0.0.1:11434"),
        ({"OLLAMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11434"),
        ({"OLLAMA_HOST": "0.0.0.0:8090"}, "http://127.0.0.1:8090"),
        ({"OLLAMA_HOST": ":8090"}, "http://127.0.0.1:8090"),
        ({"OLLAMA_HOST": "[::]:8090"}, "http://[::1]:8090"),
        ({"OLLAMA_HOST": "box.lan"}, "http://box.lan:11434"),
        ({"OLLAMA_HOST": "https://box.lan"}, "https://box.lan:443"),
        ({"OLLAMA_HOST": "http://box.lan/"}, "http://box.lan:80"),
        ({"OLLAMA_HOST": '"box.lan:99"'}, "http://box.lan:99"),
        ({"OLLAMA_HOST": "box.lan:port"}, "http://127.0.0.1:11434"),
        ({"OLLAMA_HOST": "a", "OLLAMA_API_BASE": "http://b:1234/v1"}, "http://b:1234"),
        ({"OLLAMA_HOST": "a", "OLLAMA_URL": "http://host.docker.internal:11434"}, "http://host.docker.internal:11434"),
        ({"OLLAMA_URL": "http://a:1", "OLLAMA_API_BASE": "http://b:2"}, "http://b:2"),
    ],
)
def test_the_address_is_read_as_ollama_reads_it(environment, address):
    assert ollama_address(environment) == address


@pytest.mark.parametrize(
    ("tag", "shortcode"),
    [
        ("gemma3:4b", "ollama-gemma3-4b"),
        ("gemma3:12b", "ollama-gemma3-12b"),
        ("qwen3:latest", "ollama-qwen3"),
        ("qwen3:32b", "ollama-qwen3-32b"),
        ("devstral:latest", "ollama-devstral"),
        ("llama3.2-vision:latest", "ollama-llama3.2-vision"),
        ("qwen3", "ollama-qwen3"),
        ("the-latest:8b", "ollama-the-latest-8b"),
        ("hf.co/house/Model-GGUF:Q4_K_M", "ollama-hf.co/house/Model-GGUF-Q4_K_M"),
    ],
)
def test_a_model_has_the_documented_shortcode(tag, shortcode):
    assert ollama_shortcode(tag) == shortcode
    assert ollama_shortcodes([tag]) == {tag: shortcode}


def test_of_two_models_with_the_same_shortcode_one_has_a_longer_one_whatever_their_order():
    clash = ["gemma3:4b", "gemma3-4b:latest", "Gemma3:4b", "gemma3:4b-2"]
    chosen = ollama_shortcodes(clash)
    assert chosen == ollama_shortcodes(reversed(clash)) == {
        "Gemma3:4b": "ollama-Gemma3-4b",
        "gemma3-4b:latest": "ollama-gemma3-4b-latest",
        "gemma3:4b": "ollama-gemma3-4b-3",
        "gemma3:4b-2": "ollama-gemma3-4b-2",
    }  # fmt: skip


@given(st.lists(st.text(alphabet="aA1:-", min_size=1, max_size=6) | st.sampled_from(["a:latest", "a-latest", "a"])))
def test_no_two_shortcodes_are_alike(tags):
    chosen = ollama_shortcodes(tags)
    assert chosen.keys() == set(tags)
    assert len({shortcode.casefold() for shortcode in chosen.values()}) == len(chosen)


class WatchedCatalogue(Catalogue):
    def __init__(self):
        super().__init__()
        self.changed = asyncio.Event()

    def swap(self, snapshot):
        super().swap(snapshot)
        self.changed.set()

    async def leads(self, name, tag):
        """Waits until `name` leads to the model `tag` of the Ollama, or nowhere when that is None."""
        async with asyncio.timeout(30):
            while ((plan := self.plan(name)) and plan.targets[0].model) != tag:
                self.changed.clear()
                await self.changed.wait()


async def test_shortcodes_follow_what_is_installed_without_a_restart(server):
    server.tags = [QWEN | {"name": "gemma3:4b"}, QWEN | {"name": "qwen3:latest"}]
    catalogue = WatchedCatalogue()
    source = Source(lister=Ollama(fetch, address=server.address), open=True, changes_often=True)
    settings = Settings(refresh_seconds=3600, often_seconds=0.01)
    discovery = Discovery(catalogue, clock=StillClock(), sources=[source], settings=settings)
    running = asyncio.create_task(discovery.run())
    await catalogue.leads("ollama-gemma3-4b", "gemma3:4b")
    await catalogue.leads("OLLAMA-Qwen3", "qwen3:latest")
    server.tags = [QWEN | {"name": "llama3.3:latest"}, QWEN | {"name": "qwen3:latest"}]
    await catalogue.leads("ollama-llama3.3", "llama3.3:latest")
    await catalogue.leads("ollama-gemma3-4b", None)
    assert [model.shortcode for model in catalogue.models()] == ["ollama-llama3.3", "ollama-qwen3"]
    assert [model.id for model in catalogue.models()] == ["ollama/llama3.3:latest", "ollama/qwen3:latest"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
