"""What an upstream's refusal means for our client: its credentials are not ours to show, its words often are."""

import math
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from stellwerk.core.errors import (
    BadRequest,
    Conflict,
    GatewayError,
    NotFound,
    RateLimited,
    TooLarge,
    Unavailable,
    Unprocessable,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)

_LONGEST_MESSAGE = 2000
_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 600.0
_SHORTEST_SECRET = 8
_CONCEALED = "********"
"""Long enough for the pattern of keys to find it behind its scheme."""
# What vendors' keys begin with; Google's and keys without a mark are long runs of letters and digits.
_KEY = re.compile(
    r"(?i)(?:bearer\s+|\b(?:sk|gsk|xai|pk|key|hf|nvapi)[-_])[\w*.-]{4,}|\bAIza[\w-]{4,}|\b[a-z0-9]{32,}\b"
)
_URL = re.compile(r"(?:https?|file)://\S+")
_FILE = re.compile(r"(?<![\w.:/])/(?:[\w.@~-]+/)+[\w.@:~-]*|\b[A-Za-z]:\\\S*")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_PARAM = re.compile(r"[\w.\[\]-]{1,128}")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CODES = {"exceed_context_size_error": "context_length_exceeded"}
# llama.cpp calls some mistakes of the client its own.
_CLIENT_FAULTS = (
    (re.compile(r"^input \(\d+ tokens\) is too large to process"), "context_length_exceeded"),
    (re.compile(r"^(?:image|audio|video) input is not supported"), "unsupported_value"),
    (re.compile(r"^Multimodal data provided, but model does not support"), "unsupported_value"),
    (re.compile(r"^(?:Invalid base64 value|Unknown reasoning format)"), "invalid_value"),
)


class _Body(msgspec.Struct):
    error: Any = None
    message: Any = None
    detail: Any = None


def read_refusal(
    status: int, body: bytes, retry_after: bytes | None, now: float, secrets: Sequence[str] = ()
) -> GatewayError:
    """The error for an upstream's answer with `status` >= 300; `now` in Unix seconds reads an absolute Retry-After.

    `secrets` is what the upstream was shown: it stands in no error, however it looks.
    """
    message, code, param = _read_error(body, secrets)
    if status == 500 and (fault := _client_fault(message)):
        status, code = 400, fault
    wait = parse_retry_after(retry_after, now)
    if status == 429:
        return RateLimited(
            message or "The upstream's rate limit is reached.",
            code="upstream_rate_limited",
            retry_after=wait if wait is not None else _SHORTEST_WAIT,
            may_fall_back=True,
        )
    if status in (401, 403):
        return UpstreamRefused(
            "The upstream did not accept the gateway's credentials for this model.",
            code="upstream_credentials_rejected",
            may_fall_back=True,
        )
    if status == 402:
        return UpstreamRefused(
            "The gateway's credit with the upstream is used up.", code="upstream_credits_exhausted", may_fall_back=True
        )
    if status == 404:
        return NotFound(
            message or "The upstream does not know this model.",
            code="model_not_found",
            param="model",
            may_fall_back=True,
        )
    if status == 413:
        return TooLarge(message or "The request is too large for the upstream.")
    if status == 409:
        return Conflict(message or "The upstream reports a conflict.", code=code or "conflict", param=param)
    if 400 <= status < 500 and status not in (408, 425, 499):
        kind = Unprocessable if status == 422 else BadRequest
        return kind(message or "The upstream rejected the request.", code=code or "invalid_value", param=param)
    if status in (408, 504):
        return UpstreamTimeout("The upstream did not answer in time.", may_fall_back=True)
    if status in (503, 529):
        return Unavailable(
            "The upstream is overloaded.",
            code="upstream_overloaded",
            retry_after=wait if wait is not None else _SHORTEST_WAIT,
            may_fall_back=True,
        )
    said = _plain_reason(body, secrets) if status == 500 else None
    return UpstreamError(said or f"The upstream failed with status {status}.", may_fall_back=True)


def _plain_reason(body: bytes, secrets: Sequence[str]) -> str | None:
    """Why an Ollama could not do it, such as that there is no room for the model, which its people can do something
    about. Its errors are text; those of vendors, whose insides concern nobody here, are objects."""
    try:
        error = msgspec.json.decode(body[:65536], type=_Body).error
    except (ValueError, RecursionError):
        return None
    said = clean_message(error, secrets)
    return None if said is None else _FILE.sub("…", said)


def _client_fault(message: str | None) -> str | None:
    """The code for a failure that lies with the request, although the upstream takes the blame."""
    return next((code for pattern, code in _CLIENT_FAULTS if message and pattern.match(message)), None)


def _read_error(body: bytes, secrets: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Message, code and param of an error body in one of the usual JSON shapes; anything else is not repeated."""
    try:
        parsed = msgspec.json.decode(body[:65536], type=_Body | list[_Body])
    except (ValueError, RecursionError):
        return None, None, None
    if isinstance(parsed, list):
        # Google's way: a list of one.
        parsed = parsed[0] if parsed else _Body()
    error = parsed.error
    if isinstance(error, dict):
        kind = error.get("type")
        code = _word(_CODE, error.get("code"), secrets) or (_CODES.get(kind) if isinstance(kind, str) else None)
        return clean_message(error.get("message"), secrets), code, _word(_PARAM, error.get("param"), secrets)
    for text in (error, parsed.message, parsed.detail):
        if isinstance(text, str):
            return clean_message(text, secrets), None, None
    return None, None, None


def _word(pattern: re.Pattern[str], value: object, secrets: Sequence[str]) -> str | None:
    """`value` when it is a word as codes and fields are; whatever else stands there may hold anything."""
    if not isinstance(value, str) or pattern.fullmatch(value) is None or _KEY.search(value) is not None:
        return None
    return value if _conceal(value, secrets) == value else None


def _conceal(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        # A shorter one is a word such as `ollama`, which servers that check no key are given.
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _CONCEALED)
    return text


def clean_message(text: object, secrets: Sequence[str] = ()) -> str | None:
    """An upstream's words without keys, addresses and control characters, cut to a bearable length."""
    if not isinstance(text, str) or not text.strip():
        return None
    # Before it is cut: a half of a secret would not be found.
    text = _UNPRINTABLE.sub(" ", _conceal(text, secrets)[: 2 * _LONGEST_MESSAGE])
    text = _URL.sub("…", _KEY.sub("***", text).replace(_CONCEALED, "***"))
    return text[:_LONGEST_MESSAGE].strip() or None


def parse_retry_after(value: bytes | None, now: float) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, 10.2.3), within bounds; None when there is none that makes sense."""
    seconds = read_seconds(value, now)
    return None if seconds is None else min(max(seconds, _SHORTEST_WAIT), _LONGEST_WAIT)


def read_seconds(value: bytes | None, now: float) -> float | None:
    """The same without bounds."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError, OSError):
            return None
    return None if math.isnan(seconds) else seconds
