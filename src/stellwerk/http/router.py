"""Which handler takes a request: exact paths by one dictionary lookup, then templates, then a few prefixes."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple

from stellwerk.core.errors import MethodNotAllowed
from stellwerk.core.principal import Access, Role
from stellwerk.http.exchange import Exchange

Handler = Callable[[Exchange], Awaitable[None]]

_OWN_PAGES = ("/admin/", "/auth/", "/user/")
"""Where people log in, change what is theirs, and run the gateway."""


class Route(NamedTuple):
    method: str
    path: str
    """`{name}` stands for one segment; a path that ends in `{rest}` takes everything below its prefix."""
    access: Access
    """Who may use it; there is no route without it."""
    handler: Handler


class Router:
    """The routes of one listener; complete before the first request."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._exact: dict[str, dict[str, Handler]] = {}
        self._templates: dict[int, list[tuple[str, re.Pattern[str], dict[str, Handler]]]] = {}
        self._prefixes: list[tuple[str, dict[str, Handler]]] = []
        self._administrative: set[Handler] = set()

    def add(self, route: Route) -> None:
        """Registers a route. Raises ValueError when method and path are taken."""
        methods = self._methods_of(route.path)
        if route.method in methods:
            raise ValueError(f"{route.method} {route.path} is registered twice")
        methods[route.method] = route.handler
        if route.method == "GET":
            methods.setdefault("HEAD", route.handler)
        self._routes.append(route)
        if route.access and Role.USER not in route.access:
            self._administrative.add(route.handler)

    def _methods_of(self, path: str) -> dict[str, Handler]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        if not path.endswith("{rest}"):
            return self._methods_of_template(path)
        prefix = path.removesuffix("{rest}")
        for known, methods in self._prefixes:
            if known == prefix:
                return methods
        added: dict[str, Handler] = {}
        self._prefixes.append((prefix, added))
        return added

    def _methods_of_template(self, path: str) -> dict[str, Handler]:
        templates = self._templates.setdefault(path.count("/"), [])
        for known, _, methods in templates:
            if known == path:
                return methods
        added: dict[str, Handler] = {}
        templates.append((path, compile_template(path), added))
        return added

    def find(self, path: str) -> dict[str, Handler] | None:
        """The handlers of a path by method; None when nothing is registered there."""
        methods = self._exact.get(path)
        if methods is not None:
            return methods
        for _, template, methods in self._templates.get(path.count("/"), ()):
            if template.fullmatch(path):
                return methods
        for prefix, methods in self._prefixes:
            if path.startswith(prefix) and len(path) > len(prefix):
                return methods
        return None

    def is_same_origin_only(self, path: str, method: str) -> bool:
        """Whether no page of another site gets leave there: logins, and what users may not do at all."""
        if path.startswith(_OWN_PAGES):
            return True
        methods = self.find(path)
        return methods is not None and methods.get(method) in self._administrative

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)


def choose(methods: Mapping[str, Handler], method: str) -> Handler:
    """The handler of a method among those of a path. Raises MethodNotAllowed."""
    handler = methods.get(method)
    if handler is None:
        allowed = ", ".join(sorted(methods))
        raise MethodNotAllowed(f"{method} is not allowed here; use {allowed}.", headers=((b"allow", allowed.encode()),))
    return handler


def compile_template(path: str) -> re.Pattern[str]:
    """The pattern of a path with `{name}` in it; each name becomes a group that holds one segment as it was sent."""
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(re.escape(part) if n % 2 == 0 else f"(?P<{part}>[^/]+)" for n, part in enumerate(parts)))
