"""Scripts for the scripted upstream that several test files use."""

from tests.scripted_upstream import Script, Talk


def answering(status: int, body, **headers: str) -> Script:
    async def script(talk: Talk) -> None:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await talk.answer(body, status=status, headers=fields)

    return script


def streaming(*events: dict, done: bool = True) -> Script:
    async def script(talk: Talk) -> None:
        await talk.start_stream()
        for event in events:
            await talk.event(event)
        await talk.finish_stream(done=done)

    return script


def failing(status: int, **headers: str) -> Script:
    return answering(status, {"error": {"message": f"reason {status}", "param": "seed", "code": "why"}}, **headers)
