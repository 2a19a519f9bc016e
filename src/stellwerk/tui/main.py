"""Starts the console on the terminal of this process."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from stellwerk.core.clock import SystemClock
from stellwerk.core.secrets import Secret
from stellwerk.tui.application import Console
from stellwerk.tui.choosing import choose_source
from stellwerk.tui.connection import Connection
from stellwerk.tui.language import Words, language
from stellwerk.tui.source import Source
from stellwerk.tui.trouble import ConsoleTrouble

DEFAULT_URL = "http://localhost:8080"
_VARIABLES = ("STELLWERK_ADMIN_KEY", "STELLWERK_API_KEY")


def token_of(environ: Mapping[str, str]) -> Secret | None:
    """The token that the environment holds, where no list of processes shows it."""
    found = next((token for name in _VARIABLES if (token := environ.get(name, "").strip())), "")
    return Secret(found) if found else None


def run_console(url: str, token: Callable[[], Secret], environ: Mapping[str, str], errors: TextIO) -> int:
    """Shows the gateway at `url` until somebody quits. `token` is asked before each request. Returns the exit code."""
    words = Words(language(environ))
    try:
        connection = Connection(url, token, SystemClock())
    except ConsoleTrouble as trouble:
        errors.write(words.trouble(trouble) + "\n")
        return 1
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        errors.write(words("no_terminal") + "\n")
        return 1

    async def choose() -> Source:
        return await choose_source(connection, SystemClock())

    console = Console(connection.url, choose, words, leave=connection.close)
    console.run()
    return console.return_code or 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m console.tui URL TOKEN`. Returns the exit code, 1 with the usage when there is no token."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = Words(language(os.environ))
    token = Secret(given[1]) if len(given) == 2 else token_of(os.environ)
    if token is None or len(given) > 2 or set(given) & {"-h", "--help"}:
        sys.stderr.write(words("usage", url=DEFAULT_URL))
        return 1
    return run_console(given[0] if given else DEFAULT_URL, lambda: token, os.environ, sys.stderr)
