import pytest

from stellwerk.core.errors import NotFound, UpstreamBroken, UpstreamError, UpstreamRefused

DIGEST = "ab" * 32
NOTHING_TO_FETCH = ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]


@pytest.fixture
def changes(download):
    """A download from its beginning to its end."""
    return [
        download((0, 0), state="queued"),
        download((40, 0)),
        download((40, 0)),
        download((100, 3)),
        download((100, 10)),
        download((100, 10), state="verifying"),
        download((100, 10), state="done"),
    ]


@pytest.mark.parametrize("field", ["model", "name"])
async def test_the_way_of_a_download_is_told_line_by_line(site, changes, field):
    site.source.changes = changes
    lines = await site.lines("/api/pull", {field: "u/r"}, key=b"admin")
    layer = {"status": "pulling abababababab", "digest": f"sha256:{DIGEST}"}
    assert lines == [
        {"status": "pulling manifest"},
        {**layer, "total": 100},
        {**layer, "total": 100, "completed": 40},
        {**layer, "total": 100, "completed": 100},
        {**layer, "total": 10, "completed": 3},
        {**layer, "total": 10, "completed": 10},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    assert (site.source.begun, site.source.followers, site.remote.asked) == (["u/r"], 0, [])


async def test_without_a_stream_only_the_end_is_told(site, changes):
    site.source.changes = changes
    exchange = await site.ask("/api/pull", {"model": "u/r", "stream": False}, key=b"admin")
    assert (exchange.status, exchange.json) == (200, {"status": "success"})


async def test_a_model_that_is_here_already_is_told_as_a_whole(site, download):
    site.source.changes = [download((100, 10), state="done")]
    statuses = [line["status"] for line in await site.lines("/api/pull", {"model": "u/r"}, key=b"admin")]
    assert statuses == ["pulling manifest", *["pulling abababababab"] * 2, *NOTHING_TO_FETCH[1:]]


async def test_a_file_without_a_checksum_goes_by_its_name(site, download):
    site.source.changes = [download((100, 10), state="done", sha256=None)]
    lines = await site.lines("/api/pull", {"model": "u/r"}, key=b"admin")
    assert lines[1] == {"status": "pulling m.gguf", "total": 100, "completed": 100}


async def test_what_fails_before_the_first_line_has_a_status(site):
    site.source.refusal = NotFound("The hub has no such repository.")
    for stream in (True, False):
        exchange = await site.ask("/api/pull", {"model": "u/r", "stream": stream}, key=b"admin")
        assert (exchange.status, exchange.json) == (404, {"error": "The hub has no such repository."})


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"state": "failed", "error": "The disk is full."}, "The disk is full."),
        ({"state": "paused"}, "The download was paused."),
        ({"state": "cancelled"}, "The download was cancelled."),
        (None, "The gateway is shutting down; pull again to go on."),
    ],
)
async def test_what_fails_later_is_the_last_line(site, download, end, words):
    site.source.changes = [download((5, 0)), *([] if end is None else [download((5, 0), **end)])]
    lines = await site.lines("/api/pull", {"model": "u/r"}, key=b"admin")
    assert lines[-1] == {"error": words}
    exchange = await site.ask("/api/pull", {"model": "u/r", "stream": False}, key=b"admin")
    assert exchange.status >= 400
    assert exchange.json == {"error": words}


@pytest.mark.parametrize(
    ("name", "key"), [("tiny", b"alice"), ("house/up", b"bob"), ("qwen3", b"alice"), ("fast", b"admin")]
)
async def test_of_what_is_here_there_is_nothing_to_fetch(site, name, key):
    assert [line["status"] for line in await site.lines("/api/pull", {"model": name}, key=key)] == NOTHING_TO_FETCH
    assert (await site.ask("/api/pull", {"model": name, "stream": False}, key=key)).json == {"status": "success"}
    assert (site.source.begun, site.remote.asked) == ([], [])


@pytest.mark.parametrize(("name", "key"), [("u/r", b"alice"), ("llama3", b"alice"), ("tiny", b"bob")])
async def test_only_an_admin_brings_new_models(site, name, key):
    exchange = await site.ask("/api/pull", {"model": name}, key=key)
    assert (exchange.status, list(exchange.json)) == (403, ["error"])
    assert (site.source.begun, site.remote.asked) == ([], [])


@pytest.mark.parametrize(
    ("asked", "there"),
    [("llama3", "llama3"), ("ollama/u/m:7b", "u/m:7b"), ("qwen3", "qwen3:latest"), ("ollama/qwen3", "qwen3:latest")],
)
async def test_an_ollama_pulls_what_is_its_own_or_nobodys(site, asked, there):
    site.remote.pieces = [b'{"status":"pulling mani', b'fest"}\n\n{"status":"success"}']
    lines = await site.lines("/api/pull", {"model": asked, "insecure": True}, key=b"admin")
    assert lines == [{"status": "pulling manifest"}, {"status": "success"}]
    assert site.remote.asked == [("POST", "/api/pull", {"model": there, "stream": True})]
    assert (site.refreshed, site.source.begun) == (["ollama"], [])
    assert site.remote.answers[0].aborted


async def test_an_ollama_without_a_stream_is_waited_for(site):
    site.remote.pieces = [b'{"status":"pulling manifest"}\n', b'{"status":"success"}\n']
    exchange = await site.ask("/api/pull", {"model": "llama3", "stream": False}, key=b"admin")
    assert (exchange.status, exchange.json) == (200, {"status": "success"})


@pytest.mark.parametrize(
    ("said", "status"), [("pull model manifest: file does not exist", 404), ("no space left on device", 502)]
)
async def test_an_ollamas_first_error_has_a_status(site, said, status):
    site.remote.pieces = [b'{"error":"%b"}\n' % said.encode()]
    exchange = await site.ask("/api/pull", {"model": "llama3"}, key=b"admin")
    assert (exchange.status, exchange.json) == (status, {"error": said})
    assert site.refreshed == []


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (b'{"error":"no, the-secret-of-it"}\n', "no, ***"),
        (UpstreamBroken("It broke off."), "It broke off."),
        (b"<html>\n", "The upstream sent a line that cannot be read."),
        (b"x" * 2000, "The upstream sent a line that is too large."),
    ],
)
async def test_an_ollamas_later_error_is_the_last_line(site, piece, words):
    site.remote.pieces = [b'{"status":"pulling manifest"}\n', piece]
    lines = await site.lines("/api/pull", {"model": "llama3"}, key=b"admin")
    assert lines[-1] == {"error": words}


async def test_without_an_ollama_its_library_is_asked_from_here(site, changes):
    site.remote.refusal = UpstreamError("Nobody is there.", code="upstream_unreachable")
    site.source.changes = changes
    assert (await site.lines("/api/pull", {"model": "llama3:8b"}, key=b"admin"))[-1] == {"status": "success"}
    assert site.source.begun == ["llama3:8b"]
    exchange = await site.ask("/api/pull", {"model": "ollama/llama3:8b"}, key=b"admin")
    assert exchange.status == 502
    assert site.source.begun == ["llama3:8b"]


async def test_an_ollama_that_refuses_is_believed(site):
    site.remote.refusal = UpstreamRefused("It may not.")
    assert (await site.ask("/api/pull", {"model": "llama3"}, key=b"admin")).status == 502
    assert site.source.begun == []


async def test_a_gateway_without_models_of_its_own_leaves_it_to_an_ollama(site_without_engines):
    site = site_without_engines
    assert (await site.lines("/api/pull", {"model": "hf.co/u/r"}, key=b"admin")) == [{"status": "success"}]
    site.remote.refusal = UpstreamError("Nobody is there.", code="upstream_unreachable")
    assert (await site.ask("/api/pull", {"model": "hf.co/u/r"}, key=b"admin")).status == 502


async def test_a_pull_needs_a_name(site):
    for body in ({}, {"model": " "}):
        exchange = await site.ask("/api/pull", body, method="POST", key=b"admin")
        assert (exchange.status, exchange.json) == (400, {"error": "model is required"})
