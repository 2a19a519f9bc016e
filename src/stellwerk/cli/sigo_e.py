"""`sigoE`: `stellwerk ask` under the name, flags and defaults that the users of sigoEngine know."""

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from stellwerk import __version__
from stellwerk.cli.ask import FAILED, INTERRUPTED, NO_PROMPT, TRUSTED_URL, find_gateway, local_model, show
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.go_flags import BadFlag, Flag, describe_flags, parse_flags
from stellwerk.cli.language import text
from stellwerk.cli.model_facts import ModelFacts, find_model
from stellwerk.cli.own_address import find_own_url
from stellwerk.cli.question import Question, answer, read_prompt, report
from stellwerk.config.reading import data_folder

DEFAULT_MODEL = "gpt41"
DEFAULT_SECONDS = 180
DEFAULT_ATTEMPTS = 3
USAGE = 2
_SESSIONS = ".sessions"
_MOST_SESSIONS = 50
_SAYING_LITTLE = frozenset({"warn", "error", "fatal"})

FLAGS = (
    Flag("m", str, f"the model ({DEFAULT_MODEL}; a local one where that is not offered)",
         f"das Modell ({DEFAULT_MODEL}; ein lokales, wo es das nicht gibt)"),
    Flag("s", str, "go on with the session of this name", "die Sitzung dieses Namens fortsetzen"),
    Flag("n", int, "the most tokens of the answer (0: as many as the model writes)",
         "höchstens so viele Tokens in der Antwort (0: so viele, wie das Modell schreibt)"),
    Flag("T", float, "temperature (-1: the model's own)", "Temperatur (-1: die des Modells)"),
    Flag("t", int, f"seconds for all attempts together ({DEFAULT_SECONDS})",
         f"Sekunden für alle Versuche zusammen ({DEFAULT_SECONDS})"),
    Flag("r", int, f"the most attempts ({DEFAULT_ATTEMPTS})", f"höchstens so viele Versuche ({DEFAULT_ATTEMPTS})"),
    Flag("sp", str, "instructions for the model", "Anweisungen für das Modell"),
    Flag("l", bool, "list the models by provider, with prices", "die Modelle nach Anbietern, mit Preisen"),
    Flag("i", bool, "what is known of the model", "was über das Modell bekannt ist"),
    Flag("j", bool, "print JSON", "JSON ausgeben"),
    Flag("q", bool, "nothing beside the answer", "nichts außer der Antwort"),
    Flag("v", str, "how much to say: debug, info, warn, error (info)",
         "wie viel gesagt wird: debug, info, warn, error (info)"),
    Flag("V", bool, "the version", "die Version"),
    Flag("version", bool, "the same", "dasselbe"),
    Flag("h", bool, "this help, and the sessions that there are", "diese Hilfe und die vorhandenen Sitzungen"),
    Flag("help", bool, "the same", "dasselbe"),
)  # fmt: skip


def main() -> None:
    """Runs the command and exits: 0, 1 when it failed, 2 without a prompt or for wrong flags."""
    try:
        status = run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answer has enough of it; without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def run(arguments: Sequence[str], environ: Mapping[str, str], urls: Sequence[str] = ()) -> int:
    """The status to exit with; `urls` is where a gateway is looked for, in this order, in place of the usual ones."""
    try:
        flags, words = parse_flags(FLAGS, arguments)
    except BadFlag as bad:
        typer.echo(text(bad.key, **bad.values), err=True)
        return USAGE
    if flags.get("h") or flags.get("help"):
        _show_help(data_folder(None, environ))
        return 0
    if flags.get("V") or flags.get("version"):
        typer.echo(f"sigoE {__version__}")
        return 0
    try:
        return _ask(flags, words, environ, urls)
    except GatewayTrouble as trouble:
        report(trouble)
        return FAILED


def usual_urls(environ: Mapping[str, str]) -> tuple[str, ...]:
    return TRUSTED_URL, find_own_url(None, environ)


def _ask(flags: Mapping[str, Any], words: Sequence[str], environ: Mapping[str, str], urls: Sequence[str]) -> int:
    looks = bool(flags.get("l") or flags.get("i"))
    quiet = bool(flags.get("q")) or flags.get("v") in _SAYING_LITTLE
    prompt = "" if looks else read_prompt(words, quiet=bool(flags.get("q")))
    if not (prompt or looks):
        typer.echo(text("ask.no_prompt"), err=True)
        return NO_PROMPT
    client, models = find_gateway(urls or usual_urls(environ), None, None, environ)
    as_json = bool(flags.get("j"))
    if looks:
        show(models, None if flags.get("l") else _model(flags, models, quiet=quiet), flag="-l", as_json=as_json)
        return 0
    question = _question(flags, prompt, _model(flags, models, quiet=quiet))
    debugging = flags.get("v") == "debug" and not quiet
    if debugging:
        typer.echo(text("ask.asking", model=question.model, url=client.url), err=True)
    notes = debugging or (not quiet and sys.stderr.isatty())
    return 0 if answer(client, question, as_json=as_json, notes=notes) else FAILED


def _model(flags: Mapping[str, Any], models: Sequence[ModelFacts], *, quiet: bool) -> str:
    """The one that was named, as it was written: sessions go by that."""
    if flags.get("m"):
        return str(flags["m"])
    if find_model(DEFAULT_MODEL, models) is not None:
        return DEFAULT_MODEL
    chosen = local_model(models)
    if not quiet:
        typer.echo(text("ask.instead", wanted=DEFAULT_MODEL, model=chosen), err=True)
    return chosen


def _question(flags: Mapping[str, Any], prompt: str, model: str) -> Question:
    temperature = flags.get("T", -1.0)
    return Question(
        prompt=prompt,
        model=model,
        system=flags.get("sp") or None,
        session=flags.get("s") or None,
        tokens=max(flags.get("n", 0), 0) or None,
        temperature=temperature if temperature >= 0 else None,
        timeout=max(flags.get("t", 0), 0) or DEFAULT_SECONDS,
        retries=max(flags.get("r", 0), 0) or DEFAULT_ATTEMPTS,
    )


def _show_help(folder: Path) -> None:
    typer.echo(text("sigo_e.usage"))
    typer.echo(describe_flags(FLAGS))
    sessions = _sessions(folder / _SESSIONS)
    if sessions:
        typer.echo(text("sigo_e.sessions", folder=folder / _SESSIONS))
        for name in sessions:
            typer.echo(f"  {name}")


def _sessions(folder: Path) -> list[str]:
    """`<model>-<session>` of the first fifty; none where there is no such folder or it is somebody else's."""
    try:
        names = sorted(path.stem for path in islice(folder.iterdir(), 10_000) if path.suffix == ".json")
    except OSError:
        return []
    return [name for name in names if name.isprintable()][:_MOST_SESSIONS]
