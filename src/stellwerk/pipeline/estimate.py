"""What a call may use up, from its bytes alone: before the call there is no tokenizer, and no time for one."""

import re
from collections.abc import Mapping

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.outcome import Estimate

_CHAT, _COMPLETION = Operation.CHAT, Operation.COMPLETION
_NEVER_READ = frozenset({"logit_bias", "metadata"})
_LONG = 64
"""Bytes from which a field beside the prompt counts: upstreams read tools, documents and more from such."""

_LEAST_BYTES, _MOST_BYTES = 3, 12
"""Bytes a token: Latin scripts and code take 3 to 5, of spaces and long words a single token takes many."""
_DIGITS = b"0123456789"
"""Some tokenizers give each a token of its own."""
_WIDE = bytes(range(0x80, 0x100))
"""Bytes of characters beyond ASCII, of which two may be a token."""
_TOKENS_OF_A_TEMPLATE = 24
"""What a chat template writes of its own. What it writes around each message is covered by the JSON around it."""
_TOKENS_OF_MEDIA = 1_600
"""A large image at full detail."""

_SHORT = 1_024
"""A field of up to so many bytes is not searched for media: as text they count no more than as media."""
_WINDOW = 512
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"
"""With the backslash that some encoders write before a slash."""
_LONGEST_HEAD = 256
"""Bytes of a data URL before its payload."""
_MEDIA_KEYS = (b'"url"', b'"image_url"', b'"data"', b'"file_data"')

_find_escape = re.compile(rb"\\u").search


class _Options(msgspec.Struct):
    num_predict: int | None = None


_OLLAMA_WIRES = frozenset({Wire.OLLAMA_CHAT, Wire.OLLAMA_GENERATE})
_read_options = msgspec.json.Decoder(_Options).decode
_read_int = msgspec.json.Decoder(int).decode
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def estimate(call: Call) -> Estimate:
    """Bounds of the tokens of a call whose body has been checked; pure, and linear in the body's length."""
    fields = call.fields
    operation = call.operation
    if operation is Operation.OCR:
        return Estimate(
            input_tokens=0, least_input_tokens=0, output_tokens=0, pages=len(_read_list(fields.get("pages", b"[]")))
        )
    if operation is Operation.RERANK:
        return _estimate_ranking(fields)
    main = "messages" if operation is _CHAT else "prompt" if operation is _COMPLETION else "input"
    if call.wire is Wire.OLLAMA_GENERATE:
        main = "prompt"
    prompt = bytes(fields.get(main, b""))
    if operation is _CHAT:
        most, least = _count_text(prompt)
    else:
        most, least = _count_list(prompt) if prompt.startswith(b"[") else _count_text(prompt)
    for name, value in fields.items():
        if name != main and name not in _NEVER_READ and len(text := bytes(value)) > _LONG:
            most += _count_images(text) if name == "images" else _weigh(text)[1]
    if operation is Operation.EMBEDDING:
        return Estimate(input_tokens=most, least_input_tokens=least, output_tokens=0)
    limit, answers = _output_limit(fields), _count_choices(fields)
    if call.wire in _OLLAMA_WIRES:
        limit = _predicted(fields)
    if operation is _COMPLETION:
        answers *= _count_prompts(prompt)
    output = None if limit is None else limit * answers
    return Estimate(input_tokens=most, least_input_tokens=least, output_tokens=output, answers=answers)


def _estimate_ranking(fields: Mapping[str, msgspec.Raw]) -> Estimate:
    """A reranker reads the query once with each document; with the vectors of an embedding model it is read once."""
    documents = bytes(fields.get("documents", b"[]"))
    most, least = _count_text(documents)
    most_query, least_query = _count_text(bytes(fields.get("query", b"")))
    count = len(_read_list(documents)) if documents.startswith(b"[") else 1
    # Some models put up to four tokens of their own around each pair.
    most += count * (most_query + 4)
    return Estimate(input_tokens=most, least_input_tokens=least + least_query, output_tokens=0)


class LateEstimate:
    """The estimate of a call, made when it is first looked at: most calls have neither limits on tokens nor a price."""

    __slots__ = ("_call", "_made")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._made: Estimate | None = None

    def make(self) -> Estimate:
        if self._made is None:
            self._made = estimate(self._call)
        return self._made

    @property
    def input_tokens(self) -> int:
        return self.make().input_tokens

    @property
    def output_tokens(self) -> int | None:
        return self.make().output_tokens

    @property
    def answers(self) -> int:
        return self.make().answers


def _count_list(prompt: bytes) -> tuple[int, int]:
    """The most and the least tokens of a list of texts, of token ids, or of lists of token ids."""
    if b'"' in prompt:
        most, least = _count_text(prompt)
        # Embedding models put a token of their own at both ends of each text.
        return most + prompt.count(b'"'), least
    numbers = prompt.count(b",") + 1
    return numbers + _TOKENS_OF_A_TEMPLATE, numbers


def _count_text(prompt: bytes) -> tuple[int, int]:
    """The most and the least tokens of a text or of messages, as JSON."""
    media = (prompt.count(b'"image_url"') + 1) // 2  # each image is named twice, as the type and as the key
    if len(prompt) > _SHORT:
        payloads, prompt = _cut_media(prompt)
        # An image that comes by its address has no payload, and sound has no such name.
        media = max(media, payloads)
    size, most = _weigh(prompt)
    return most + media * _TOKENS_OF_MEDIA + _TOKENS_OF_A_TEMPLATE, size // _MOST_BYTES or 1


def _weigh(text: bytes) -> tuple[int, int]:
    """Bytes in UTF-8, about, and the most tokens of a text as JSON."""
    size = len(text)
    digits = size - len(text.translate(None, _DIGITS))
    wide = 0
    if not text.isascii():
        # Of characters of four bytes, such as emoji, each may be three tokens.
        wide = size - len(text.translate(None, _WIDE)) + 6 * text.count(b"\xf0")
    # In a long text a compiled pattern finds two bytes in half the time that `in` takes.
    if b"\\" in text and _find_escape(text) is not None:
        # Without escaped backslashes, each backslash and u begin six bytes that stand for about three in UTF-8.
        escapes = text.replace(b"\\\\", b"").count(b"\\u")
        size -= 3 * escapes
        wide += 3 * escapes
        digits = max(0, digits - 4 * escapes)
    # In sixths of a token: two for each byte, one more where two bytes may be one, four more where one may.
    return size, (2 * size + wide + 4 * digits) // 6 + 1


def _cut_media(prompt: bytes) -> tuple[int, bytes]:
    """How many strings hold media in Base64, and the prompt without them.

    A window is looked at in every so many bytes, and each string is read once at most: linear, whatever comes.
    """
    count = place = kept = 0
    rest: list[bytes] = []
    while place + _WINDOW <= len(prompt):
        beyond = place + _WINDOW
        # Nearly every window of a text has a space in it, which is found in no time.
        if prompt.find(b" ", place, beyond) < 0 and not prompt[place:beyond].translate(None, _BASE64):
            # The window before this one was not all Base64: the string begins in it or nowhere that matters.
            begin = prompt.rfind(b'"', max(0, place - _WINDOW - _LONGEST_HEAD), place)
            if begin >= 0:
                beyond = prompt.find(b'"', place)
                # A number may be as long as that, with no quote after it.
                if beyond < 0:
                    break
                follows = count > 0 and prompt[kept:begin].translate(None, b" ") == b'",'
                if _is_media(prompt, begin, beyond, follows=follows):
                    count += 1
                    rest.append(prompt[kept:begin])
                    kept = beyond
        place = beyond
    rest.append(prompt[kept:])
    return count, b"".join(rest)


def _is_media(prompt: bytes, begin: int, end: int, *, follows: bool) -> bool:
    """Whether the string between two quotes is all Base64 and stands where a model is not made to read it as text.

    `follows` says that it stands in a list right behind one that is.
    """
    before = prompt[max(0, begin - 32) : begin].rstrip()
    key = before.removesuffix(b"[").rstrip()
    in_list = before.endswith(b"[") and key[:-1].rstrip().endswith(b'"images"')
    if not follows and not (key.endswith(b":") and (in_list or key[:-1].rstrip().endswith(_MEDIA_KEYS))):
        return False
    start = begin + 1
    if prompt.startswith(b"data:", start):
        start = prompt.find(b";base64,", start, start + _LONGEST_HEAD) + len(b";base64,")
        if start < begin:
            return False
    return not prompt[start:end].translate(None, _BASE64)


def _output_limit(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """The most tokens of one answer."""
    limit = None
    # Which of several limits an upstream obeys is its own affair; llama.cpp obeys its own name first.
    for name in ("max_completion_tokens", "max_tokens", "n_predict"):
        if name in fields and bytes(fields[name]) != b"null":
            given = _whole(fields[name])
            # A limit of 0, or none that we understand, may be no limit at all for whoever reads it.
            if not given:
                return None
            limit = given if limit is None else max(limit, given)
    return limit


def _predicted(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """The same where Ollama's clients say it; below 0 it is no limit."""
    try:
        limit = _read_options(fields.get("options", b"{}")).num_predict
    except msgspec.DecodeError:
        return None
    return limit if limit is not None and limit > 0 else None


def _count_images(images: bytes) -> int:
    """The most tokens of a list of images in Base64."""
    return (images.count(b'"') + 1) // 2 * _TOKENS_OF_MEDIA


def _count_choices(fields: Mapping[str, msgspec.Raw]) -> int:
    choices = 1
    for name in ("n", "best_of"):
        if name in fields:
            choices = max(choices, _whole(fields[name]) or 1)
    return choices


def _whole(value: msgspec.Raw) -> int | None:
    try:
        number = _read_int(value)
    except msgspec.DecodeError:
        return None
    return number if number >= 0 else None


def _count_prompts(prompt: bytes) -> int:
    """A completion answers each of a list of texts, or each of a list of lists of token ids."""
    if not prompt.startswith(b"["):
        return 1
    if b'"' not in prompt:
        return max(1, prompt.count(b"[") - 1)
    return max(1, len(_read_list(prompt)))
