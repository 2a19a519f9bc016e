"""One gateway is told many secrets in every way there is; none of them may stand anywhere in clear afterwards."""

import shutil

import pytest
import pytest_asyncio

from tests.canaries import Canary, Secrets, search
from tests.gateway_process import ADMIN_KEY, running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.secret_journey import WITNESS, behave, config_of, piped
from tests.secret_models import gated_hub
from tests.secret_steps import make_journey

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream():
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def journey(tmp_path_factory, tiny_models, upstream):
    folder = tmp_path_factory.mktemp(WITNESS)
    secrets = Secrets()
    secrets.add("admin key", ADMIN_KEY)
    upstream.script = lambda talk: behave(talk, secrets)
    vendor_key, team = secrets.chosen_key("vendor"), secrets.chosen_key("team")
    models = shutil.copytree(tiny_models, folder / "models")
    config = config_of(upstream, models, secrets.chosen_key("unreachable"))
    variables = {"VENDOR_KEY": vendor_key, "TEAM_KEY": team}
    async with gated_hub(secrets, (models / "chat.gguf").read_bytes()) as hub:
        config |= {"hub": {"endpoint": hub.url}}
        variables |= {"HF_TOKEN": next(iter(hub.tokens))}
        with piped(folder) as redirection:
            async with running_gateway(folder, config, environment=variables, redirection=redirection) as gateway:
                journey = await make_journey(gateway, secrets, config, hub)
    # Only now everything is in the log.
    journey.shown.keep("log", gateway.log.encode())
    journey.shown.keep("standard output", gateway.output.encode())
    return journey


async def test_every_endpoint_was_used_well_and_badly(journey):
    routes = {f"{method} {path}": operation for method, path, operation in journey.operations}
    assert set(routes) <= {f"{method} {path}" for method, path in journey.done}
    refused = {place.partition("error of wrong ")[2] for place in journey.shown.places}
    # What everybody may read cannot be asked for badly.
    public = {name for name, one in routes.items() if one.get("x-roles") == [] and name.startswith("GET ")}
    assert set(routes) - public <= refused


async def test_no_secret_and_no_prompt_stands_anywhere_in_clear(journey):
    assert len(journey.secrets.all) > 80
    hits = search(journey.shown.places, journey.secrets.all)
    assert not hits, "\n".join(map(str, hits))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("error of", "invalid_request_error"),
        ("standard output", " answers on http://"),
        *(
            (place, WITNESS)
            for place in (
                "answer of",
                "command",
                "log",
                "/metrics",
                "/health/details",
                "file stellwerk.db",
                "file stellwerk.db-wal",
                "file stellwerk.db after",
                "process",
            )
        ),
    ],
)
async def test_every_kind_of_place_was_searched(journey, place, text):
    places = {name: content for name, content in journey.shown.places.items() if name.startswith(place)}
    assert search(places, [Canary("witness", text)])


async def test_what_some_may_see_was_found_where_they_see_it(journey):
    found: dict[str, set[str]] = {}
    for canary in journey.secrets.all:
        if canary.allowed:
            seen = search(journey.shown.places, [Canary(canary.name, canary.text)])
            found.setdefault(canary.name, set()).update(hit.place for hit in seen)
    assert "answer of model, chat" in found["answer of the upstream"]
    assert "answer of GET /v1/responses/{response_id}" in found["answer of the upstream"]
    later = {"answer of GET /api/requests/{request_id}", "answer of GET /v1/files/{file_id}/content"}
    assert later <= found["streamed answer of the upstream"]
    assert found["line 0"] == {"answer of GET /v1/files/{file_id}/content"}
    assert {"answer of GET /admin/api/signups", "file stellwerk.db after the end"} <= found["message 0"]
    assert "error of a key as a path" in found["key as a path"]
