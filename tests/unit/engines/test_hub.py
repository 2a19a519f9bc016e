import asyncio

import pytest

from stellwerk.core.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.secrets import Secret
from stellwerk.engines.hub import Hub
from tests.real_engines import free_ports
from tests.small_hub import COMMIT, SmallHub


@pytest.fixture
async def small_hub():
    hub = SmallHub()
    await hub.start()
    yield hub
    await hub.stop()


def authorizations(small_hub):
    return {request.headers.get("authorization") for request in small_hub.hub.requests}


async def test_a_search_finds_models_with_the_most_downloaded_first(small_hub):
    small_hub.add("u/tiny-GGUF", {"tiny-Q4_0.gguf": b"x", "README.md": b"r"}, downloads=5, likes=3)
    small_hub.add("u/tiny-2-GGUF", {"a.gguf": b"x", "mmproj-F16.gguf": b"x"}, downloads=50, gated=True)
    small_hub.add("u/other", {"b.gguf": b"x"})
    found = await Hub(small_hub.url).search("tiny")
    assert [(model.repo, model.downloads, model.likes, model.gated) for model in found] == [
        ("u/tiny-2-GGUF", 50, 1, True),
        ("u/tiny-GGUF", 5, 3, False),
    ]
    assert [(file.name, file.kind) for file in found[0].files] == [("a.gguf", "model"), ("mmproj-F16.gguf", "mmproj")]
    assert [file.name for file in found[1].files] == ["tiny-Q4_0.gguf"]
    assert len(await Hub(small_hub.url).search("tiny", limit=1)) == 1
    assert "filter=gguf" in small_hub.hub.requests[0].path


async def test_only_the_hub_that_is_configured_is_asked(small_hub):
    await Hub(small_hub.url).search("tiny")
    assert [request.path.partition("?")[0] for request in small_hub.hub.requests] == ["/api/models"]


async def test_the_files_of_a_repository_have_sizes_and_checksums(small_hub):
    small_hub.add("u/r", {"a.gguf": b"12345", "README.md": b"r"}, sums={"README.md": "none"})
    gguf, readme = await Hub(small_hub.url).files("u/r")
    assert (gguf.size, gguf.kind) == (5, "model")
    assert gguf.sha256 == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert (readme.size, readme.sha256, readme.kind) == (1, None, "other")


async def test_a_choice_is_bound_to_one_revision(small_hub):
    small_hub.add("u/r", {"m-Q4_K_M.gguf": b"1234", "m-Q8_0.gguf": b"12345678"})
    hub = Hub(small_hub.url)
    choice = await hub.choose("hf.co/u/r")
    assert (choice.repo, choice.revision, choice.model_id, choice.total) == ("u/r", COMMIT, "m-Q4_K_M", 4)
    assert (await hub.choose("u/r", "m-Q8_0.gguf")).total == 8
    assert (await hub.choose(f"{small_hub.url}/u/r:Q8_0")).total == 8
    assert hub.address("u/r", COMMIT, "a b.gguf") == f"{small_hub.url}/u/r/resolve/{COMMIT}/a%20b.gguf"


async def test_what_the_hub_does_not_have_is_not_found(small_hub):
    small_hub.add("u/r", {"m.gguf": b"1234"})
    hub = Hub(small_hub.url)
    for reference in ("u/unknown", "u/r:Q8_0", "u/r/x.gguf", "u/r/blob/nothing/m.gguf"):
        with pytest.raises(NotFound):
            await hub.choose(reference)
    with pytest.raises(BadRequest):
        await hub.choose("nonsense")
    with pytest.raises(BadRequest):
        await hub.files("../../x")
    with pytest.raises(BadRequest):
        await hub.search("")


async def test_a_gated_model_needs_a_token_that_opens_it(small_hub):
    small_hub.add("u/gated", {"m.gguf": b"1234"}, gated=True)
    small_hub.tokens.add("hf_right")
    for token in (None, Secret("hf_wrong")):
        with pytest.raises(Forbidden, match="accept its conditions"):
            await Hub(small_hub.url, token).choose("u/gated")
    assert authorizations(small_hub) == {None, "Bearer hf_wrong"}
    assert (await Hub(small_hub.url, Secret("hf_right")).choose("u/gated")).total == 4


@pytest.mark.parametrize(("status", "error"), [(500, UpstreamError), (401, Forbidden), (403, Forbidden)])
async def test_trouble_at_the_hub_is_told_without_its_address(small_hub, status, error):
    small_hub.broken = status
    with pytest.raises(error) as caught:
        await Hub(small_hub.url).files("u/r")
    assert "127.0.0.1" not in caught.value.message


async def test_a_hub_that_asks_to_wait_is_a_rate_limit(small_hub):
    small_hub.broken = 429
    with pytest.raises(RateLimited):
        await Hub(small_hub.url).files("u/r")


async def test_a_hub_that_is_not_there_is_an_upstream_error(free_port):
    with pytest.raises(UpstreamError):
        await Hub(f"http://127.0.0.1:{free_port}").files("u/r")


async def test_a_search_asks_once_and_tells_at_once_what_is_wrong(small_hub, free_port):
    with pytest.raises(UpstreamError) as refused:
        await Hub(f"http://127.0.0.1:{free_port}", seconds=60.0).search("tiny")
    assert refused.value.code == "upstream_unreachable"
    small_hub.broken = 503
    with pytest.raises(UpstreamError):
        await Hub(small_hub.url, seconds=60.0).search("tiny")
    assert len(small_hub.hub.requests) == 1


async def test_a_hub_that_answers_nonsense_is_an_upstream_error(small_hub):
    async def nonsense(talk):
        await talk.answer(b'{"siblings": [{"lfs": {"size": 1}}]}' if "revision" in talk.request.path else b"<html>")

    small_hub.hub.script = nonsense
    for revision in (None, "main"):
        with pytest.raises(UpstreamError):
            await Hub(small_hub.url).files("u/r", revision)


async def test_a_hub_that_says_nothing_is_given_up(small_hub):
    async def silence(talk):
        await talk.left.wait()

    small_hub.hub.script = silence
    hub = Hub(small_hub.url, seconds=0.2)
    answers = await asyncio.gather(hub.files("u/r"), hub.files("u/r"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [UpstreamTimeout, UpstreamTimeout]


@pytest.fixture
def free_port():
    return free_ports()
