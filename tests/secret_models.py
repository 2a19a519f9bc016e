"""What can be done with models of one's own, each thing right and wrong: slots, downloads from a hub, system."""

import json
from contextlib import asynccontextmanager

from tests.canaries import Secrets
from tests.gateway_process import wait_until
from tests.raw_http import begin
from tests.secret_journey import WITNESS, Journey
from tests.small_hub import Fault, SmallHub

_SLOTS, _MODELS = "/admin/api/slots", "/admin/api/models"
_REPOSITORY = f"{WITNESS}/tiny-GGUF"


@asynccontextmanager
async def gated_hub(secrets: Secrets, content: bytes):
    """A hub that gives its files to who shows a token, and is asked for them with a right one."""
    hub = SmallHub()
    hub.tokens.add(secrets.chosen_key("hub"))
    # Large enough to be stopped in the middle.
    hub.add(_REPOSITORY, {"fetched-Q4_K_M.gguf": content, "slow-Q8_0.gguf": content + bytes(4 << 20)}, gated=True)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


async def run_own_models(journey: Journey, hub: SmallHub) -> None:
    await _use_slots(journey)
    await _fetch(journey, hub)
    for path in ("system", "crashes", "models/local", "auto-switch", "calls"):
        await journey.good("GET", f"/admin/api/{path}")
    await journey.good("GET", f"{_MODELS}/{{name}}", name="chat")
    await journey.good("GET", "/admin/api/missing-models")
    await journey.good("DELETE", "/admin/api/missing-models")
    await _end_call(journey)


async def _end_call(journey: Journey) -> None:
    content = {
        "model": f"{WITNESS}/silent",
        "messages": [{"role": "user", "content": journey.secrets.prompt("silent")}],
    }
    begun = await begin(journey.gateway.port, journey.key, content)

    async def running():
        return [
            call["id"] for call in await journey.good("GET", "/admin/api/calls") if call["model"].endswith("silent")
        ]

    (call_id,) = await wait_until(running)
    await journey.good("DELETE", "/admin/api/calls/{call_id}", call_id=call_id)
    begun.close()


async def _use_slots(journey: Journey) -> None:
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    # It takes the only slot from the model that has answered before.
    begun = await journey.ask("POST", f"{_SLOTS}/load", {"model": "embedding", "wait": False})
    assert begun.status == 202, begun.body
    await good("POST", f"{_SLOTS}/load", {"model": "embedding"})
    await good("GET", f"{_SLOTS}/loads/{{load_id}}", load_id=begun.json["id"])
    [slot] = await good("GET", _SLOTS)
    await good("POST", f"{_MODELS}/pin", {"model": "embedding", "pinned": False})
    await good("POST", f"{_SLOTS}/{{slot}}/unload", slot=slot["port"])
    for path in (f"/etc/{secrets.chosen_key('folder')}.gguf", f"../{secrets.chosen_key('above')}.gguf"):
        await bad("file outside", "POST", f"{_SLOTS}/load", {"model_path": path})
    # What ran before is there again for what is looked at later.
    await good("POST", f"{_SLOTS}/load", {"model": "chat"})


async def _fetch(journey: Journey, hub: SmallHub) -> None:
    good = journey.good
    download, one = f"{_MODELS}/download", f"{_MODELS}/downloads/{{download_id}}"
    await good("GET", f"{_MODELS}/search", query=f"?q={WITNESS}")
    await good("POST", download, {"repo_id": _REPOSITORY, "filename": "fetched-Q4_K_M.gguf"})
    hub.faults.append(Fault(stop_after=1 << 20))
    begun = await journey.ask("POST", download, {"model": f"{_REPOSITORY}:Q8_0", "wait": False})
    assert begun.status == 202, begun.body
    await hub.stopped.wait()
    paused = await good("POST", f"{one}/pause", download_id=begun.json["id"])
    assert paused["status"] == "paused"
    hub.go_on.set()
    await good("GET", one, download_id=begun.json["id"])
    await good("POST", f"{one}/cancel", download_id=begun.json["id"])
    await good("POST", f"{one}/resume", download_id=begun.json["id"])
    events = journey.shown.answer(
        "download events", await journey.ask("GET", f"{_MODELS}/downloads/{begun.json['id']}/events")
    )
    assert events.status == 200
    assert json.loads(events.body.rpartition(b"data: ")[2])["id"] == begun.json["id"]
    journey.done.add(("GET", f"{one}/events"))
    await good("GET", f"{_MODELS}/downloads")
    await good("POST", f"{_MODELS}/delete", {"model_path": "fetched-Q4_K_M.gguf"})
