"""Everything that can be done with a gateway, each thing right and wrong, and every time with other secrets."""

import asyncio
import base64
import json
import os
import signal
from typing import Any
from urllib.parse import urlencode

from tests.canaries import Secrets, read_folder, read_process
from tests.customers import EMBEDDINGS
from tests.gateway_process import ADMIN_KEY, GatewayProcess, wait_until
from tests.raw_http import begin, hello, send
from tests.secret_jobs import queue_jobs
from tests.secret_journey import ECHOES, ROUTES_OF_OPENAI, WITNESS, Journey, Shown
from tests.secret_models import run_own_models
from tests.small_hub import SmallHub

SHOWS_URLS = (
    *(f"answer of {method} /admin/api/webhooks" for method in ("GET", "POST", "PATCH")),
    "command webhooks list",
    "file stellwerk.db",
)
"""Places that show the whole URLs of webhooks."""


async def make_journey(gateway: GatewayProcess, secrets: Secrets, config: dict[str, Any], hub: SmallHub) -> Journey:
    journey = Journey(gateway, secrets, Shown(secrets))
    await call_models(journey)
    await run_own_models(journey, hub)
    await queue_jobs(journey)
    await manage(journey)
    await tell_others(journey, config["egress"]["allowed_origins"][0])
    await log_in(journey)
    await misuse(journey)
    await command(journey)
    await reload(journey, config)
    await look(journey)
    await storage_fails(journey)
    journey.shown.places |= read_folder(gateway.data)
    await gateway.stop()
    for name, content in read_folder(gateway.data).items():
        journey.shown.keep(f"{name} after the end", content)
    return journey


def spoil(key: str) -> str:
    """A key that is wrong in one character."""
    middle = len(key) // 2 + 8
    return f"{key[:middle]}{'x' if key[middle] != 'x' else 'y'}{key[middle + 1 :]}"


async def call_models(journey: Journey) -> None:
    shown, prompt = journey.shown, journey.secrets.prompt
    chat, up = "/v1/chat/completions", f"{WITNESS}/up"

    def body(model: str, name: str, **more: Any) -> dict[str, Any]:
        return hello(model, **more) | {"messages": [{"role": "user", "content": prompt(name)}]}

    for name, path, content in (
        ("chat", chat, body(up, "chat", user="somebody")),
        ("stream", chat, body(up, "stream", stream=True)),
        ("completion", "/v1/completions", {"model": up, "prompt": prompt("completion")}),
        ("embedding", EMBEDDINGS, {"model": f"{WITNESS}/embed", "input": [prompt("embedding")]}),
        ("local", chat, body("chat", "local", max_tokens=4)),
        ("local stream", chat, body("chat", "local stream", max_tokens=4, stream=True)),
    ):
        answer = shown.answer(
            f"model, {name}", await journey.ask("POST", path, content, x_request_id=f"{WITNESS}-{name}")
        )
        assert answer.status == 200, answer.body
        journey.done.add(("POST", path))
    await journey.good("GET", "/v1/models")
    for model in ECHOES:
        for stream in (False, True):
            content = body(f"{WITNESS}/{model}", f"{model} {stream}", stream=stream)
            answer = shown.answer(f"model {model} {stream}", await journey.ask("POST", chat, content))
            assert answer.status >= 400 or model == "echo-stream", answer.body
    await journey.bad("unreachable upstream", "POST", chat, body("gone/gone", "gone"))
    await journey.bad("unknown model", "POST", chat, body("nobody/knows", "unknown"))
    await journey.bad("cut JSON", "POST", chat, json.dumps(body(up, "cut")).encode()[:-4])
    await journey.bad("wrong type", "POST", chat, {"model": up, "messages": prompt("wrong type")})
    await journey.bad("wrong number", "POST", chat, body(up, "wrong number", max_tokens=prompt("number")))
    await journey.bad("wrong role", "POST", chat, {"model": up, "messages": [{"role": 1, "content": prompt("role")}]})
    await journey.bad("wrong input", "POST", EMBEDDINGS, {"model": f"{WITNESS}/embed", "input": {"a": prompt("input")}})
    leaving = await begin(journey.gateway.port, ADMIN_KEY, body("chat", "leaving", stream=True, max_tokens=300))
    await leaving.read_head()
    leaving.close()


async def manage(journey: Journey) -> None:
    """Users, keys, money, settings and sign-up, as an administrator and as a user."""
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    users, of_user = "/admin/api/users", "/admin/api/users/{user_id}"
    journey.email = f"ada@{WITNESS}.example"
    new = {"email": journey.email, "password": secrets.password("first"), "balance": 5, "requests_per_minute": 0}
    user_id = journey.user_id = (await good("POST", users, new))["id"]
    await bad("user again", "POST", users, new | {"password": secrets.password("again")})
    await bad("short password", "POST", users, {"email": "b@c.de", "password": secrets.add("short", 'K4n"ü-17')})
    await bad("password in a list", "POST", users, {"email": "b@c.de", "password": [secrets.password("list")]})
    await bad("password as a field", "POST", users, {"email": "b@c.de", "balance": secrets.password("balance")})
    await good("GET", users)
    await good("GET", of_user, user_id=user_id)
    await good("PATCH", of_user, {"name": "Ada", "tier": "payg", "budget": 5, "budget_window": "day"}, user_id=user_id)
    journey.password = secrets.password("second")
    await good("PUT", f"{of_user}/password", {"password": journey.password}, user_id=user_id)
    await bad("long password", "PUT", f"{users}/{user_id}/password", {"password": secrets.password("long") * 20})

    made = await good("POST", f"{of_user}/apikey", {"name": "laptop"}, user_id=user_id)
    journey.user_key = made["key"]
    other = await good("POST", f"{of_user}/apikey", {"name": "other"}, user_id=user_id)
    keys = await good("GET", f"{of_user}/keys", user_id=user_id)
    [other_id] = [key["id"] for key in keys if key["name"] == "other"]
    await good("GET", "/admin/api/keys")
    await good("PATCH", "/admin/api/apikeys/{key_id}", {"name": "renamed"}, key_id=other_id)
    await good("DELETE", "/admin/api/apikeys/{key_id}", key_id=other_id)
    await bad("revoked key", "GET", "/user/api/me", key=other["key"])
    await bad("a key in the place of its id", "DELETE", f"/admin/api/apikeys/{journey.user_key}")

    await good("POST", f"{of_user}/balance", {"amount": 2.5, "note": "cash"}, user_id=user_id)
    await good("GET", f"{of_user}/ledger", user_id=user_id)
    await good("POST", "/admin/api/prices", {"model": f"{WITNESS}/up", "per_request": 0.01})
    for path in ("prices", "ledger/check", "audit/check", "usage", "config"):
        await good("GET", f"/admin/api/{path}")
    await good("PATCH", "/admin/api/config", {"signup": {"enabled": True}})
    await sign_up(journey)
    await good("GET", "/admin/api/audit")

    key = journey.user_key
    own = await good("POST", "/user/api/keys", {"name": "own"}, key=key)
    await good("DELETE", "/user/api/keys/{key_id}", key_id=own["id"], key=key)
    for path in ("me", "usage", "ratelimit", "models", "ledger", "keys"):
        await good("GET", f"/user/api/{path}", key=key)
    for path in ("/v1/stats/summary", "/api/uptime", "/api/models"):
        await good("GET", path, key=key)
    chat = {"model": f"{WITNESS}/up", "messages": [{"role": "user", "content": secrets.prompt("user")}]}
    assert (await journey.ask("POST", "/v1/chat/completions", chat, key=key)).status == 200


async def sign_up(journey: Journey) -> None:
    seen = ("answer of GET /admin/api/signups", "command signups list", "command signups approve", "file stellwerk.db")
    for number in range(3):
        # It is there for who decides, and for nobody else.
        message = journey.secrets.add(f"message {number}", f'Kanari "message" {number} ü 71f0', *seen)
        asked = {"email": f"stranger{number}@{WITNESS}.example", "message": message}
        await journey.good("POST", "/api/signup", asked, key=None)
    wrong = {"email": "a@b.de", "message": [journey.secrets.prompt("sign-up")]}
    await journey.bad("wrong sign-up", "POST", "/api/signup", wrong, key=None)
    first, second, _ = sorted(one["id"] for one in await journey.good("GET", "/admin/api/signups"))
    await journey.good("POST", "/admin/api/signups/{signup_id}/approve", signup_id=first)
    await journey.good("POST", "/admin/api/signups/{signup_id}/reject", signup_id=second)


def secret_path(secrets: Secrets, name: str) -> str:
    """Who knows the path of a receiver may write to it: administrators see it, and nobody else."""
    return secrets.add(f"{name} path", f"Kanari-{name}-{os.urandom(6).hex()}", *SHOWS_URLS)


async def tell_others(journey: Journey, nobody: str) -> None:
    """Webhooks whose receiver, at the origin `nobody`, is not there."""
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    webhooks, one = "/admin/api/webhooks", "/admin/api/webhooks/{webhook_id}"
    first, second = (f"{nobody}/{secret_path(secrets, name)}" for name in ("first", "second"))
    made = await good("POST", webhooks, {"url": first, "events": ["request.finished"], "description": WITNESS})
    other = await good("POST", webhooks, {"url": second, "events": ["generate.requested"], "with_images": True})
    await bad("URL with a password", "POST", webhooks, {"url": f"https://u:{secrets.chosen_key('user')}@h.example/"})
    for url in (f"http://10.0.0.1/{secrets.chosen_key('private')}", f"ftp://h/{secrets.chosen_key('scheme')}"):
        await bad("URL that is refused", "POST", webhooks, {"url": url, "events": ["request.finished"]})
    await good("GET", webhooks)
    await good("GET", one, webhook_id=made["id"])
    await good("PATCH", one, {"description": "renamed"}, webhook_id=made["id"])
    await good("POST", f"{one}/secret", webhook_id=made["id"])
    failed = await good("POST", f"{one}/test", webhook_id=made["id"])
    await good("POST", f"{webhooks}/deliveries/{{delivery_id}}/retry", delivery_id=failed["id"])
    await good("GET", f"{one}/deliveries", webhook_id=made["id"])
    await good("DELETE", one, webhook_id=other["id"])
    chat = {"model": f"{WITNESS}/up", "messages": [{"role": "user", "content": secrets.prompt("told to others")}]}
    assert (await journey.ask("POST", "/v1/chat/completions", chat, key=journey.user_key)).status == 200


async def log_in(journey: Journey) -> None:
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    token, own_password = "/auth/token", "/user/api/password"
    kind = {"content_type": "application/x-www-form-urlencoded", "key": None}
    right = {"username": journey.email, "password": journey.password}

    first = await good("POST", token, urlencode(right).encode(), **kind)
    await good("POST", token, query=f"?{urlencode(right)}", key=None)
    second = await good("POST", "/auth/refresh", {"refresh_token": first["refresh_token"]}, key=None)
    await good("GET", "/user/api/me", key=second["access_token"])
    await bad("refresh token as a key", "GET", "/user/api/me", key=second["refresh_token"])
    head, _, signature = second["access_token"].rpartition(".")
    forged = secrets.add("forged token", f"{head}.{signature[::-1]}")
    await bad("forged token", "GET", "/user/api/me", key=forged)
    await bad(
        "forged refresh", "POST", "/auth/refresh", {"refresh_token": secrets.add("forged", spoil(forged))}, key=None
    )
    await bad(
        "access token as refresh token", "POST", "/auth/refresh", {"refresh_token": second["access_token"]}, key=None
    )
    await bad("refresh token twice", "POST", "/auth/refresh", {"refresh_token": first["refresh_token"]}, key=None)

    wrong_key = secrets.add("key as user name", spoil(journey.user_key))
    for username, password in (
        (journey.email, secrets.add("almost right password", journey.password[:-1] + "x")),
        (wrong_key, "canal boat violin 77"),
        (journey.password, journey.email),
        (secrets.password("only"), ""),
        (journey.email, journey.user_key),
    ):
        wrong = {"username": username, "password": password}
        await bad("wrong password", "POST", token, urlencode(wrong).encode(), **kind)
    await bad(
        "wrong password in the query", "POST", f"{token}?{urlencode({**right, 'grant_type': wrong_key})}", key=None
    )
    await bad("password twice", "POST", token, urlencode([*right.items(), *right.items()]).encode(), **kind)
    await bad(
        "password as a list", "POST", token, {"username": journey.email, "password": [journey.password]}, key=None
    )
    basic = base64.b64encode(f"{journey.email}:{journey.password}".encode()).decode()
    await bad("basic authorisation", "GET", "/user/api/me", key=None, authorization=f"Basic {basic}")

    third = await good("POST", token, right, key=None)
    changed = secrets.password("third")
    wrong = {"old_password": secrets.password("not the old one"), "new_password": changed}
    await bad("wrong old password", "PUT", own_password, wrong, key=third["access_token"])
    await bad("new password is the old one", "PUT", own_password, right | wrong, key=third["access_token"])
    change = {"old_password": journey.password, "new_password": changed}
    await good("PUT", own_password, change, key=third["access_token"])
    await good("POST", "/auth/logout", {"refresh_token": third["refresh_token"]}, key=third["access_token"])
    await bad("token after its end", "GET", "/user/api/me", key=third["access_token"])


async def misuse(journey: Journey) -> None:
    """Every endpoint with a key that is almost right, with a key in the query, and with bodies that are wrong."""
    secrets, user_key = journey.secrets, journey.user_key
    wrong_key = secrets.add("almost right key", spoil(ADMIN_KEY))
    password = secrets.password("misplaced")
    for method, template, operation in await operations(journey):
        path = template.format(
            user_id=journey.user_id,
            key_id="aaaaaaaaaa",
            signup_id=1,
            webhook_id=1,
            delivery_id=f"msg_{'0' * 32}",
            slot=1,
            call_id="req_0",
            load_id=f"load_{'0' * 16}",
            download_id="0" * 16,
            request_id="00000000-0000-0000-0000-000000000000",
            name="nothing",
        )
        place = f"wrong {method} {template}"
        is_open = operation.get("x-roles") == []
        in_query = f"{path}?{urlencode({'api_key': user_key, 'key': user_key, 'apikey': password})}"
        if not is_open:
            for header in ("authorization", "x_api_key", "api_key"):
                shown = f"Bearer {wrong_key}" if header == "authorization" else wrong_key
                await journey.bad(place, method, path, key=None, **{header: shown})
            assert (await journey.bad(place, method, in_query, key=None)).status == 401
        elif method == "GET":
            journey.shown.answer(place, await journey.ask(method, in_query, key=None))
        if "requestBody" in operation:
            for content in (
                b'{"password": "' + password.encode(),
                password.encode(),
                {"unknown": password, "key": user_key},
                [password],
                {"email": {"a": password}, "username": [password], "amount": password, "refresh_token": [password]},
            ):
                await journey.bad(place, method, path, content)
    # Who asks for something that is not there is told what it was; nobody else hears of it.
    unknown = secrets.unknown_key("key as a path", "error of a key as a path")
    await journey.bad("a key as a path", "GET", f"/{unknown}")
    await journey.bad("a key as a model's path", "GET", f"/v1/models/{unknown}")
    model = secrets.unknown_key("key as a model", "error of a key as a model")
    await journey.bad("a key as a model", "POST", "/v1/chat/completions", hello(model))
    for line in (f"GET /v1/models?{unknown}\0 HTTP/1.1", "GET /v1/models HTTP/1.1", f"{unknown}"):
        for head in (f"Host: evil.example\r\nAuthorization: Bearer {user_key}", f"Host: 127.0.0.1\r\nX: {user_key}\0"):
            answer = await (await send(journey.gateway.port, f"{line}\r\n{head}\r\n\r\n".encode())).read()
            assert journey.shown.answer("broken request", answer).status >= 400


async def operations(journey: Journey) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every endpoint; those for models have none."""
    document = await journey.good("GET", "/openapi.json")
    documented = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    journey.operations = documented + [(method, path, {}) for method, path in sorted(ROUTES_OF_OPENAI)]
    return journey.operations


async def command(journey: Journey) -> None:
    run, secrets = journey.command, journey.secrets
    email = f"bob@{WITNESS}.example"
    first, second = secrets.password("typed"), secrets.password("typed again")
    await run("users", "create", email, "--balance", "1", "--password-stdin", stdin=first + "\n")
    key = await run("keys", "create", "program", "--user", email)
    await run("keys", "create", "second", "--user", email, "--json")
    await run("users", "password", email, "--password-stdin", stdin=second + "\n")
    await run(
        "users", "password", email, "--password-stdin", stdin=secrets.add("typed short", "K4n-ü%9") + "\n", fails=True
    )
    await run("signups", "approve", "3")
    [nobody] = json.loads(journey.gateway.config.read_text())["egress"]["allowed_origins"]
    await run("webhooks", "add", f"{nobody}/{secret_path(secrets, 'typed')}")
    await run("webhooks", "secret", "1", "--json")
    await run("webhooks", "test", "1", fails=True)
    await run("shell", stdin="generatekey\n")
    assert (await journey.ask("GET", "/user/api/me", key=key)).status == 200
    looks = (
        ("users", "list"),
        ("users", "show", email, "--json"),
        ("keys", "list", "--json"),
        ("keys", "show", "program"),
        ("usage", "--by", "key"),
        ("usage", "--key", key),
        ("ledger", "show", email),
        ("ledger", "balances", "--json"),
        ("ledger", "check"),
        ("audit", "--json"),
        ("signups", "list", "--all", "--json"),
        ("webhooks", "list", "--json"),
        ("webhooks", "deliveries", "1", "--json"),
        ("config", "show", str(journey.gateway.config)),
    )
    for some in range(0, len(looks), 3):
        await asyncio.gather(*(run(*arguments) for arguments in looks[some : some + 3]))
    # Whoever has only the key at hand gives that.
    await run("keys", "revoke", key, fails=True)


async def reload(journey: Journey, config: dict[str, Any]) -> None:
    gateway, secrets = journey.gateway, journey.secrets
    taken_over, wrong = "the configuration has been taken over", "the configuration is wrong"
    providers = config["providers"]
    fresh = providers[WITNESS] | {"api_key": secrets.chosen_key("fresh")}
    broken = {
        "base_url": f"http://operator:{secrets.chosen_key('address')}@h:1/v1?key={secrets.chosen_key('query')}",
        "api_key": [secrets.chosen_key("list")],
        "headers": {"X bad": secrets.chosen_key("header"), "X-Team": 7},
        "models": secrets.chosen_key("models"),
    }
    gateway.write_config(config | {"providers": providers | {WITNESS: fresh}})
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: taken_over in gateway.log)
    await journey.bad("echo of the fresh key", "POST", "/v1/chat/completions", hello(f"{WITNESS}/echo-400"))
    gateway.write_config(config | {"providers": providers | {"broken": broken}})
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: wrong in gateway.log)
    await journey.command("config", "check", str(gateway.config), fails=True)
    gateway.write_config(config)
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.log.count(taken_over) > 1)


async def look(journey: Journey) -> None:
    """What monitoring and other users of the machine see."""
    shown, gateway = journey.shown, journey.gateway
    for path in ("/metrics", "/health/details", "/health", "/health/readiness"):
        shown.keep(path, (await journey.ask("GET", path)).body)
    shown.places |= read_process(gateway.pid, environment=False)
    children = gateway.children
    assert children
    for child in children:
        shown.places |= read_process(child, environment=True)


async def storage_fails(journey: Journey) -> None:
    """Errors of the database, which know what was to be stored."""
    secrets = journey.secrets
    chat = hello(f"{WITNESS}/up") | {"messages": [{"role": "user", "content": secrets.prompt("full disk")}]}
    right = {"username": journey.email, "password": secrets.password("full disk")}
    new = {"email": "full@b.de", "password": secrets.password("new on a full disk")}
    with journey.gateway.full_disk():
        await journey.bad("full disk, call", "POST", "/v1/chat/completions", chat, key=journey.user_key)
        await journey.bad("full disk, login", "POST", "/auth/token", right, key=None)
        await journey.bad("full disk, user", "POST", "/admin/api/users", new)
        await journey.bad("full disk, key", "POST", f"/admin/api/users/{journey.user_id}/apikey", {"name": "full"})
    assert "disk" in journey.gateway.log or "storage" in journey.gateway.log
