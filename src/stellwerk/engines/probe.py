"""Asks an engine whether it answers, over a connection of its own so that a full pool never looks like an illness."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from stellwerk.core.ports import EngineAddress

_MAX_HEAD = 16 << 10
_MAX_BODY = 1 << 20
_PROMPT = "a"
_PROBE_TOKENS = 2
"""What the prompt of a probe is at most, with the token that begins every text."""
_TROUBLE = (TimeoutError, OSError, ValueError, EOFError, asyncio.LimitOverrunError)


class TokenProbe(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest piece of real work for an engine."""

    path: str
    fields: Mapping[str, object]
    slots_path: str | None = None
    """Where llama.cpp tells what each of its slots holds: the work is put where it displaces nobody's prompt."""


def completion_probe(model: str, *, slots_path: str | None = None) -> TokenProbe:
    """One token; `slots_path` for llama.cpp only, other engines do not know its fields."""
    fields: dict[str, object] = {"model": model, "prompt": _PROMPT, "max_tokens": 1}
    if slots_path is not None:
        fields["cache_prompt"] = False
    return TokenProbe(path="/v1/completions", fields=fields, slots_path=slots_path)


def embedding_probe(model: str) -> TokenProbe:
    return TokenProbe(path="/v1/embeddings", fields={"model": model, "input": _PROMPT})


class _Slot(msgspec.Struct):
    id: int
    is_processing: bool = False
    n_prompt_tokens: int | None = None
    params: dict[str, object] | None = None
    """Of its last request; absent when there was none."""

    @property
    def is_spare(self) -> bool:
        if self.is_processing:
            return False
        return self.params is None if self.n_prompt_tokens is None else self.n_prompt_tokens <= _PROBE_TOKENS


_decode_slots = msgspec.json.Decoder(list[_Slot]).decode


async def answers(address: EngineAddress, timeout: float, path: str = "/health") -> bool:  # noqa: ASYNC109 — a bound on the whole exchange
    """Whether the engine says within `timeout` seconds that it is well."""
    return await _status(address, path, None, timeout) == 200


async def is_ours(
    address: EngineAddress,
    timeout: float,  # noqa: ASYNC109
    path: str = "/health",
    *,
    checks_key: bool = True,
) -> bool:
    """Whether a loaded engine listens there that takes our key and no other; anything else is some other program.

    With one that knows no keys, health has to be proof enough.
    """
    if not checks_key:
        return await answers(address, timeout, path)
    return (
        await _status(address, "/v1/models", address.key, timeout) == 200
        and await _status(address, "/v1/models", None, timeout) == 401
    )


async def computes(address: EngineAddress, work: TokenProbe, timeout: float) -> bool:  # noqa: ASYNC109
    """Whether the engine does `work` within `timeout` seconds. One that refuses it, such as for its form, is awake."""
    try:
        async with asyncio.timeout(timeout):
            fields = dict(work.fields)
            if work.slots_path is not None:
                slot = await _spare_slot(address, work.slots_path)
                if slot is not None:
                    fields["id_slot"] = slot
            async with _exchange(address, "POST", work.path, address.key, msgspec.json.encode(fields)) as (
                status,
                _,
                reader,
            ):
                # Some send the head before they begin.
                if status == 200:
                    return bool(await reader.read(1))
                return status == 501 or (400 <= status < 500 and status != 401)
    except _TROUBLE:
        return False


async def _spare_slot(address: EngineAddress, path: str) -> int | None:
    """A slot that holds at most the prompt of an earlier probe. Without one, llama.cpp chooses best by itself: it then
    keeps what it displaces in its memory for prompts."""
    async with _exchange(address, "GET", path, address.key) as (status, length, reader):
        if status != 200 or not 0 < length <= _MAX_BODY:
            return None
        body = await reader.readexactly(length)
    try:
        slots = _decode_slots(body)
    except msgspec.DecodeError:
        return None
    return next((slot.id for slot in slots if slot.is_spare), None)


async def _status(address: EngineAddress, path: str, key: str | None, seconds: float) -> int | None:
    """The status of a GET; None when there is no answer in time or none that is HTTP."""
    try:
        async with asyncio.timeout(seconds), _exchange(address, "GET", path, key) as (status, _, _reader):
            return status
    except _TROUBLE:
        return None


@asynccontextmanager
async def _exchange(
    address: EngineAddress, method: str, path: str, key: str | None, body: bytes = b""
) -> AsyncIterator[tuple[int, int, asyncio.StreamReader]]:
    """Status, length of the body (0 when it is not told) and what brings the body. Raises one of `_TROUBLE`."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address.host}:{address.port}", "Connection: close"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=_MAX_HEAD)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        version, _, rest = (await reader.readline()).partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("not HTTP")
        length = 0
        while (line := await reader.readline()).strip():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        yield int(rest[:3]), length, reader
    finally:
        # Nothing more of the body is wanted; a plain close would wait for what is still to be sent.
        with contextlib.suppress(OSError):
            writer.transport.abort()
