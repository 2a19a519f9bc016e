"""What is asked: one request of a client, parsed, before anybody decides where it goes."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from stellwerk.core.principal import Principal, Priority


class Operation(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    OCR = "ocr"


UNKNOWN_OPERATIONS = frozenset(Operation) - {Operation.OCR}
"""What may be asked of a model of which nothing is known: models that see read pages in a chat."""


class Wire(StrEnum):
    """A format in which a request and its answer are written; the same wire on both sides is relayed unparsed."""

    OPENAI_CHAT = "openai.chat"
    OPENAI_COMPLETION = "openai.completion"
    OPENAI_EMBEDDING = "openai.embedding"
    RERANK = "rerank"
    """Cohere's and Jina's: a query and documents, and a score for each of them."""
    OLLAMA_CHAT = "ollama.chat"
    OLLAMA_GENERATE = "ollama.generate"
    OLLAMA_EMBED = "ollama.embed"
    OCR = "ocr"
    """Pages of a document that the provider was handed beforehand, and what was read from each of them."""


class Place:
    """Where a call stands in a line while it has to wait; 1 is next. Whoever answers the client may listen."""

    __slots__ = ("first", "listener")

    def __init__(self) -> None:
        self.first: int | None = None
        """Where it began to wait; None as long as it never had to."""
        self.listener: Callable[[int], None] | None = None

    def take(self, number: int) -> None:
        if self.first is None:
            self.first = number
        if self.listener is not None:
            self.listener(number)


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
    priority: Priority = Priority.NORMAL
    """Who comes first where calls have to wait for each other."""
    place: Place | None = None
    """To be told when the call waits for its turn or for its model."""
    session: str | None = None
    """What ties the calls of one conversation together: they are best answered by the same target."""
    fallbacks: tuple[str, ...] = ()
    """Models that the client wants to be tried when the one it named fails."""
    background: bool = False
    """Nobody waits at the other end: where calls have to wait for each other, it comes after those of people."""
