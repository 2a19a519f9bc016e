import pytest

from stellwerk.core.principal import OPEN
from stellwerk.http.router import Route, Router


def handler(name):
    async def handle(_exchange):
        raise AssertionError(name)

    return handle


LIST, MAKE, ONE, REST, LONGER = (handler(name) for name in ("list", "make", "one", "rest", "longer"))


@pytest.fixture
def router():
    made = Router()
    made.add(Route("GET", "/models", OPEN, LIST))
    made.add(Route("POST", "/models", OPEN, MAKE))
    made.add(Route("GET", "/models/first", OPEN, ONE))
    made.add(Route("GET", "/models/{rest}", OPEN, REST))
    made.add(Route("DELETE", "/models/{rest}", OPEN, REST))
    return made


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/models", {"GET": LIST, "HEAD": LIST, "POST": MAKE}),
        ("/models/first", {"GET": ONE, "HEAD": ONE}),
        ("/models/second", {"GET": REST, "HEAD": REST, "DELETE": REST}),
        ("/models/first/", {"GET": REST, "HEAD": REST, "DELETE": REST}),
        ("/models/a/b%2Fc", {"GET": REST, "HEAD": REST, "DELETE": REST}),
        ("/models/", None),
        ("/modelsfirst", None),
        ("/Models", None),
        ("/models?x", None),
        ("//models", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_finds_its_handlers(router, path, methods):
    assert router.find(path) == methods


@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("POST", "/models"), ("DELETE", "/models/{rest}")])
def test_a_route_cannot_be_taken_twice(router, method, path):
    with pytest.raises(ValueError, match="registered twice"):
        router.add(Route(method, path, OPEN, LIST))


def test_the_routes_can_be_listed_with_who_may_use_them(router):
    assert [(route.method, route.path, route.access) for route in router] == [
        ("GET", "/models", OPEN),
        ("POST", "/models", OPEN),
        ("GET", "/models/first", OPEN),
        ("GET", "/models/{rest}", OPEN),
        ("DELETE", "/models/{rest}", OPEN),
    ]
