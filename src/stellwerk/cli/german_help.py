"""The help of the commands, and what Typer says when they are called wrongly, in German.

Typer has both in English, and no way to say anything else in their place: its sentences are known by their form.
"""

import re
from collections.abc import Mapping

import typer
from typer._click import Command, HelpFormatter
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.core import TyperArgument, TyperGroup, TyperOption

from stellwerk.cli.help_texts import GERMAN

_HELP_OPTION = "Show this message and exit."

_PLACEHOLDERS = {
    "AMOUNT": "BETRAG",
    "ARGS": "ARGUMENTE",
    "COMMAND": "BEFEHL",
    "DATE": "DATUM",
    "FILE": "DATEI",
    "FOLDER": "ORDNER",
    "MESSAGE": "NACHRICHT",
    "MODEL": "MODELL",
    "OPTIONS": "OPTIONEN",
}
_PLACEHOLDER = re.compile(rf"\b({'|'.join(_PLACEHOLDERS)})\b")

_HEADINGS: Mapping[str, str] = {
    "ARGUMENTS_PANEL_TITLE": "Argumente",
    "OPTIONS_PANEL_TITLE": "Optionen",
    "COMMANDS_PANEL_TITLE": "Befehle",
    "ERRORS_PANEL_TITLE": "Fehler",
    "DEFAULT_STRING": "[Vorgabe: {}]",
    "ENVVAR_STRING": "[Variable: {}]",
    "REQUIRED_LONG_STRING": "[nötig]",
    "RICH_HELP": "Hilfe zeigt [blue]'{command_path} {help_option}'[/].",
}
"""By the names that typer.rich_utils has for them."""

_SENTENCES: Mapping[str, str] = {
    r"Missing argument (?P<what>.+?)\.(?: Choose from:\s(?P<choices>.+))?": "Das Argument {what} fehlt.{choices}",
    r"Missing option (?P<what>.+?)\.(?: Choose from:\s(?P<choices>.+))?": "Die Option {what} fehlt.{choices}",
    r"Missing command\.": "Es fehlt der Befehl.",
    r"No such command (?P<what>.+?)\.(?: Did you mean (?P<near>.+)\?)?": "Den Befehl {what} gibt es nicht.{near}",
    r"No such option: (?P<what>\S+)(?: \(Possible options: (?P<near>.+)\))?": "Die Option {what} gibt es nicht.{near}",
    r"Got unexpected extra argument\(s\) \((?P<what>.+)\)": "Zu viele Argumente: {what}",
    r"Option (?P<what>.+) does not take a value\.": "Die Option {what} nimmt keinen Wert.",
    r"Option (?P<what>.+) requires an argument\.": "Die Option {what} braucht einen Wert.",
    r"Option (?P<what>.+) requires (?P<count>\d+) arguments\.": "Die Option {what} braucht {count} Werte.",
    r"Invalid value for (?P<what>.+?): (?P<why>.+)": "{what}: {why}",
    r"(?P<value>.+) is not a valid int(?: range)?\.": "{value} ist keine ganze Zahl.",
    r"(?P<value>.+) is not a valid float(?: range)?\.": "{value} ist keine Zahl.",
    r"(?P<value>.+) is not in the range (?P<range>.+)\.": "{value} liegt nicht im Bereich {range}.",
    r"(?P<value>.+) is not one of (?P<known>.+)\.": "{value} ist keins von {known}.",
    r"(?:File|Directory|Path) (?P<value>.+) does not exist\.": "{value} gibt es nicht.",
    r"(?:File|Directory|Path) (?P<value>.+) is a directory\.": "{value} ist ein Ordner.",
    r"(?:File|Directory|Path) (?P<value>.+) is a file\.": "{value} ist eine Datei.",
    r"(?:File|Directory|Path) (?P<value>.+) is not readable\.": "{value} ist nicht lesbar.",
    r"(?:File|Directory|Path) (?P<value>.+) is not writable\.": "{value} ist nicht beschreibbar.",
}
_FORMS = {re.compile(form, re.DOTALL): german for form, german in _SENTENCES.items()}
_ADDED = {"choices": " Möglich: {}", "near": " Gemeint ist vielleicht {}."}
"""What follows a sentence when there is more to say."""


class _GermanFormatter(HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or "Aufruf: ")


class _GermanContext(typer.Context):
    formatter_class = _GermanFormatter

    def get_help(self) -> str:
        option = self.command.get_help_option(self)
        if option is not None:
            option.help = GERMAN[_HELP_OPTION]
        _put_up_headings()
        return super().get_help()


def translate(command: Command) -> None:
    """Puts German words into a command and all below it that are there already."""
    command.context_class = _GermanContext
    command.help = _german(command.help)
    command.short_help = _german(command.short_help)
    command.options_metavar = _placeholder(command.options_metavar)
    for parameter in command.params:
        parameter.metavar = _placeholder(parameter.metavar)
        if isinstance(parameter, TyperArgument | TyperOption):
            parameter.help = _german(parameter.help)
    if isinstance(command, TyperGroup):
        command.subcommand_metavar = _placeholder(command.subcommand_metavar) or ""
        if isinstance(command.commands, dict):
            for inner in command.commands.values():
                translate(inner)


def translated_error(error: ClickException) -> ClickException:
    """The same, to be shown by Typer."""
    if isinstance(error, NoArgsIsHelpError):
        return error
    _put_up_headings()
    german = UsageError(explain(error.format_message()), getattr(error, "ctx", None))
    german.exit_code = error.exit_code
    return german


def explain(message: str) -> str:
    """A sentence of Typer's in German; one of an unknown form stays as it is."""
    for form, german in _FORMS.items():
        if (found := form.fullmatch(message)) is not None:
            values = {name: _spoken(name, value) for name, value in found.groupdict().items()}
            return german.format_map(values)
    return message


def _spoken(name: str, value: str | None) -> str:
    if name == "why":
        return explain(value or "")
    if name == "what" and value and not value.startswith("'"):
        return _placeholder(value) or ""
    if name in _ADDED:
        return _ADDED[name].format(", ".join(re.split(r",\s*", value))) if value else ""
    return value or ""


def _german(help_text: str | None) -> str | None:
    return None if help_text is None else GERMAN.get(help_text, help_text)


def _placeholder(metavar: str | None) -> str | None:
    return None if metavar is None else _PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[0]], metavar)


def _put_up_headings() -> None:
    # Only now: drawing help costs as much again as everything before.
    from typer import rich_utils  # noqa: PLC0415

    for name, heading in _HEADINGS.items():
        setattr(rich_utils, name, heading)
