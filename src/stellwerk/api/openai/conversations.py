"""Chats that remember: the memory block and a session's history before the question, the answer into the session."""

from collections.abc import Callable

import msgspec

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Call
from stellwerk.http.exchange import Exchange
from stellwerk.pipeline.gateway import Gateway
from stellwerk.sessions.history import Message
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.sessions.prompt import compose
from stellwerk.sessions.sessions import Sessions
from stellwerk.sessions.transcript import Transcript

_decode_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Asked(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw] | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class Conversations:
    """Runs chat calls in OpenAI's wire that belong to a session, or that carry the memory block."""

    def __init__(
        self,
        gateway: Gateway,
        sessions: Sessions,
        memory: MemoryBlock,
        *,
        is_anthropic: Callable[[str], bool],
        is_local: Callable[[int], bool],
    ) -> None:
        """`is_anthropic` says of a model's name whether its vendor must be told what to cache, `is_local` of a user's
        id whether it is the account whose session files stand at the top of the folder."""
        self._gateway = gateway
        self._sessions = sessions
        self._memory = memory
        self._is_anthropic = is_anthropic
        self._is_local = is_local

    async def run(self, call: Call, exchange: Exchange, session_id: str | None) -> None:
        """As `Gateway.run`. A session is kept when its answer is complete; one call at a time runs in it."""
        if session_id is None:
            call = self._compose(call, ())
            await self._gateway.run(call, OpenAIReply(call, exchange))
            return
        owner = call.principal.user_id
        async with self._sessions.open(
            owner, self._is_local(owner), call.model, session_id, deadline=call.deadline
        ) as session:
            transcript = Transcript()
            asked = last_question(call.fields["messages"])
            call = self._compose(call, session.history)

            async def keep() -> None:
                if transcript.complete and asked:
                    await session.keep(asked, transcript.text)

            await self._gateway.run(call, OpenAIReply(call, exchange, transcript, keep))

    def _compose(self, call: Call, history: tuple[Message, ...]) -> Call:
        memory = self._memory.current()
        if not memory.content and not history:
            return call
        messages = compose(call.fields["messages"], memory, history, anthropic=self._is_anthropic(call.model))
        return msgspec.structs.replace(call, fields={**call.fields, "messages": messages})


def last_question(messages: msgspec.Raw) -> str:
    """The text of the last message of the user; "" when there is none."""
    for raw in reversed(_decode_messages(messages)):
        message = msgspec.json.decode(raw, type=_Asked)
        if message.role == "user":
            return _text(message.content)
    return ""


def _text(content: str | list[msgspec.Raw] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    parts = (msgspec.json.decode(part, type=_Part) for part in content)
    return "\n".join(part.text for part in parts if part.type == "text" and part.text)
