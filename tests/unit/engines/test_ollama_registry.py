import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, Forbidden, NotFound, RateLimited, UpstreamError, UpstreamTimeout
from stellwerk.engines.ollama_registry import OllamaRegistry, parse_library_name
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings
from tests.real_engines import free_ports
from tests.small_registry import MODEL, PROJECTOR, SmallRegistry


class Watch:
    def connected(self): ...

    def reused(self): ...


@pytest.fixture
async def there():
    small = SmallRegistry()
    await small.start()
    yield small
    await small.stop()


@pytest.fixture
def registry(there):
    pools = Pools(UpstreamSettings(), Watch(), SystemClock())
    yield OllamaRegistry(pools, there.url, seconds=60)
    pools.close()


@pytest.mark.parametrize(
    ("text", "repo", "tag", "model_id"),
    [
        ("llama3", "library/llama3", "latest", "llama3"),
        ("llama3:latest", "library/llama3", "latest", "llama3"),
        ("qwen3:0.6b", "library/qwen3", "0.6b", "qwen3-0.6b"),
        ("registry.ollama.ai/library/qwen3:0.6b", "library/qwen3", "0.6b", "qwen3-0.6b"),
        ("https://ollama.com/library/qwen3", "library/qwen3", "latest", "qwen3"),
        ("registry.ollama.ai/ann/mine:v1", "ann/mine", "v1", "ann-mine-v1"),
    ],
)
def test_a_name_is_read_as_ollama_reads_it(text, repo, tag, model_id):
    name = parse_library_name(text)
    assert (name.repo, name.tag, name.model_id) == (repo, tag, model_id)


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "a:b:c", "../x", "a b", "a/b/c", ".x", "a?x", "x" * 90, "é"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(BadRequest, match="invalid model name"):
        parse_library_name(text)


@given(st.text(max_size=120))
def test_whatever_is_named_has_an_id_that_a_file_can_have(text):
    try:
        name = parse_library_name(text)
    except BadRequest:
        return
    assert name.model_id.replace("-", "").replace(".", "").replace("_", "").isalnum()
    assert "/" not in name.tag + name.name + name.namespace


async def test_a_model_and_its_projector_are_chosen(there, registry):
    model, projector, _ = there.add(
        "library/see/1b",
        (MODEL, b"model"),
        (PROJECTOR, b"eyes"),
        ("application/vnd.ollama.image.template", b"{{ .Prompt }}"),
    )
    choice = await registry.choose("see:1b")
    assert (choice.source, choice.repo, choice.model_id, choice.total) == ("ollama", "library/see", "see-1b", 9)
    first, second = choice.files
    assert (first.local, first.sha256, first.size, first.kind) == ("see-1b.gguf", model, 5, "model")
    assert (second.local, second.sha256, second.kind) == ("mmproj-see-1b.gguf", projector, "mmproj")
    assert (
        registry.address(choice.repo, choice.revision, first.name) == f"{there.url}/v2/library/see/blobs/sha256:{model}"
    )


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [("application/vnd.ollama.image.tensor", b"x")],
        [(MODEL, b"a"), (MODEL, b"b")],
        [(MODEL, b"a"), ("application/vnd.ollama.image.adapter", b"b")],
    ],
)
async def test_a_model_that_is_no_single_gguf_file_is_refused(there, registry, layers):
    there.add("library/odd/latest", *layers)
    with pytest.raises(BadRequest, match="only an Ollama can run"):
        await registry.choose("odd")


@pytest.mark.parametrize(
    "manifest",
    [
        b"<html>",
        b"[]",
        b'{"layers":[{"digest":1}]}',
        b'{"layers":[{"mediaType":"%b","digest":"sha256:../../x","size":5}]}' % MODEL.encode(),
        b'{"layers":[{"mediaType":"%b","digest":"sha256:%b","size":0}]}' % (MODEL.encode(), b"a" * 64),
    ],
)
async def test_a_manifest_that_cannot_be_is_refused(there, registry, manifest):
    there.manifests["library/odd/latest"] = manifest
    with pytest.raises(UpstreamError, match="cannot be understood"):
        await registry.choose("odd")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, NotFound, "file does not exist"),
        (403, Forbidden, "refuses"),
        (429, RateLimited, "wait"),
        (500, UpstreamError, "cannot be asked"),
    ],
)
async def test_trouble_is_told_in_ollamas_words(there, registry, status, error, words):
    there.status = status
    with pytest.raises(error, match=words):
        await registry.choose("llama3")


async def test_a_registry_that_says_nothing_is_given_up(there):
    async def silence(talk):
        await talk.left.wait()

    there.server.script = silence
    pools = Pools(UpstreamSettings(), Watch(), SystemClock())
    with pytest.raises(UpstreamTimeout):
        await OllamaRegistry(pools, there.url, seconds=0.1).choose("llama3")
    pools.close()


async def test_a_registry_that_is_not_there_is_an_upstream_error():
    pools = Pools(UpstreamSettings(), Watch(), SystemClock())
    with pytest.raises(UpstreamError) as caught:
        await OllamaRegistry(pools, f"http://127.0.0.1:{free_ports()}").choose("llama3")
    assert caught.value.code == "upstream_unreachable"
    pools.close()
