"""The administration on a router, over a real database and a real key ring."""

import asyncio
import json
from concurrent.futures import Future

from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.account import AccountAPI
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.audit import AuditAPI
from stellwerk.api.admin.keys import KeysAPI
from stellwerk.api.admin.missing_models import MissingModelsAPI
from stellwerk.api.admin.money import MoneyAPI
from stellwerk.api.admin.reports import ReportsAPI
from stellwerk.api.admin.settings import (
    ConfiguredSettings,
    PricingShape,
    RateLimitsShape,
    SettingsAPI,
    SignupShape,
    SlotShape,
)
from stellwerk.api.admin.signups import SignupsAPI
from stellwerk.api.admin.users import UsersAPI
from stellwerk.api.admin.webhooks import WebhooksAPI
from stellwerk.api.openapi import OpenAPI
from stellwerk.api.own_keys import OwnKeysAPI
from stellwerk.auth.keys import NewKey
from stellwerk.auth.ring import KeyRing, load_changes
from stellwerk.auth.tokens import make_digest
from stellwerk.auth.users import NewUser
from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.plan import Model
from stellwerk.core.principal import Allowance, Role
from stellwerk.core.secrets import Secret
from stellwerk.http.egress import Egress, EgressAnswer
from stellwerk.http.router import Router
from stellwerk.ledger.calls import CallLedger
from stellwerk.limits.admit import RateStatus
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from stellwerk.storage.sealing import Seal
from stellwerk.storage.writer import Writer
from stellwerk.telemetry.machine import Memory
from stellwerk.webhooks.delivery import Webhooks
from tests.port_fakes import RecordedExchange

CLI = Actor(name="cli:test")
DIGEST = make_digest(Secret("00" * 32))
SEAL = Seal(bytes(32))
ALLOWED_ORIGIN = "http://127.0.0.1:9000"
CONFIGURED = ConfiguredSettings(
    default_threads=3,
    default_ctx_size=8192,
    pricing=PricingShape(input_per_1k=0.0001, output_per_1k=0.0002),
    rate_limits=RateLimitsShape(payg=25, sub=100),
    signup=SignupShape(enabled=False),
)
MODELS = (
    Model(provider="local", name="demo", id="demo", local=True),
    Model(provider="openai", name="gpt", id="openai/gpt", input_modalities=("text", "image")),
)


class Watch:
    def refused(self, code):
        pass


async def resolve(name, port):
    """A public address for every name but one."""
    if name == "nowhere.example.org":
        raise OSError
    return ["93.184.215.14"]


async def hash_password(password):
    return f"encoded:{len(password.reveal())}"


class AdminSite:
    """Asks as whoever's key is given; `admin` is one of the built-in account's."""

    def __init__(self, database, clock):
        self.database, self.clock = database, clock
        self.router, self.changes = Router(), 0
        self.usual = Allowance()
        self.rate = RateStatus(limit=25, remaining=24, resets_in=40.2)
        self.ring = KeyRing(self._load, DIGEST, clock)
        self.sent, self.receiver_answers = [], 204
        self.webhooks = Webhooks(
            run=self._run, submit=self._submit, fetch=database.fetch, send=self._send, seal=SEAL, clock=clock
        )
        self.registry = Registry(Routes(self.router, self.ring, Watch()))
        administration = Administration(
            run=self._run,
            fetch=database.fetch,
            clock=clock,
            digest=DIGEST,
            currency="EUR",
            changed=self._changed,
        )
        self._register(administration)
        self.admin = self.make_key(None, Role.ADMIN)

    def _register(self, administration):
        for api in (
            UsersAPI(administration, hash_password),
            KeysAPI(administration),
            MoneyAPI(administration),
            SignupsAPI(administration),
            SettingsAPI(administration, configured=lambda: CONFIGURED, slots=self._slots),
            AuditAPI(administration),
            MissingModelsAPI(administration),
            ReportsAPI(
                administration,
                loaded=lambda: ["demo"],
                processor=lambda: 12.5,
                memory=lambda: Memory(used=1 << 30, total=4 << 30),
            ),
            AccountAPI(
                administration, status=lambda caller: self.rate, models=lambda: MODELS, ports=lambda: {"demo": 4801}
            ),
            OwnKeysAPI(administration, lambda: self.usual),
            WebhooksAPI(
                administration,
                seal=SEAL,
                check=Egress(lambda: (ALLOWED_ORIGIN,), resolve=resolve).check,
                test=self.webhooks.send_test,
                refresh=self.webhooks.refresh,
            ),
        ):
            api.register(self.registry)
        OpenAPI(self.registry, "1.2.3").register()

    async def _load(self, since):
        return await self.database.fetch(lambda connection: load_changes(connection, since))

    async def _run(self, work):
        return await asyncio.to_thread(self.database.write, work)

    def _submit(self, work):
        done = Future()
        done.set_result(self.database.write(work))
        return done

    async def _send(self, method, url, headers, body=b"", **_):
        self.sent.append((method, url, dict(headers), body))
        return EgressAnswer(status=self.receiver_answers, headers={}, body=b"")

    async def _changed(self):
        self.changes += 1
        await self.ring.refresh()

    def _slots(self):
        loaded = SlotShape(model_path="demo.gguf", model_type="text", ctx_size=8192, threads=3)
        return {"4801": loaded, "4802": None}

    def write(self, work):
        return self.database.write(work)

    def make_user(self, email="ada@example.org", **fields):
        new = NewUser(email=email, **fields)
        return self.write(lambda connection: actions.create_user(connection, CLI, new, now=self.clock.now()))

    def make_key(self, user_id, role=Role.USER, **fields):
        new = NewKey(name="test", user_id=user_id, role=role, **fields)
        _, token = self.write(lambda connection: actions.create_key(connection, CLI, new, DIGEST, now=self.clock.now()))
        return token.reveal()

    def record_call(self, user_id, *, key_id="k", model="demo", cost=1_000, at=None, error=None):
        writer = Writer(self.database.writing)
        CallLedger(self.database, writer).record(
            Outcome(
                id="req_1",
                at=self.clock.now() if at is None else at,
                key_id=key_id,
                user_id=user_id,
                operation=Operation.CHAT,
                model=model,
                provider="local",
                target=model,
                stream=False,
                status=200,
                error=error,
                attempts=1,
                usage=Usage(input_tokens=100, output_tokens=20),
                estimated=False,
                cost=cost,
                duration=0.5,
                first_byte=0.1,
            )
        )
        writer.close()

    def audited(self):
        """Actions and subjects, newest first."""
        records = self.database.read(lambda connection: audit.read(connection, limit=100))
        return [(record.action, record.subject) for record in records]

    async def ask(self, method, path, body=None, *, key=None, query="", headers=()):
        exchange = RecordedExchange(
            method=method,
            path=path,
            query=query.encode(),
            headers={b"authorization": f"Bearer {key or self.admin}".encode(), **dict(headers)},
            body=b"" if body is None else json.dumps(body).encode(),
        )
        methods = self.router.find(path)
        assert methods is not None, path
        await methods[method](exchange)
        return exchange

    async def get(self, path, **more):
        """The answer of a request that must succeed."""
        exchange = await self.ask("GET", path, **more)
        assert exchange.status == 200, exchange.written
        return exchange.json

    async def send(self, method, path, body=None, **more):
        """The answer of a request that must succeed."""
        exchange = await self.ask(method, path, body, **more)
        assert exchange.status == 200, exchange.written
        return exchange.json

    async def refused(self, method, path, body=None, **more):
        """Status and code of a request that must not succeed."""
        exchange = await self.ask(method, path, body, **more)
        assert exchange.status >= 400, exchange.written
        assert exchange.json["detail"] == exchange.json["error"]["message"]
        return exchange.status, exchange.json["error"]["code"]
