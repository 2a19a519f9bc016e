"""Fetches the images that a chat names by their address, for models whose upstream takes them as data only.

Engines would fetch whatever address they are given, and so reach whatever this machine reaches. Here each goes through
the guard for URLs that people set, and only for calls that have been admitted.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import (
    BadRequest,
    GatewayError,
    Unavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.plan import Model, Target
from stellwerk.http.egress import EgressAnswer
from stellwerk.http.egress_url import UrlRefused
from stellwerk.http.upstream import AnswerTooLarge, ConnectionDied
from stellwerk.pipeline.image_links import ImageLink, put_in
from stellwerk.routing.needs import Need, lacks

_REDIRECTS = 3
# Servers that choose by this field often prefer WebP, which llama.cpp does not read.
_HEADERS = (("accept", "image/jpeg, image/png, image/gif;q=0.9, image/bmp;q=0.9, image/*;q=0.1"),)
_REMEDY = "Send the image in the request itself, as a data: URL (base64)."
_BMP_HEADERS = frozenset(length.to_bytes(4, "little") for length in (12, 40, 52, 56, 64, 108, 124))
"""How long the header may be that follows that of the file: two letters alone could begin any text."""

_log = logging.getLogger("stellwerk.pipeline")


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, bytes and counts."""

    request_bytes: int
    """The longest messages with all images in them, as the longest body of a request."""
    image_bytes: int = 20 * 1024 * 1024
    images: int = 32
    """Of one request, by their address."""
    seconds: float = 20.0
    """For all images of a request."""
    at_once: int = 16
    """Images that are being fetched, of all users and of one."""
    at_once_of_user: int = 4
    requests_held: int = 8
    """Fetched images take up to so many times `request_bytes` of memory, of all users and of one."""
    requests_held_of_user: int = 4


class Fetching(Protocol):
    """The part of `Egress` that is needed here."""

    async def send(
        self, method: str, url: str, headers: Any, body: bytes = b"", *, seconds: float, most_bytes: int, redirects: int
    ) -> EgressAnswer: ...


class Images:
    """Owns the memory of fetched images, and decides who fetches next."""

    def __init__(
        self, egress: Fetching, settings: ImageSettings, clock: Clock, model_of: Callable[[Target], Model | None]
    ) -> None:
        """`model_of` tells what is known of a target."""
        self.settings = settings
        """May be replaced."""
        self._egress = egress
        self._clock = clock
        self._model_of = model_of
        self._turns = _Turns(settings.at_once, settings.at_once_of_user)
        self.held = 0
        """Bytes of images that have been fetched and not been sent yet."""
        self._held_of: dict[str, int] = {}

    async def fetch(self, call: Call, target: Target, links: Sequence[ImageLink]) -> "FetchedImages":
        """The body of the call with the images in it; to be released when it has been sent.

        Raises BadRequest naming the image, and Unavailable while too many are held.
        """
        self._check(target, links)
        settings, messages = self.settings, call.fields["messages"]
        fetched = FetchedImages(self, call, links, room=settings.request_bytes - len(bytes(messages)))
        fetched.take_room(0)
        seconds = min(settings.seconds, max(0.0, call.deadline - self._clock.monotonic()))
        failure: GatewayError | None = None
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for link in fetched.first.values():
                    group.create_task(self._fetch_one(link, fetched, seconds))
            fetched.fields = {**call.fields, "messages": put_in(messages, links, fetched.data_urls)}
            # They would be held twice for as long as the call waits for its turn.
            fetched.data_urls = {}
        except TimeoutError:
            failure = _late(fetched.missing, settings.seconds)
        except ExceptionGroup as failures:
            failure = _first(failures)
        finally:
            if not fetched.fields:
                fetched.release()
        if failure is not None:
            raise failure
        return fetched

    def _check(self, target: Target, links: Sequence[ImageLink]) -> None:
        """Refuses what need not be fetched to be refused."""
        model = self._model_of(target)
        if model is not None and lacks(model, frozenset({Need.IMAGE})) is not None:
            raise BadRequest(
                f"The model '{model.id}' takes no image input.", param="messages", code="unsupported_value"
            )
        most = self.settings.images
        if len(links) > most:
            raise BadRequest(
                f"A request to this model may name {most} images by their address; this one names {len(links)}. "
                "Send fewer, or send them in the request itself, as data: URLs (base64).",
                param=links[most].place,
                code="too_many_images",
            )

    def take(self, user: str, size: int) -> None:
        """Counts so many bytes more; none are counted when it raises Unavailable because there are too many."""
        settings, held = self.settings, self._held_of.get(user, 0) + size
        if (
            self.held + size > settings.requests_held * settings.request_bytes
            or held > settings.requests_held_of_user * settings.request_bytes
        ):
            raise Unavailable(
                "Too many images are being read at the moment.", code="images_busy", retry_after=2, may_fall_back=True
            )
        self.held += size
        if size:
            self._held_of[user] = held

    def give_back(self, user: str, size: int) -> None:
        """The same bytes, once each."""
        self.held -= size
        left = self._held_of.get(user, 0) - size
        if left > 0:
            self._held_of[user] = left
        else:
            self._held_of.pop(user, None)

    async def _fetch_one(self, link: ImageLink, fetched: "FetchedImages", seconds: float) -> None:
        most = min(self.settings.image_bytes, self.settings.request_bytes)
        async with self._turns.take(fetched.user):
            answer = await self._ask(link, fetched.call_id, seconds, most)
            # Raised here and not where it was caught: an error keeps the one before it, and that one half an image.
            if isinstance(answer, BadRequest):
                raise answer
            kind = sniff_image(answer.body) if 200 <= answer.status < 300 else None
            if kind is None:
                raise _no_image(link)
            fetched.take(link, b"data:image/%b;base64,%b" % (kind, base64.b64encode(answer.body)))

    async def _ask(self, link: ImageLink, call_id: str, seconds: float, most: int) -> EgressAnswer | BadRequest:
        try:
            return await self._egress.send(
                "GET", link.url, _HEADERS, seconds=seconds, most_bytes=most, redirects=_REDIRECTS
            )
        except (UrlRefused, UpstreamError) as error:
            # The client is told less: only who runs the gateway may know what its network looks like.
            _log.info("image %d of %s was not fetched: %s", link.number, call_id, error.message)
            return self._translate(error, link, most)

    def _translate(self, error: GatewayError, link: ImageLink, most: int) -> BadRequest:
        if isinstance(error, AnswerTooLarge):
            return _too_large(link, most)
        if isinstance(error, UpstreamTimeout):
            return _late(link, self.settings.seconds)
        return _no_image(link) if isinstance(error, UpstreamBroken | ConnectionDied) else _refused(link)


class FetchedImages:
    """The images of one call and the body with them in it. Their memory is counted until they are released."""

    def __init__(self, owner: Images, call: Call, links: Sequence[ImageLink], room: int) -> None:
        """`room` is how many bytes they may add to the messages."""
        caller = call.principal
        self.user = str(caller.user_id) if caller.user_id else caller.key_id
        self.call_id = call.id
        self.fields: Mapping[str, msgspec.Raw] = {}
        self.first: dict[str, ImageLink] = {}
        """Each address once."""
        self._uses: dict[str, int] = {}
        for link in links:
            self.first.setdefault(link.url, link)
            self._uses[link.url] = self._uses.get(link.url, 0) + 1
        self.data_urls: dict[str, bytes] = {}
        self._owner = owner
        self._room = room
        self._size = 0

    def take(self, link: ImageLink, data_url: bytes) -> None:
        """Raises BadRequest when it does not fit any more, and Unavailable when the images of all calls do not."""
        size = len(data_url) * self._uses[link.url]
        if self._size + size > self._room:
            raise BadRequest(
                f"With its images, as base64, the request is larger than {self._owner.settings.request_bytes} bytes. "
                "Send fewer or smaller ones; the limit is `guard.body_bytes` in the gateway's configuration.",
                param=link.place,
                code="images_too_large",
            )
        self.take_room(size)
        self.data_urls[link.url] = data_url

    def take_room(self, size: int) -> None:
        """Raises Unavailable when there is none, be it for 0 bytes."""
        self._owner.take(self.user, size)
        self._size += size

    @property
    def missing(self) -> ImageLink:
        """The first that is not there; the first of all when none is missing."""
        links = self.first
        return next((link for url, link in links.items() if url not in self.data_urls), next(iter(links.values())))

    def release(self) -> None:
        """They have been sent, or are not needed any more."""
        self.fields = {}
        self.data_urls = {}
        self._owner.give_back(self.user, self._size)
        self._size = 0


class _Turns:
    """Lets a few fetch at a time, of all and of each user: slow servers of one must not hold up everybody's images."""

    def __init__(self, of_all: int, of_user: int) -> None:
        self._all = asyncio.Semaphore(of_all)
        self._of_user = of_user
        self._users: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def take(self, user: str) -> AsyncIterator[None]:
        own, waiting = self._users.setdefault(user, (asyncio.Semaphore(self._of_user), []))
        waiting.append(None)
        try:
            async with own, self._all:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._users[user]


def sniff_image(data: bytes) -> bytes | None:
    """What the first bytes say it is, as in `image/…`; None for what is no image that models take."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return b"gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return b"webp"
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        return b"bmp"
    return None


def _refused(link: ImageLink) -> BadRequest:
    # One text for whatever is wrong with an address: a difference would tell what the private network looks like.
    return _unusable(
        link,
        "was not fetched: its address does not lead to a public server that answers. The gateway calls https:// and "
        "http:// addresses without user and password, and of its own network only what an administrator has allowed "
        "in egress.allowed_origins.",
        "invalid_image_url",
    )


def _late(link: ImageLink, seconds: float) -> BadRequest:
    return _unusable(
        link, f"did not arrive in time: all images of a request have {seconds:.0f} seconds.", "invalid_image_url"
    )


def _no_image(link: ImageLink) -> BadRequest:
    # Which status it was would tell what the address is good for.
    return _unusable(
        link, "was not found at its address: JPEG, PNG, WebP, GIF and BMP are taken.", "invalid_image_format"
    )


def _too_large(link: ImageLink, most: int) -> BadRequest:
    return _unusable(link, f"has more than {most} bytes.", "image_too_large", "Send a smaller one.")


def _unusable(link: ImageLink, reason: str, code: str, remedy: str = _REMEDY) -> BadRequest:
    return BadRequest(f"Image {link.number} of the request {reason} {remedy}", param=link.place, code=code)


def _first(failures: ExceptionGroup) -> GatewayError:
    """One of the errors, all of them without the frames that they passed, in which whole images lie: errors are kept
    for longer than what they are about."""
    errors = [error.with_traceback(None) for error in failures.exceptions if isinstance(error, GatewayError)]
    if len(errors) < len(failures.exceptions):
        raise failures
    return errors[0]
