"""`stellwerk shell`: keys and webhooks by the commands of Go Ollama API, typed or piped."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, NoReturn

import msgspec
import typer

from stellwerk.auth.fields import MOST_REQUESTS
from stellwerk.cli.data import Data, OpenFolder, opened
from stellwerk.cli.data import text as data_text
from stellwerk.cli.main import report
from stellwerk.cli.refusals import explain
from stellwerk.cli.shell_input import Lines, LineTooLong, end_on_sigterm, open_lines
from stellwerk.cli.shell_keys import KeyCommands
from stellwerk.cli.shell_webhooks import WebhookCommands
from stellwerk.cli.tables import Wording
from stellwerk.config.problems import ConfigError
from stellwerk.core.errors import GatewayError, Unavailable

INPUT_ENDED = 3
"""How it ends beside a server when nobody types any more; with 0 somebody wanted to end the server too."""
HISTORY_FILE = "shell_history"
REQUESTS_PER_MINUTE = 10
_ENDED_BY_SIGTERM = 143
_LONGEST_NAME = 10
"""Characters of a key's id: what is longer and in its place may be a key, or an address that lets somebody in."""
_LONGEST_WORD = 30
"""Of a text: what is longer may be a key."""

TEXTS: Mapping[str, Mapping[str, str]] = {
    "welcome": {
        "en": "The commands are listed by help; Ctrl+D or exit leaves.",
        "de": "Die Befehle zeigt help; Strg+D oder exit beendet.",
    },
    "welcome_beside": {
        "en": "The commands are listed by help; Ctrl+D leaves the shell, exit ends the gateway too.",
        "de": "Die Befehle zeigt help; Strg+D verlässt die Shell, exit beendet auch das Gateway.",
    },
    "unknown": {
        "en": "Unknown command. The commands are listed by: help",
        "de": "Unbekannter Befehl. Die Befehle zeigt: help",
    },
    "unknown_near": {
        "en": "Unknown command; did you mean {near}? The commands are listed by: help",
        "de": "Unbekannter Befehl; gemeint ist vielleicht {near}. Die Befehle zeigt: help",
    },
    "usage": {"en": "Usage: {usage}", "de": "Aufruf: {usage}"},
    "too_long": {"en": "This line is too long for a command.", "de": "Für einen Befehl ist diese Zeile zu lang."},
    "stopped": {"en": "Stopped.", "de": "Abgebrochen."},
    "commands": {"en": "Commands:", "de": "Befehle:"},
    "about_generatekey": {"en": "Generate a single API key", "de": "einen API-Schlüssel erzeugen"},
    "about_generatekeys": {"en": "Generate multiple API keys", "de": "mehrere API-Schlüssel erzeugen"},
    "about_listkeys": {"en": "List all API keys", "de": "alle API-Schlüssel zeigen"},
    "about_removekey": {"en": "Remove an API key, for good", "de": "einen API-Schlüssel endgültig entfernen"},
    "about_setlimit": {
        "en": "Set how many requests a minute a key may make; 0 is unlimited",
        "de": "wie viele Anfragen je Minute ein Schlüssel darf; 0 heißt unbegrenzt",
    },
    "about_enablekey": {"en": "Activate an API key", "de": "einen API-Schlüssel einschalten"},
    "about_disablekey": {"en": "Deactivate an API key", "de": "einen API-Schlüssel abschalten"},
    "about_describe": {"en": "Describe what a key is for", "de": "sagen, wofür ein Schlüssel ist"},
    "about_addwebhook": {"en": "Add a webhook URL", "de": "die URL eines Webhooks hinzufügen"},
    "about_deletewebhook": {"en": "Delete a webhook", "de": "einen Webhook löschen"},
    "about_listwebhooks": {"en": "List all webhooks", "de": "alle Webhooks zeigen"},
    "about_help": {"en": "Show available commands", "de": "diese Befehle zeigen"},
    "arguments_generatekeys": {"en": "<count>", "de": "<Anzahl>"},
    "arguments_removekey": {"en": "<key>", "de": "<Schlüssel>"},
    "arguments_setlimit": {"en": "<key> <requests per minute>", "de": "<Schlüssel> <Anfragen je Minute>"},
    "arguments_enablekey": {"en": "<key>", "de": "<Schlüssel>"},
    "arguments_disablekey": {"en": "<key>", "de": "<Schlüssel>"},
    "arguments_describe": {"en": "<key> <text>", "de": "<Schlüssel> <Text>"},
    "arguments_addwebhook": {"en": "<url>", "de": "<URL>"},
    "arguments_deletewebhook": {"en": "<id>", "de": "<Nummer>"},
    "about_exit": {"en": "Exit the program", "de": "das Programm beenden"},
}
text = Wording(TEXTS)

app = typer.Typer(add_completion=False)


class Command(msgspec.Struct, frozen=True):
    run: Callable[[Sequence[str]], None]
    """Takes the words after the command."""
    words: int = 0
    """How many words it takes."""
    open_ended: bool = False
    """More words belong to the last one."""
    complete: Callable[[], Sequence[str]] | None = None
    """What its first word may be."""


class Shell:
    """Obeys lines until they end or one is `exit`."""

    def __init__(self, folder: OpenFolder, requests_per_minute: int) -> None:
        keys, webhooks = KeyCommands(folder, requests_per_minute), WebhookCommands(folder)
        self._folder = folder
        self._commands: Mapping[str, Command] = {
            "generatekey": Command(keys.generate),
            "generatekeys": Command(keys.generate_several, 1),
            "listkeys": Command(keys.list_all),
            "removekey": Command(keys.remove, 1, complete=keys.ids),
            "setlimit": Command(keys.limit, 2, complete=keys.ids),
            "enablekey": Command(keys.enable, 1, complete=keys.ids),
            "disablekey": Command(keys.disable, 1, complete=keys.ids),
            "describe": Command(keys.describe, 2, open_ended=True, complete=keys.ids),
            "addwebhook": Command(webhooks.add, 1),
            "deletewebhook": Command(webhooks.delete, 1, complete=webhooks.ids),
            "listwebhooks": Command(webhooks.list_all),
            "help": Command(self._help),
            "exit": Command(_leave),
        }

    def run(self, lines: Lines) -> bool:
        """Whether the last command was `exit`; else there are no more lines."""
        while True:
            try:
                line = lines.read()
            except LineTooLong:
                text.say("too_long")
                continue
            if line is None:
                return False
            if self._is_harmless(line):
                lines.remember(line)
            try:
                self._obey(line)
            except _Left:
                return True
            except KeyboardInterrupt:
                if not lines.typed:
                    raise
                text.say("stopped")

    def complete(self, before: Sequence[str], beginning: str) -> list[str]:
        """What the word at hand may become, with a blank after it when another one follows."""
        if not before:
            known = [f"{name} " if command.words else name for name, command in self._commands.items()]
        else:
            command = self._commands.get(before[0])
            if command is None or command.complete is None or len(before) > 1:
                return []
            known = [f"{word} " if command.words > 1 else word for word in command.complete()]
        return [word for word in known if word.startswith(beginning)]

    def _obey(self, line: str) -> None:
        name, *words = line.split() or [""]
        if not name:
            return
        command = self._commands.get(name)
        try:
            if command is None:
                near = get_close_matches(name, self._commands, 1)
                text.fail("unknown_near" if near else "unknown", near=near[0] if near else "")
            if len(words) < command.words or (len(words) > command.words and not command.open_ended):
                text.fail("usage", usage=self._usage(name))
            command.run(words)
        except typer.Exit:
            # It has been said what is wrong.
            return
        except Unavailable:
            typer.echo(data_text("busy", folder=str(self._folder.folder)), err=True)
        except GatewayError as error:
            typer.echo(explain(error), err=True)
        except ConfigError as error:
            report(error)

    def _help(self, _: Sequence[str]) -> None:
        usages = {name: self._usage(name) for name in self._commands}
        width = max(map(len, usages.values()))
        typer.echo(text("commands"))
        for name, usage in usages.items():
            typer.echo(f"  {usage:{width}}  {text(f'about_{name}')}")

    def _usage(self, name: str) -> str:
        return f"{name} {text(f'arguments_{name}')}" if self._commands[name].words else name

    def _is_harmless(self, line: str) -> bool:
        """Whether it may stand in a file: keys do not, addresses that hold a receiver's password neither."""
        name, *words = line.split() or [""]
        if name not in self._commands or not line.isprintable():
            return False
        return all(len(word) <= (_LONGEST_WORD if place else _LONGEST_NAME) for place, word in enumerate(words))


class _Left(Exception):
    """Somebody wants to leave."""


def _leave(_: Sequence[str]) -> NoReturn:
    raise _Left


@app.command()
def shell(
    requests_per_minute: Annotated[
        int, typer.Option(metavar="N", min=0, max=MOST_REQUESTS, help="Of each generated key; 0 is unlimited.")
    ] = REQUESTS_PER_MINUTE,
    beside_server: Annotated[bool, typer.Option("--beside-server", hidden=True)] = False,
    data: Data = None,
) -> None:
    """Make keys and webhooks by the commands of Go Ollama API, typed or piped."""
    with opened(data) as folder:
        session = Shell(folder, requests_per_minute)
        lines = open_lines(folder.folder / HISTORY_FILE, session.complete)
        if lines.typed:
            end_on_sigterm(_ENDED_BY_SIGTERM)
            text.say("welcome_beside" if beside_server else "welcome")
        left = session.run(lines)
    if beside_server and not left:
        raise typer.Exit(INPUT_ENDED)
