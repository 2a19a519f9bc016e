"""What models answer, as this package hands it out. Fields that are not named here are left out."""

from typing import Any

import msgspec

from stellwerk.client.errors import NotUnderstood, StellwerkError, refusal_in_stream


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Message(msgspec.Struct, frozen=True):
    role: str = "assistant"
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, frozen=True):
    message: Message
    index: int = 0
    finish_reason: str | None = None


class Chat(msgspec.Struct, frozen=True):
    """A whole answer."""

    choices: list[Choice]
    id: str = ""
    model: str = ""
    created: int = 0
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """Of the first choice; empty when it is a call of tools."""
        return (self.choices[0].message.content or "") if self.choices else ""


class Delta(msgspec.Struct, frozen=True):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChoicePiece(msgspec.Struct, frozen=True):
    delta: Delta = Delta()
    index: int = 0
    finish_reason: str | None = None


class ChatPiece(msgspec.Struct, frozen=True):
    """One piece of an answer that is streamed."""

    choices: list[ChoicePiece] = []
    id: str = ""
    model: str = ""
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """What it adds to the first choice."""
        return "".join(choice.delta.content or "" for choice in self.choices if choice.index == 0)


class Embedding(msgspec.Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class Embeddings(msgspec.Struct, frozen=True):
    data: list[Embedding]
    model: str = ""
    usage: Usage | None = None

    @property
    def vectors(self) -> list[list[float]]:
        """In the order of the texts."""
        return [each.embedding for each in sorted(self.data, key=lambda each: each.index)]


class Ranked(msgspec.Struct, frozen=True):
    index: int
    """Place of the document among those that were sent, from 0."""
    relevance_score: float


class Ranking(msgspec.Struct, frozen=True):
    results: list[Ranked]
    """The best first."""


class ModelFacts(msgspec.Struct, frozen=True):
    provider: str = ""
    local: bool = False
    operations: list[str] = []


class Model(msgspec.Struct, frozen=True, rename={"facts": "x_stellwerk"}):
    id: str
    owned_by: str = ""
    context_length: int | None = None
    facts: ModelFacts = ModelFacts()


class ModelList(msgspec.Struct, frozen=True):
    data: list[Model]


class File(msgspec.Struct, frozen=True):
    """An upload. Times are Unix seconds."""

    id: str
    filename: str = ""
    bytes: int = 0
    purpose: str = ""
    created_at: int = 0
    expires_at: int | None = None


class FileList(msgspec.Struct, frozen=True):
    data: list[File]


class BatchCounts(msgspec.Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(msgspec.Struct, frozen=True):
    """Many requests in one file. Times are Unix seconds."""

    id: str
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int = 0
    completed_at: int | None = None
    request_counts: BatchCounts | None = None
    metadata: dict[str, str] | None = None


class BatchList(msgspec.Struct, frozen=True):
    data: list[Batch]


_chat_piece = msgspec.json.Decoder(ChatPiece).decode
_failure = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_chat_piece(data: str) -> ChatPiece | None:
    """The piece in one event; None for the one that says that the answer is complete.

    Raises Refused for an error that came in place of the rest.
    """
    if data.strip() == "[DONE]":
        return None
    try:
        fields = _failure(data)
        if "error" in fields:
            raise refusal_in_stream(msgspec.json.decode(fields["error"]))
        return _chat_piece(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise not_understood() from None


def not_understood() -> StellwerkError:
    return NotUnderstood("The gateway's answer cannot be understood.")
