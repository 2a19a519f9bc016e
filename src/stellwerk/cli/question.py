"""One question to a gateway: where it comes from, what is asked with it, and how its answer is printed."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import typer

from stellwerk.cli.gateway_client import SILENCE_SECONDS, GatewayClient, GatewayTrouble
from stellwerk.cli.language import decimal, text
from stellwerk.cli.refusals import explain_trouble
from stellwerk.core.clock import SystemClock

_MOST_MEBIBYTES = 4
# What a model writes must not steer the terminal: escape sequences would reach it from here.
_HARMLESS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question and how it is to be answered; None leaves it to the gateway."""

    prompt: str
    model: str
    system: str | None = None
    session: str | None = None
    tokens: int | None = None
    temperature: float | None = None
    timeout: int | None = None
    """Seconds for all attempts together."""
    retries: int | None = None
    """The most attempts."""

    def messages(self) -> list[dict[str, str]]:
        asked = {"role": "user", "content": self.prompt}
        return [{"role": "system", "content": self.system}, asked] if self.system else [asked]

    def fields(self) -> dict[str, Any]:
        fields = {
            "session_id": self.session,
            "max_tokens": self.tokens,
            "temperature": self.temperature,
            "timeout": self.timeout,
            "retries": self.retries,
        }
        return {name: value for name, value in fields.items() if value is not None}


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints: the question, and its answer or what went wrong, "" for nothing."""

    model: str
    pid: int
    timestamp: str
    prompt: str
    response: str
    error: str
    duration_ms: int


def read_prompt(words: Sequence[str], *, quiet: bool) -> str:
    """From the words, else from standard input, else from the line that a person types in; "" when there is none.

    Raises GatewayTrouble for one that is no text or too long.
    """
    if words:
        return " ".join(words).strip()
    if sys.stdin is None:  # started with its input closed
        return ""
    if sys.stdin.isatty() and not quiet:
        typer.echo(text("ask.prompt"), nl=False, err=True)
    most = _MOST_MEBIBYTES << 20
    raw = sys.stdin.buffer.readline(most + 1) if sys.stdin.isatty() else sys.stdin.buffer.read(most + 1)
    if len(raw) > most:
        raise GatewayTrouble("ask.too_long", limit=_MOST_MEBIBYTES)
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise GatewayTrouble("ask.not_utf8") from None


def answer(client: GatewayClient, question: Question, *, as_json: bool, notes: bool) -> bool:
    """Prints the answer as it comes, or the whole exchange as JSON; whether it is complete.

    `notes` go to standard error: who answered, and how long it took.
    """
    client.silence_seconds = max(SILENCE_SECONDS, (question.timeout or 0) + 10.0)
    clock = SystemClock()
    at, begin = clock.now(), clock.monotonic()
    pieces: list[str] = []
    failure = None
    try:
        with contextlib.closing(client.answer(question.model, question.messages(), question.fields())) as answering:
            for piece in answering:
                # JSON can say half a character, which no encoding can.
                pieces.append(piece.encode("utf-8", "replace").decode())
                if not as_json:
                    typer.echo(_shown(pieces[-1]), nl=False, color=True)
    except GatewayTrouble as trouble:
        failure = trouble
    finally:
        if pieces and not as_json:
            typer.echo()
    seconds = clock.monotonic() - begin
    if as_json:
        _print_exchange(question, "".join(pieces), failure, at, seconds)
    elif failure is not None:
        report(failure)
    elif notes:
        typer.echo(
            text("ask.answered", model=question.model, seconds=decimal(seconds, 1)).translate(_HARMLESS), err=True
        )
    return failure is None


def _print_exchange(
    question: Question, response: str, failure: GatewayTrouble | None, at: float, seconds: float
) -> None:
    from stellwerk.cli.tables import moment, print_json  # noqa: PLC0415

    moment_of_asking = moment(at)
    print_json(
        Exchange(
            model=question.model,
            pid=os.getpid(),
            timestamp=moment_of_asking.isoformat() if moment_of_asking else "",
            prompt=question.prompt,
            response=response,
            error="" if failure is None else explain_trouble(failure),
            duration_ms=round(seconds * 1000),
        )
    )


def report(trouble: GatewayTrouble) -> None:
    """On standard error, with nothing in it that steers a terminal."""
    typer.echo(explain_trouble(trouble).translate(_HARMLESS), err=True)


def _shown(piece: str) -> str:
    """For a terminal without what would steer it; another program gets what the model wrote."""
    return piece.translate(_HARMLESS) if sys.stdout.isatty() else piece
