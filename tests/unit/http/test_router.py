import pytest

from stellwerk.core.principal import OPEN
from stellwerk.http.router import Route, Router, compile_template


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


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/users/7/keys", "keys"),
        ("/users/7/keys/", None),
        ("/users//keys", None),
        ("/users/7/8/keys", None),
        ("/users/7", "one"),
        ("/users/%2e%2e", "one"),
        ("/users/me", "me"),
        ("/users/7\n", "one"),
        ("/xusers/7", None),
    ],
)
def test_a_name_in_a_path_stands_for_exactly_one_segment(path, found):
    handlers = {name: handler(name) for name in ("keys", "one", "me")}
    router = Router()
    router.add(Route("GET", "/users/{user_id}/keys", OPEN, handlers["keys"]))
    router.add(Route("GET", "/users/{user_id}", OPEN, handlers["one"]))
    router.add(Route("GET", "/users/me", OPEN, handlers["me"]))
    methods = router.find(path)
    assert (methods and methods["GET"]) == (handlers[found] if found else None)


def test_a_template_takes_several_methods_and_none_of_them_twice():
    router = Router()
    router.add(Route("GET", "/users/{user_id}", OPEN, LIST))
    router.add(Route("PATCH", "/users/{user_id}", OPEN, MAKE))
    assert router.find("/users/1") == {"GET": LIST, "HEAD": LIST, "PATCH": MAKE}
    with pytest.raises(ValueError, match="registered twice"):
        router.add(Route("PATCH", "/users/{user_id}", OPEN, LIST))


def test_the_names_of_a_template_give_the_segments_as_they_were_sent():
    found = compile_template("/users/{user_id}/keys/{key_id}.x").fullmatch("/users/a%20b/keys/7.x")
    assert found is not None
    assert found.groupdict() == {"user_id": "a%20b", "key_id": "7"}


def test_the_routes_can_be_listed_with_who_may_use_them(router):
    assert [(route.method, route.path, route.access) for route in router] == [
        ("GET", "/models", OPEN),
        ("POST", "/models", OPEN),
        ("GET", "/models/first", OPEN),
        ("GET", "/models/{rest}", OPEN),
        ("DELETE", "/models/{rest}", OPEN),
    ]
