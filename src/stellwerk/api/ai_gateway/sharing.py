"""One port for the clients of AI Gateway and of Go Ollama API: the path says whose a request is."""

from urllib.parse import parse_qsl

from stellwerk.api.ai_gateway.errors import render_error
from stellwerk.api.go_ollama.errors import render_error as render_go_ollama_error
from stellwerk.core.errors import GatewayError
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.http.router import Handler, Route, Router

_KEY = "apikey"
_GENERATE = "/generate"
_MOST_PARAMETERS = 32


def share(router: Router, other: Router) -> Router:
    """A router with the routes of both. Where both have one, a key in the query asks for that of `other`, which knows
    its clients by it."""
    theirs = {(route.method, route.path): route for route in other}
    shared = Router()
    for route in router:
        twin = theirs.pop((route.method, route.path), None)
        handler = route.handler if twin is None else _by_query(route.handler, twin.handler)
        shared.add(Route(route.method, route.path, route.access, handler))
    for route in theirs.values():
        shared.add(route)
    return shared


def render_shared(error: GatewayError, path: str) -> tuple[int, Headers, bytes]:
    """For what comes before there is a route."""
    render = render_go_ollama_error if path == _GENERATE else render_error
    return render(error, path)


def _by_query(without: Handler, with_key: Handler) -> Handler:
    async def handle(exchange: Exchange) -> None:
        await (with_key if _has_key(exchange.query) else without)(exchange)

    return handle


def _has_key(query: bytes) -> bool:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        # Too much to be a key and nothing else: whose routes know no keys answers.
        return False
    return any(name == _KEY for name, _ in pairs)
