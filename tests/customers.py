"""Users with keys and money at a running gateway, made and looked at through its own HTTP API."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.gateway_process import GatewayProcess, wait_until
from tests.raw_http import Answer, hello, post, send, write_request

MICRO = 1_000_000
EMBEDDINGS = "/v1/embeddings"


async def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request with any method; a body that is not bytes goes out as JSON."""
    fields = dict(headers or {})
    if key is not None:
        fields["Authorization"] = f"Bearer {key}"
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return await (await send(port, write_request(method, path, content, fields))).read()


@dataclass
class Customer:
    id: int
    email: str
    key: str


@dataclass
class House:
    """What an operator does with a gateway that is there for customers."""

    gateway: GatewayProcess
    _numbers: Any = field(default_factory=lambda: count(1))

    @property
    def port(self) -> int:
        return self.gateway.port

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to an administrator who must succeed."""
        answer = await ask(self.port, method, path, body, key=self.gateway.key)
        assert answer.status == 200, answer.body
        return answer.json

    async def make_customer(self, tier: str = "payg", *, own_limit: int | None = 0, **fields: Any) -> Customer:
        """A user with a key; `balance` in currency units. Without `own_limit` the tier's requests per minute count."""
        body = {"email": f"customer{next(self._numbers)}@example.org", "tier": tier, **fields}
        if own_limit is not None:
            body["requests_per_minute"] = own_limit
        user = await self.do("POST", "/admin/api/users", body)
        return Customer(user["id"], user["email"], await self.make_key(user["id"]))

    async def make_key(self, user_id: int, **fields: Any) -> str:
        return (await self.do("POST", f"/admin/api/users/{user_id}/apikey", fields))["key"]

    async def set_price(self, model: str, **units: float) -> None:
        await self.do("POST", "/admin/api/prices", {"model": model, **units})

    async def chat(self, who: Customer, model: str, **more: Any) -> Answer:
        return await post(self.port, who.key, hello(model, **more))

    async def embed(self, who: Customer, model: str) -> Answer:
        return await post(self.port, who.key, {"model": model, "input": "Hello"}, EMBEDDINGS)

    async def account(self, who: Customer) -> tuple[int, int]:
        """What is available and what is held, in micro units."""
        me = await ask(self.port, "GET", "/user/api/me", key=who.key)
        assert me.status == 200, me.body
        return round(me.json["balance"] * MICRO), round(me.json["held"] * MICRO)

    async def balance(self, who: Customer) -> int:
        """What is available once nothing is held any more."""

        async def settled() -> tuple[int, int] | None:
            found = await self.account(who)
            return None if found[1] else found

        return (await wait_until(settled))[0]

    async def check(self) -> Any:
        """The report of the ledger's check, which must be clean."""
        report = await self.do("GET", "/admin/api/ledger/check")
        assert report["ok"], report["problems"]
        return report
