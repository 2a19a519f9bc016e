"""Which words an error is said in, for what goes wrong before a route has taken the request: the path decides."""

from stellwerk.api._errors import render_error as render_openai
from stellwerk.api.ollama.errors import render_error as render_ollama
from stellwerk.api.ollama.errors import speaks_ollama
from stellwerk.core.errors import GatewayError
from stellwerk.http.exchange import Headers


def render_error(error: GatewayError, path: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body."""
    if speaks_ollama(path):
        return render_ollama(error, path)
    return render_openai(error, path)
