"""The webhooks of one gateway: takes events, keeps them in the outbox and delivers them until they have arrived."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.storage.sealing import Seal, SealBroken
from stellwerk.webhooks import outbox
from stellwerk.webhooks.attempt import Receiver, Send, attempt
from stellwerk.webhooks.intake import Intake, Submit, open_body, seal_body
from stellwerk.webhooks.outbox import Claimed, Delivery, NewMessage, new_message_id
from stellwerk.webhooks.payloads import GENERATE_REQUESTED, TEST, make_body
from stellwerk.webhooks.retention import prune
from stellwerk.webhooks.schedule import Result, State, Verdict, pause_after
from stellwerk.webhooks.signing import open_secret
from stellwerk.webhooks.subscriptions import StoredSecrets, Subscription, get, list_with_secrets

_REFRESH_SECONDS = 1.0
_PRUNE_SECONDS = 60.0

_log = logging.getLogger(__name__)

Answered = TypeVar("Answered")


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    concurrent: int = 8
    """Receivers that are served at once; one receiver gets one message at a time."""
    timeout_seconds: float = 10.0
    lease_seconds: float = 60.0
    """After so long a message is due again whose delivery nobody has finished. Longer than any delivery takes."""
    messages_in_a_row: int = 20
    """For one receiver, before another one has its turn."""


class Run(Protocol):
    """`Writer.run` and `Database.fetch`: runs work in a transaction."""

    def __call__(self, work: Callable[[Connection], Answered], /) -> Awaitable[Answered]: ...


class _Pause(msgspec.Struct, frozen=True):
    failures: int
    until: float


class _Settled(msgspec.Struct, frozen=True):
    verdict: Verdict | None
    """None when the lease was lost."""
    following: Claimed | None


class Webhooks:
    """For the event loop's thread alone. `refresh` comes first: until then nobody is subscribed."""

    def __init__(
        self,
        *,
        run: Run,
        submit: Submit,
        fetch: Run,
        send: Send,
        seal: Seal,
        clock: Clock,
        settings: DeliverySettings | None = None,
    ) -> None:
        """`run`, `submit` and `fetch` are those of the storage, `send` is the egress guard's."""
        self.delivered = 0
        self.failed = 0
        """Deliveries that failed, each of a message that is tried again too."""
        self._run = run
        self._submit = submit
        self._fetch = fetch
        self._send = send
        self._seal = seal
        self._clock = clock
        self._settings = settings or DeliverySettings()
        self._owner = outbox.new_owner()
        self._wake = asyncio.Event()
        self._intake = Intake(submit, seal, stored=self._wake.set)
        self._wanted: Mapping[str, tuple[Subscription, ...]] = {}
        self._receivers: Mapping[int, Receiver] = {}
        self._pauses: dict[int, _Pause] = {}
        self._workers: dict[int, asyncio.Task[int]] = {}
        self._slots = asyncio.Semaphore(self._settings.concurrent)
        self._test_slots = asyncio.Semaphore(2)
        self._refresh_at = self._prune_at = clock.monotonic()

    # --- taking events

    def wants(self, event: str) -> bool:
        """Whether anybody is subscribed; who finds it costly to say what happened asks first."""
        return event in self._wanted

    def publish(self, event: str, data: Mapping[str, Any]) -> None:
        """Tells everybody who is subscribed that `event` has just happened.

        Never waits and never raises. What it takes is on the disk with the writer's next commit. `data` must be JSON
        and is read at once; for `generate.requested` it holds apikey, prompt, model, stream, images and raw.
        """
        for message in self._messages(event, data):
            self._intake.add(message)

    def store(self, connection: Connection, event: str, data: Mapping[str, Any]) -> None:
        """The same in a transaction of somebody else's: the messages are kept with what it does, or neither is.

        In the writer's thread. `look` afterwards sends them without delay.
        """
        self._intake.store_with(connection, self._messages(event, data))

    def look(self) -> None:
        """Something may be due that was not before."""
        self._wake.set()

    def _messages(self, event: str, data: Mapping[str, Any]) -> list[NewMessage]:
        now = self._clock.now()
        bodies: dict[tuple[bool, bool], bytes] = {}
        messages: list[NewMessage] = []
        for subscription in self._wanted.get(event, ()):
            options = subscription.with_images, subscription.with_key
            if event != GENERATE_REQUESTED:
                options = False, False
            try:
                if options not in bodies:
                    bodies[options] = make_body(event, data, now, with_images=options[0], with_key=options[1])
            except (TypeError, ValueError, RecursionError) as error:
                _log.error("an event %s cannot be told to webhooks: %s", event, type(error).__name__)
                self._intake.refused.append(subscription.id)
                continue
            messages.append(self._message(subscription.id, event, bodies[options], now))
        return messages

    @property
    def dropped(self) -> int:
        """Messages that are lost because too many waited for their receiver or for the storage."""
        return self._intake.count_dropped().total()

    def dropped_of(self, subscription_id: int) -> int:
        """The same of one subscription."""
        return self._intake.count_dropped()[subscription_id]

    def _message(self, subscription_id: int, event: str, body: bytes, now: float) -> NewMessage:
        return NewMessage(id=new_message_id(), subscription_id=subscription_id, event=event, body=body, created_at=now)

    # --- who is subscribed

    async def refresh(self) -> None:
        """Takes over the subscriptions as they are stored now. Raises Unavailable; what is known stays."""
        stored = await self._fetch(list_with_secrets)
        active = [(subscription, kept) for subscription, kept in stored if subscription.active]
        receivers = {subscription.id: self._receiver(subscription, kept) for subscription, kept in active}
        self._receivers = {number: receiver for number, receiver in receivers.items() if receiver is not None}
        wanted: dict[str, tuple[Subscription, ...]] = {}
        for subscription, _ in active:
            for event in subscription.events:
                wanted[event] = (*wanted.get(event, ()), subscription)
        self._wanted = wanted
        self._pauses = {number: pause for number, pause in self._pauses.items() if number in self._receivers}

    def _receiver(self, subscription: Subscription, stored: StoredSecrets) -> Receiver | None:
        sealed = [stored.secret]
        if stored.previous_secret is not None and (stored.previous_until or 0.0) > self._clock.now():
            sealed.append(stored.previous_secret)
        try:
            return Receiver(url=subscription.url, secrets=tuple(open_secret(self._seal, secret) for secret in sealed))
        except SealBroken:
            _log.error("the secret of the webhook %d cannot be read: nothing is sent to it", subscription.id)
            return None

    # --- delivering

    async def recover(self) -> None:
        """Makes due what a process that was killed had claimed. For the start of the one process that delivers."""
        await self._run(partial(outbox.release, owner="", now=self._clock.now()))

    async def run(self) -> None:
        """Delivers what is due, until cancelled. Afterwards `stop`."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._keep_up()
                    await self._start_due()
                except Unavailable:
                    # Readiness reports the storage; messages wait.
                    pass
                except Exception:  # noqa: BLE001 - the supervisor: messages wait, and the next look may succeed
                    _log.exception("webhooks are not delivered")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH_SECONDS):
                        await self._wake.wait()
        finally:
            await self._end_workers()
            # Nobody knows whether what was cut off has arrived: it is sent again, and without waiting for the lease.
            with contextlib.suppress(Unavailable):
                await self._run(partial(outbox.release, owner=self._owner, now=self._clock.now()))

    async def _keep_up(self) -> None:
        """What has to be done every now and then."""
        now = self._clock.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + _REFRESH_SECONDS
            await self.refresh()
            self._intake.store()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_SECONDS
            await self._run(partial(prune, now=self._clock.now()))

    async def deliver_due(self) -> int:
        """Delivers everything that is due now and returns how many deliveries were tried. Raises Unavailable."""
        await self._intake.flush()
        tried = 0
        while started := await self._start_due():
            tried += sum(await asyncio.gather(*started))
        return tried

    async def stop(self) -> None:
        """Stores what was published last. After `run` has ended and before the writer is closed."""
        await self._intake.flush()
        if lost := self._intake.waiting:
            _log.error("%d webhook messages could not be stored before the end", lost)

    async def _start_due(self) -> list[asyncio.Task[int]]:
        """Starts to serve receivers for whom something is due; returns all that are being served for this."""
        now = self._clock.monotonic()
        idle = [number for number in self._receivers if self._may_serve(number, now)]
        due = await self._fetch(partial(outbox.due_subscriptions, among=idle, now=self._clock.now()))
        started = []
        for number in due:
            if number not in self._workers:
                task = self._workers[number] = asyncio.create_task(self._serve(number))
                task.add_done_callback(partial(self._end_worker, number))
                started.append(task)
        return started

    def _may_serve(self, number: int, now: float) -> bool:
        pause = self._pauses.get(number)
        return number not in self._workers and (pause is None or now >= pause.until)

    def _end_worker(self, number: int, _task: asyncio.Task[int]) -> None:
        self._workers.pop(number, None)
        # What came while it ended is due.
        self._wake.set()

    async def _end_workers(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _serve(self, number: int) -> int:
        """Sends messages to one receiver, one after the other; returns how many."""
        tried = 0
        async with self._slots:
            try:
                claimed = await self._run(partial(self._claim, number=number))
                while claimed is not None and (receiver := self._receivers.get(number)) is not None:
                    tried += 1
                    more = tried < self._settings.messages_in_a_row
                    claimed = await self._deliver(claimed, receiver, more=more)
            except Unavailable:
                # A message that was claimed is due again when its lease is over.
                self._pause(number, None)
            except Exception:  # noqa: BLE001 - the messages of all others go on, and these after a pause
                _log.exception("the webhook %d cannot be served", number)
                self._pause(number, None)
        return tried

    async def _deliver(self, claimed: Claimed, receiver: Receiver, *, more: bool) -> Claimed | None:
        """Sends a claimed message; returns the next one for the same receiver, when `more` and there is one."""
        result = await self._send_claimed(claimed, receiver)
        if result.delivered:
            self._pauses.pop(claimed.subscription_id, None)
        else:
            self._pause(claimed.subscription_id, result.retry_after)
        work = partial(self._settle, claimed=claimed, result=result, more=more and result.delivered)
        # Shielded: what is known when the gateway stops must be stored, or it would be sent again.
        settled: _Settled = await asyncio.shield(asyncio.wrap_future(self._submit(work)))
        await self._take_verdict(claimed, result, settled.verdict)
        return settled.following

    async def _send_claimed(self, claimed: Claimed, receiver: Receiver) -> Result:
        if claimed.body is None:
            error = "The message was sealed with a secret that the gateway does not have any more."
            return Result(at=self._clock.now(), status=None, milliseconds=0, error=error)
        return await attempt(
            self._send,
            receiver,
            claimed.id,
            claimed.body,
            clock=self._clock,
            seconds=self._settings.timeout_seconds,
        )

    async def _take_verdict(self, claimed: Claimed, result: Result, verdict: Verdict | None) -> None:
        if result.delivered:
            self.delivered += 1
        else:
            self.failed += 1
        if verdict is None:
            return
        # Who has asked for a test is told what came of it.
        if verdict.state is State.FAILED and claimed.event != TEST:
            _log.warning("a message for the webhook %d has failed: %s", claimed.subscription_id, result.error)
        if verdict.disabled_reason is not None:
            _log.warning("the webhook %d is switched off: %s", claimed.subscription_id, verdict.disabled_reason)
            await self.refresh()

    def _pause(self, number: int, retry_after: float | None) -> None:
        failures = self._pauses[number].failures + 1 if number in self._pauses else 1
        self._pauses[number] = _Pause(failures, self._clock.monotonic() + pause_after(failures, retry_after))

    # --- in the writer's thread

    def _claim(self, connection: Connection, *, number: int) -> Claimed | None:
        now = self._clock.now()
        claimed = outbox.claim(connection, number, owner=self._owner, now=now, until=now + self._settings.lease_seconds)
        if claimed is None or claimed.body is None:
            return claimed
        try:
            body = open_body(self._seal, claimed.id, claimed.body)
        except SealBroken:
            body = None
        return msgspec.structs.replace(claimed, body=body)

    def _settle(self, connection: Connection, *, claimed: Claimed, result: Result, more: bool) -> _Settled:
        """Settles one message and claims the next one with the same commit."""
        now = self._clock.now()
        # Chance spreads the retries; nothing hangs on nobody guessing it.
        verdict = outbox.settle(connection, claimed, result, now=now, chance=random.random())  # noqa: S311
        return _Settled(verdict, self._claim(connection, number=claimed.subscription_id) if more else None)

    # --- for admins

    def enqueue_test(self, connection: Connection, subscription_id: int) -> str:
        """Puts a message `test` into the outbox and returns its id; `run` delivers it soon.

        Raises NotFound, code `webhook_not_found`, and Conflict for a subscription that is not active.
        """
        now = self._clock.now()
        message = self._test_message(connection, subscription_id, now)
        return outbox.append_claimed(connection, message, owner=self._owner, until=now).id

    async def send_test(self, subscription_id: int) -> Delivery:
        """Sends a message `test` now, whatever else waits, and returns what came of it. It is tried once.

        Raises as `enqueue_test` does, and Unavailable.
        """
        async with self._test_slots:
            await self.refresh()
            claimed, body = await self._run(partial(self._claim_test, subscription_id=subscription_id))
            receiver = self._receivers.get(subscription_id)
            if receiver is not None:
                await self._deliver(msgspec.structs.replace(claimed, body=body), receiver, more=False)
        return await self._fetch(partial(outbox.find_delivery, message_id=claimed.id))

    def _claim_test(self, connection: Connection, *, subscription_id: int) -> tuple[Claimed, bytes]:
        now = self._clock.now()
        message = self._test_message(connection, subscription_id, now)
        until = now + self._settings.lease_seconds
        claimed = outbox.append_claimed(connection, message, owner=self._owner, until=until)
        return claimed, open_body(self._seal, message.id, message.body)

    def _test_message(self, connection: Connection, subscription_id: int, now: float) -> NewMessage:
        subscription = get(connection, subscription_id)
        body = make_body(TEST, {"webhook": subscription.id, "description": subscription.description}, now)
        message = self._message(subscription_id, TEST, body, now)
        return msgspec.structs.replace(message, body=seal_body(self._seal, message.id, body))

    def list_deliveries(self, connection: Connection, subscription_id: int, limit: int = 100) -> list[Delivery]:
        """The newest messages of a subscription with the log of their deliveries, newest first."""
        return outbox.list_deliveries(connection, subscription_id, limit)

    def retry(self, connection: Connection, message_id: str) -> Delivery:
        """Makes a message due at once. Raises NotFound, code `delivery_not_found`, and Conflict, `delivery_gone`."""
        return outbox.retry(connection, message_id, self._clock.now())
