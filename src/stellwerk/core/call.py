"""What is asked: one request of a client, parsed, before anybody decides where it goes."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from stellwerk.core.principal import Principal


class Operation(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class Wire(StrEnum):
    """A format in which a request and its answer are written; the same wire on both sides is relayed unparsed."""

    OPENAI_CHAT = "openai.chat"
    OPENAI_COMPLETION = "openai.completion"
    OPENAI_EMBEDDING = "openai.embedding"
    OLLAMA_CHAT = "ollama.chat"
    OLLAMA_GENERATE = "ollama.generate"
    OLLAMA_EMBED = "ollama.embed"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """Request id, `req_` and 24 hexadecimal digits, or the client's own `x-request-id`."""
    operation: Operation
    wire: Wire
    model: str
    """The model as the client named it."""
    fields: Mapping[str, msgspec.Raw]
    """The top level of the body in the order of the client, each value as the client wrote it."""
    principal: Principal
    received: float
    """Monotonic seconds at which the head of the request had arrived."""
    deadline: float
    """Monotonic seconds after which the whole call is given up."""
    stream: bool = False
    wants_usage: bool = False
    """The client asked for the usage chunk at the end of the stream."""
    attempts: int | None = None
    """The most attempts that the client wants; None takes the configured number."""
    peer: str = ""
    """Address of the socket's other end, for logs and limits; never taken from a header."""
