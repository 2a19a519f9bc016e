"""How a log record becomes one line: JSON for machines, short text for people."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from stellwerk.core.outcome import Outcome
from stellwerk.telemetry.redaction import Redactor

MAX_LINE = 65_536
"""Bytes of one line."""
_MAX_NAME = 256
_MAX_ITEMS = 64
_MAX_DEPTH = 4
# No character takes more than 6 bytes in a JSON string: a message and a traceback of this length fit into a line.
_CUT_TEXT = 4_096

# Control characters, what directs text from right to left or hides it, line separators, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
_CLIENT_ERROR = 400
_SERVER_ERROR = 500
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"


class LogRecord(msgspec.Struct, frozen=True):
    """A record with everything in it already redacted and cut."""

    at: float
    """Unix seconds."""
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any]
    error: str | None = None
    """Traceback of an exception."""


class _CallLine(msgspec.Struct, frozen=True, omit_defaults=True):
    ts: datetime
    level: str
    logger: str
    message: str
    id: str
    key_id: str
    user_id: int
    operation: str
    model: str
    provider: str | None
    target: str | None
    stream: bool
    status: int
    attempts: int
    ms: float
    ttft_ms: float | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    audio_ms: int = 0
    characters: int = 0
    pages: int = 0
    estimated: bool = False
    cost_micros: int | None = None


class LogFormat(Protocol):
    def line(self, record: LogRecord) -> bytes:
        """The record as one line with its line feed, at most MAX_LINE bytes."""

    def call_line(self, outcome: Outcome) -> bytes:
        """The same for a finished call."""


class JsonFormat:
    """One JSON object on each line; the fields of a record stand beside `ts`, `level`, `logger` and `message`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._encoder = msgspec.json.Encoder()

    def line(self, record: LogRecord) -> bytes:
        content: dict[str, Any] = {
            "ts": _utc(record.at),
            "level": record.level,
            "logger": record.logger,
            "message": record.message,
        }
        if record.error is not None:
            content["exception"] = record.error
        for name, value in record.fields.items():
            content.setdefault(name, value)
        line = self._encode(content)
        if len(line) <= MAX_LINE:
            return line
        content = {
            "ts": _utc(record.at),
            "level": record.level,
            "logger": record.logger[:_MAX_NAME],
            "message": record.message[:_CUT_TEXT],
            "truncated": True,
        }
        if record.error is not None:
            content["exception"] = record.error[-_CUT_TEXT:]
        return self._encode(content)

    def call_line(self, outcome: Outcome) -> bytes:
        usage = outcome.usage
        first_byte = outcome.first_byte
        return self._encode(
            _CallLine(
                ts=_utc(outcome.at + outcome.duration),
                level="warning" if has_failed(outcome) else "info",
                logger="stellwerk.call",
                message="call",
                id=clean_name(outcome.id, self._redactor),
                key_id=outcome.key_id,
                user_id=outcome.user_id,
                operation=outcome.operation.value,
                model=clean_name(outcome.model, self._redactor),
                provider=outcome.provider,
                target=outcome.target and clean_name(outcome.target, self._redactor),
                stream=outcome.stream,
                status=outcome.status,
                attempts=outcome.attempts,
                ms=round(outcome.duration * 1000, 1),
                ttft_ms=None if first_byte is None else round(first_byte * 1000, 1),
                error=outcome.error and clean_name(outcome.error, self._redactor),
                input_tokens=usage.input_tokens if usage else None,
                output_tokens=usage.output_tokens if usage else None,
                cached_tokens=usage.cached_tokens if usage else 0,
                reasoning_tokens=usage.reasoning_tokens if usage else 0,
                audio_ms=usage.audio_milliseconds if usage else 0,
                characters=usage.characters if usage else 0,
                pages=usage.pages if usage else 0,
                estimated=outcome.estimated,
                cost_micros=outcome.cost,
            )
        )

    def _encode(self, content: _CallLine | dict[str, Any]) -> bytes:
        line = self._encoder.encode(content)
        if not line.isascii() or b"\x7f" in line:
            # They stand inside strings only, because JSON itself is ASCII.
            line = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()
        return line + b"\n"


class HumanFormat:
    """A short line in local time, coloured where the terminal wants it."""

    def __init__(self, redactor: Redactor, *, colour: bool) -> None:
        self._redactor = redactor
        self._colour = colour

    def line(self, record: LogRecord) -> bytes:
        text = f"{record.logger.removeprefix('stellwerk.')}: {record.message}"
        details = " ".join(f"{name}={value}" for name, value in record.fields.items())
        if record.error is not None:
            details = f"{details} {record.error}"
        return self._line(record.at, record.level, text, details)

    def call_line(self, outcome: Outcome) -> bytes:
        model = clean_name(outcome.model, self._redactor)
        where = ""
        if outcome.provider is not None:
            where = f" → {outcome.provider}/{clean_name(outcome.target or '', self._redactor)}"
        text = f"{outcome.operation.value} {model}{where} {outcome.status}"
        if outcome.error is not None:
            text += f" {clean_name(outcome.error, self._redactor)}"
        details = f"{outcome.duration:.2f} s"
        if outcome.stream and outcome.first_byte is not None:
            details += f", first byte {outcome.first_byte:.2f} s"
        if outcome.usage is not None:
            about = "about " if outcome.estimated else ""
            details += f", {about}{outcome.usage.input_tokens}+{outcome.usage.output_tokens} tokens"
        if outcome.cost:
            details += f", cost {outcome.cost / 1_000_000:.6f}"
        if outcome.attempts > 1:
            details += f", {outcome.attempts} attempts"
        details += f", {outcome.key_id}, {clean_name(outcome.id, self._redactor)}"
        return self._line(outcome.at + outcome.duration, "warning" if has_failed(outcome) else "info", text, details)

    def _line(self, at: float, level: str, text: str, details: str) -> bytes:
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        # A character takes at most 4 bytes.
        text = printable(text)[: MAX_LINE // 8]
        details = printable(details)[: MAX_LINE // 10]
        if self._colour:
            line = f"{_DIM}{clock}{_PLAIN} {_COLOURS[level]}{level:<7}{_PLAIN} {text} {_DIM}{details}{_PLAIN}"
        else:
            line = f"{clock} {level:<7} {text} {details}".rstrip()
        return line.encode() + b"\n"


def has_failed(outcome: Outcome) -> bool:
    """Whether the gateway or its upstream is to blame; a stream that broke has told its client a 200 before."""
    return outcome.status >= _SERVER_ERROR or (outcome.error is not None and outcome.status < _CLIENT_ERROR)


def printable(text: str) -> str:
    """The text with everything escaped that could move a terminal's cursor or start a new line."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def clean_name(text: str, redactor: Redactor) -> str:
    """A text from outside, short and without secrets, that msgspec can encode."""
    return encodable(redactor.redact(text, _MAX_NAME))


def clean(value: object, redactor: Redactor, depth: int = 0) -> Any:
    """Anything as plain, bounded and redacted values that msgspec can encode."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else f"{value:#x}"[:_MAX_NAME]
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        pairs = list(value.items())[:_MAX_ITEMS]
        return {clean_name(str(name), redactor): clean(item, redactor, depth + 1) for name, item in pairs}
    if isinstance(value, list | tuple | set | frozenset) and depth < _MAX_DEPTH:
        return [clean(item, redactor, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return encodable(redactor.redact(str(value), _CUT_TEXT))


def encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot carry, escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)  # msgspec writes it as RFC 3339
