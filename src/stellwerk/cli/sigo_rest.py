"""`sigoREST`: `stellwerk serve` with the listener of that name, under the flags that its users know."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from stellwerk import __version__
from stellwerk.cli.go_flags import BadFlag, Flag, describe_flags, parse_flags
from stellwerk.cli.language import text
from stellwerk.cli.main import app
from stellwerk.config.problems import ConfigError
from stellwerk.config.reading import data_folder, find, load

COMPAT = "sigorest"
USAGE = 2
_PREFIX = "STELLWERK_"
_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error", "fatal": "error"}

FLAGS = (
    Flag("http-port", int, "port for programs on this machine (9080)", "Port für Programme auf diesem Rechner (9080)"),
    Flag("https-port", int, "port for the machines of the LAN, once sigorest.lan_trust is on (9443)",
         "Port für die Rechner im LAN, sobald sigorest.lan_trust an ist (9443)"),
    Flag("cert", str, "certificate in PEM (one is made)", "Zertifikat in PEM (es wird eins erzeugt)"),
    Flag("key", str, "its private key in PEM", "sein privater Schlüssel in PEM"),
    Flag("v", str, "what is logged: debug, info, warn, error (info)",
         "was ins Protokoll kommt: debug, info, warn, error (info)"),
    Flag("q", bool, "log errors only", "nur Fehler protokollieren"),
    Flag("j", bool, "log JSON", "JSON protokollieren"),
    Flag("version", bool, "the version", "die Version"),
    Flag("h", bool, "this help", "diese Hilfe"),
    Flag("help", bool, "the same", "dasselbe"),
)  # fmt: skip


def main() -> None:
    """Runs the gateway until it is stopped, and exits."""
    status = prepare(sys.argv[1:])
    if status is not None:
        sys.exit(status)
    app(["serve"], prog_name="sigoREST")


def prepare(arguments: Sequence[str]) -> int | None:
    """Puts what the flags say into this process's environment, where `serve` reads it; or the status to exit with."""
    try:
        flags, _ = parse_flags(FLAGS, arguments)
    except BadFlag as bad:
        typer.echo(text(bad.key, **bad.values), err=True)
        return USAGE
    if flags.get("h") or flags.get("help"):
        typer.echo(text("sigo_rest.usage"))
        typer.echo(describe_flags(FLAGS))
        return 0
    if flags.get("version"):
        typer.echo(f"sigoREST {__version__}")
        return 0
    if bool(flags.get("cert")) is not bool(flags.get("key")):
        typer.echo(text("sigo_rest.half_a_certificate"), err=True)
        return USAGE
    os.environ.update(variables(flags, os.environ))
    return None


def variables(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that the flags stand for, as variables; what was not given stays as config and environment say."""
    found = {"COMPAT": f"[{', '.join(_listeners(environ))}]"}
    for name, setting in (("http-port", "SIGOREST__HTTP_PORT"), ("https-port", "SIGOREST__HTTPS_PORT")):
        if name in flags:
            found[setting] = str(flags[name])
    if "v" in flags:
        found["LOG__LEVEL"] = _LEVELS.get(flags["v"], "info")
    if flags.get("q"):
        found["LOG__LEVEL"] = "error"
    if flags.get("j"):
        found["LOG__FORMAT"] = "json"
    found |= _certificate(flags)
    return {_PREFIX + name: value for name, value in found.items()}


def _listeners(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that are configured anyway, and this one."""
    configured: tuple[str, ...] = ()
    # What is wrong with the config, `serve` says.
    with contextlib.suppress(ConfigError):
        configured = load(find(None, environ, data_folder(None, environ)), environ).compat
    return tuple(dict.fromkeys((*configured, COMPAT)))


def _certificate(flags: Mapping[str, Any]) -> dict[str, str]:
    """Both files, when both are there: their old user expects missing ones to be made, which the gateway does by
    itself, in its own folder."""
    if not flags.get("cert"):
        return {}
    files = [Path(flags[name]).expanduser().absolute() for name in ("cert", "key")]
    for file in files:
        if not file.exists():
            typer.echo(text("sigo_rest.no_certificate", file=file), err=True)
            return {}
    return {"SIGOREST__CERTIFICATE": str(files[0]), "SIGOREST__CERTIFICATE_KEY": str(files[1])}
