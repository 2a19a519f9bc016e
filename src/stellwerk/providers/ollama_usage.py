"""The counts that an Ollama writes into the last line of its answer."""

import msgspec

from stellwerk.core.outcome import Usage

_MOST_TOKENS = 1_000_000_000


class _Line(msgspec.Struct):
    prompt_eval_count: int | None = None
    eval_count: int | None = None


_decode = msgspec.json.Decoder(_Line).decode


def read_ollama_usage(last_line: bytes) -> Usage | None:
    """Usage from the last line of a stream, or from a whole answer, which is written the same.

    None when it counts nothing, cannot be read, or has a number below 0 or beyond belief. A count of 0 is left out by
    Ollama, as that of a prompt which it had read before.
    """
    try:
        line = _decode(last_line)
    except (ValueError, RecursionError):
        return None
    read, written = line.prompt_eval_count or 0, line.eval_count or 0
    if min(read, written) < 0 or max(read, written) > _MOST_TOKENS or not read + written:
        return None
    return Usage(input_tokens=read, output_tokens=written)
