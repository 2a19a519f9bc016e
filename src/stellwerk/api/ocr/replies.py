"""The ways back of the two kinds of calls that read pages: nothing goes to a client before all pages are there."""

from collections.abc import AsyncIterator, Mapping

import msgspec

from stellwerk.api._routing import answered_by
from stellwerk.api.ocr.loops import find_loop
from stellwerk.core.call import Call, Wire
from stellwerk.core.errors import BadRequest, GatewayError, UpstreamBroken
from stellwerk.core.events import Event, Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from stellwerk.core.ports import Meter, UpstreamAnswer
from stellwerk.engines.ocr.page import OcrPage
from stellwerk.http.exchange import Headers
from stellwerk.providers._openai_events import read_events
from stellwerk.providers.ocr import read_pages

_WATCHED = 400
"""Characters after which a text that grows is looked at again."""
_MOST_CHARACTERS = 400_000
"""Of one page; nothing that can be read on one is longer."""


class _Reply:
    """What both have in common; fills the rest of the port `Reply`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.headers: Headers = ()
        self.started = False

    def admit(self, headers: Headers) -> None:
        self.headers += headers

    def tell(self, _error: GatewayError) -> bool:
        """Nothing is sent before there is an answer."""
        return False

    def fields(self, wire: Wire) -> Mapping[str, msgspec.Raw]:
        if wire is self._call.wire:
            return self._call.fields
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")


class PagesReply(_Reply):
    """Of a call to the reader of pages."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.pages: tuple[OcrPage, ...] = ()

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        body = await answer.read()
        self.pages = read_pages(body)
        meter.count(Usage(pages=len(self.pages)))
        meter.begin()
        self.headers += answered_by(self._call, target)

    async def render(
        self, _events: AsyncIterator[Event], _answer: UpstreamAnswer, _target: Target, _meter: Meter, /
    ) -> None:
        """Never needed: who reads pages answers in this wire."""
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")


class TranscriptReply(_Reply):
    """Of a chat with a model that sees: its text, which is broken off as soon as it goes round in a circle."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._pieces: list[str] = []
        self._length = 0
        self._looked = 0
        self.looped = False
        self.reason: str | None = None
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        await self.render(read_events(answer, self._call.wire, stream=self._call.stream), answer, target, meter)

    async def render(
        self, events: AsyncIterator[Event], _answer: UpstreamAnswer, target: Target, meter: Meter, /
    ) -> None:
        # An attempt that failed has left its pieces.
        self._pieces, self._length, self._looked, self.looped, self.reason = [], 0, 0, False, None
        async for event in events:
            if isinstance(event, Text) and event.index == 0:
                if not self._pieces:
                    meter.begin()
                self._pieces.append(event.text)
                self._length += len(event.text)
                meter.deliver(1, len(event.text.encode("utf-8", "replace")))
                if self._length > _MOST_CHARACTERS:
                    self.looped = True
                elif self._length - self._looked >= _WATCHED:
                    self._looked = self._length
                    self.looped = find_loop(self.text) is not None
                if self.looped:
                    # The upstream is told by the end of its connection.
                    break
            elif isinstance(event, Finished) and event.index == 0:
                self.reason = event.reason
            elif isinstance(event, Used):
                self.usage = event.usage
                meter.count(event.usage)
        else:
            if self.reason is None:
                raise UpstreamBroken("The upstream broke off in the middle of its answer.", may_fall_back=True)
            self.looped = find_loop(self.text) is not None
        meter.begin()
        self.headers += answered_by(self._call, target)
