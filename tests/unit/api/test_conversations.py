"""Chats with a memory block and a session, against real files."""

import asyncio
import json

import pytest

from stellwerk.api.openai.conversations import Conversations, last_question
from stellwerk.core.errors import BadRequest, UpstreamError
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.sessions.sessions import Sessions
from stellwerk.sessions.store import FileSessions
from tests.gateway_process import wait_until
from tests.port_fakes import Pause, RecordedExchange, StillClock, make_call


class Gateway:
    """Answers what it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked, self.answer, self.pause, self.error = [], "Fine.", None, None

    async def run(self, call, reply):
        # What goes upstream comes from the reply; the estimate of its cost is made from the call.
        assert reply.fields(call.wire) == call.fields
        self.asked.append(json.loads(bytes(reply.fields(call.wire)["messages"])))
        if self.pause is not None:
            await self.pause.wait()
        if self.error is not None:
            raise self.error
        body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": self.answer}}]})
        if reply._transcript is not None:
            reply._transcript.whole(body.encode())
            await reply._keep()


class Site:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.gateway, self.memory = Gateway(), MemoryBlock(folder, StillClock())
        sessions = Sessions(FileSessions(folder / ".sessions"), StillClock())
        self.conversations = Conversations(
            self.gateway,
            sessions,
            self.memory,
            is_anthropic=lambda name: "claude" in name,
            is_local=lambda user_id: user_id == 0,
        )

    async def ask(self, text, session="my-project", model="claude-h"):
        call = make_call(model=model, messages=[{"role": "user", "content": text}])
        await self.conversations.run(call, RecordedExchange(), session)
        return self.gateway.asked[-1]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


async def test_the_next_question_comes_after_what_was_said_before(site):
    await site.ask("One?")
    assert await site.ask("Two?") == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "Two?"},
    ]
    kept = json.loads((site.folder / ".sessions" / "claude-h-my-project.json").read_text())
    assert [message["content"] for message in kept["history"]] == ["One?", "Fine.", "Two?", "Fine."]


async def test_a_removed_file_is_a_new_session(site):
    await site.ask("One?")
    (site.folder / ".sessions" / "claude-h-my-project.json").unlink()
    assert await site.ask("Two?") == [{"role": "user", "content": "Two?"}]


async def test_the_memory_block_goes_first_and_is_marked_for_anthropics_cache_only(site):
    site.memory.replace("Be brief.", True)
    await site.ask("One?")
    first, *_ = await site.ask("Two?")
    assert first["role"] == "system"
    assert first["content"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    first, *_ = await site.ask("Two?", model="gpt41")
    assert first == {"role": "system", "content": "Be brief."}


async def test_without_a_session_there_is_the_memory_block_and_nothing_is_kept(site):
    site.memory.replace("Be brief.", False)
    assert [message["role"] for message in await site.ask("One?", session=None)] == ["system", "user"]
    assert not list((site.folder / ".sessions").glob("**/*.json"))


async def test_a_call_that_fails_leaves_its_session_as_it_was(site):
    site.gateway.error = UpstreamError("Down.")
    with pytest.raises(UpstreamError):
        await site.ask("One?")
    site.gateway.error = None
    assert await site.ask("Two?") == [{"role": "user", "content": "Two?"}]


async def test_calls_of_one_session_come_one_after_the_other(site):
    site.gateway.pause = Pause()
    first = asyncio.ensure_future(site.ask("One?"))
    async with asyncio.timeout(30):
        await site.gateway.pause.reached.wait()
        second = asyncio.ensure_future(site.ask("Two?"))
        other = asyncio.ensure_future(site.ask("Other?", session="another"))
        await wait_until(lambda: len(site.gateway.asked) == 2)
        assert [asked[-1]["content"] for asked in site.gateway.asked] == ["One?", "Other?"]
        site.gateway.pause.go_on.set()
        await asyncio.gather(first, second, other)
    assert [message["content"] for message in site.gateway.asked[-1]] == ["One?", "Fine.", "Two?"]


@pytest.mark.parametrize("session", ["../x", "a/b", ".hidden", "", "x" * 65])
async def test_a_session_id_that_is_a_trick_is_refused_before_anybody_is_asked(site, session):
    with pytest.raises(BadRequest):
        await site.ask("One?", session=session)
    assert site.gateway.asked == []


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ([{"role": "user", "content": "Hi"}], "Hi"),
        ([{"role": "user", "content": "One"}, {"role": "assistant", "content": "x"}], "One"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}]}],
            "See",
        ),
        ([{"role": "system", "content": "Hi"}], ""),
        ([{"role": "user"}], ""),
        ([{"role": "user", "content": [{"type": "text", "text": None}, {"type": "x"}]}], ""),
    ],
)
def test_the_question_is_the_last_text_of_the_user(messages, question):
    assert last_question(make_call(messages=messages).fields["messages"]) == question
