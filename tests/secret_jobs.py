"""What can be done with calls that are put into a queue, each thing right and wrong."""

from tests.gateway_process import wait_until
from tests.secret_journey import WITNESS, Journey

_JOBS = "/api/requests"
_ONE = f"{_JOBS}/{{request_id}}"


async def queue_jobs(journey: Journey) -> None:
    good, bad = journey.good, journey.bad
    queue = f"{WITNESS}/up"
    done = await _begin(journey, f"{WITNESS}/up", "job")
    await good("GET", _ONE, query="?wait=10", request_id=done)
    await good("GET", f"{_ONE}/result", request_id=done)
    journey.shown.answer(f"GET {_ONE}/events", await journey.ask("GET", f"{_JOBS}/{done}/events"))
    journey.done.add(("GET", f"{_ONE}/events"))
    await bad("retry of a job that is done", "POST", f"{_JOBS}/{done}/retry")

    failed = await _begin(journey, f"{WITNESS}/echo-500", "failing job")

    async def has_failed():
        return (await good("GET", _ONE, request_id=failed))["status"] == "dead"

    await wait_until(has_failed)
    await good("POST", f"{_ONE}/retry", request_id=failed)

    await good("POST", "/admin/api/queues/{name}/pause", name=queue.replace("/", "%2F"))
    kept = await _begin(journey, f"{WITNESS}/up", "waiting job")
    await good("DELETE", _ONE, request_id=kept)
    await good("POST", "/admin/api/queues/{name}/resume", name=queue.replace("/", "%2F"))
    await good("GET", _JOBS)
    await good("GET", "/admin/api/queues")


async def _begin(journey: Journey, model: str, name: str) -> str:
    content = {"model": model, "messages": [{"role": "user", "content": journey.secrets.prompt(name)}]}
    answer = await journey.ask("POST", "/v1/chat/completions", content, prefer="respond-async")
    assert answer.status == 202, answer.body
    journey.shown.answer(f"model, {name}", answer)
    return answer.json["id"]
