"""Opens the listeners for Go Ollama API's clients."""

from stellwerk.api._guard import Routes
from stellwerk.api.go_ollama.endpoints import Generate, GoOllamaAPI, Notify
from stellwerk.api.go_ollama.errors import render_error
from stellwerk.api.go_ollama.requests import find_key
from stellwerk.app.listeners import Listeners
from stellwerk.app.people import People
from stellwerk.config.listeners import GoOllama
from stellwerk.http.router import Router
from stellwerk.http.serving import CannotListen, address_of, bind, bind_loopback
from stellwerk.telemetry.metrics import Metrics

COMPAT = "go-ollama-api"
_THIS_MACHINE = ("127.0.0.1", "localhost")


def go_ollama_router(people: People, metrics: Metrics, generate: Generate, notify: Notify) -> Router:
    router = Router()
    routes = Routes(router, people.keys, metrics, render=render_error, find_key=find_key)
    GoOllamaAPI(generate, people.clock, notify).register(routes)
    return router


def open_go_ollama(settings: GoOllama, router: Router, listeners: Listeners, *, shared: int | None = None) -> None:
    """A listener for each port, all with the same routes; a port that is taken closes only its own. `shared` is one
    that another listener has and answers on for these clients too."""
    for port in settings.ports:
        if port == shared:
            continue
        try:
            sockets = bind_loopback(port) if settings.host in _THIS_MACHINE else [bind(settings.host, port)]
        except CannotListen as error:
            listeners.give_up(f"{COMPAT} {port}", str(error))
        else:
            listeners.add(f"{COMPAT} {address_of(sockets[0])[1]}", sockets, router, render_error)
