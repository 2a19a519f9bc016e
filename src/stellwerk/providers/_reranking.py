"""Reranking by a model that only embeds: the score of a document is the cosine of its vector and the query's."""

import asyncio
import math
from collections.abc import Mapping
from operator import mul

import msgspec

from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.providers._vectors import ReadAnswer

_LONG_BODY = 256 << 10
"""Bytes of vectors from which their products take longer than other calls should wait."""
_RANKING_FIELDS = frozenset({"model", "query", "documents", "top_n"})
_FLOAT = msgspec.Raw(b'"float"')


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Vectors(msgspec.Struct):
    data: list[_Row]
    usage: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Vectors).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def ranking_fields(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """What an engine is told of a request."""
    return {name: value for name, value in fields.items() if name in _RANKING_FIELDS}


def embedding_fields(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The request in OpenAI's wire of embeddings: the query first, then the documents, which must be texts."""
    texts = [fields["query"], *_decode_list(fields["documents"])]
    return {"model": fields["model"], "input": msgspec.Raw(_encode(texts)), "encoding_format": _FLOAT}


async def read_scored(answer: UpstreamAnswer) -> UpstreamAnswer:
    """The answer to `embedding_fields` as one in the wire of reranking.

    Raises as `UpstreamAnswer.read` and `score` do.
    """
    body = await answer.read()
    scored = await asyncio.to_thread(score, body) if len(body) > _LONG_BODY else score(body)
    return ReadAnswer(answer, scored)


def score(body: bytes) -> bytes:
    """Raises UpstreamBroken when the vectors cannot be read or are not all of one size."""
    try:
        vectors = _decode(body)
    except (ValueError, RecursionError):
        raise _unreadable() from None
    rows = [row.embedding for row in sorted(vectors.data, key=_place)]
    if len(rows) < 2 or len({len(row) for row in rows}) != 1:
        raise _unreadable()
    query, *documents = rows
    length = math.hypot(*query)
    results = [
        {"index": index, "relevance_score": _cosine(query, length, document)}
        for index, document in enumerate(documents)
    ]
    return _encode({"object": "list", "usage": vectors.usage, "results": results})


def _place(row: _Row) -> int:
    return row.index or 0


def _cosine(query: list[float], length: float, document: list[float]) -> float:
    """From -1 to 1; 0 for a vector without a direction."""
    lengths = length * math.hypot(*document)
    if not 0 < lengths < math.inf:
        return 0.0
    return float(max(-1.0, min(1.0, sum(map(mul, query, document)) / lengths)))


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)
