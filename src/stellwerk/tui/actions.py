"""What the keys do to the gateway: asked first where something would be lost, one deed at a time."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from textual.screen import ModalScreen

from stellwerk.tui.dialogs import Choice, Question
from stellwerk.tui.language import Words
from stellwerk.tui.snapshot import RESOLUTIONS, Crash, Job, Model, Queue
from stellwerk.tui.source import Source
from stellwerk.tui.trouble import ConsoleTrouble

Chosen = Model | Queue | Job | Crash | None


class Asks(Protocol):
    """Shows a small window and returns what was answered."""

    async def __call__(self, screen: ModalScreen[Any]) -> Any: ...


class Tells(Protocol):
    def __call__(self, text: str, *, bad: bool = False) -> None: ...


class Actions:
    """`source` is None while nobody answers; `done` is called after each deed."""

    def __init__(
        self, words: Words, *, source: Callable[[], Source | None], ask: Asks, tell: Tells, done: Callable[[], None]
    ) -> None:
        self._words = words
        self._source = source
        self._ask = ask
        self._tell = tell
        self._done = done
        self._doing = ""

    @property
    def is_at_work(self) -> bool:
        return bool(self._doing)

    async def act(self, name: str, chosen: Chosen) -> None:
        """Does what the key `name` stands for with the chosen line."""
        if self._doing:
            self._tell(self._words("doing", what=self._doing))
        elif name == "resolution":
            await self._choose_resolution(chosen)
        elif isinstance(chosen, Model) and name in {"start", "stop", "force"}:
            await (self._start(chosen) if name == "start" else self._stop(chosen, force=name == "force"))
        elif isinstance(chosen, Queue) and name == "pause":
            await self._pause(chosen)
        elif isinstance(chosen, Job) and name == "cancel":
            await self._cancel(chosen)
        else:
            self._tell(self._words("choose_first" if chosen is None else "not_here"))

    async def _start(self, model: Model) -> None:
        if model.loaded and model.state != "crashed":
            self._tell(self._words("already_loaded", model=model.name))
            return
        await self._do("start", lambda source: source.start(model), model=model.name)

    async def _stop(self, model: Model, *, force: bool) -> None:
        if not model.loaded:
            self._tell(self._words("not_loaded", model=model.name))
            return
        question = self._words("ask.force" if force else "ask.stop", model=model.name)
        if await self._ask(Question(question, self._words)):
            await self._do("stop", lambda source: source.stop(model, force=force), model=model.name)

    async def _choose_resolution(self, chosen: Chosen) -> None:
        now = chosen.resolution if isinstance(chosen, Model) else ""
        picked = await self._ask(Choice(self._words("ask.resolution"), RESOLUTIONS, now, self._words))
        if picked is not None:
            await self._do("resolution", lambda source: source.set_resolution(picked), resolution=picked)

    async def _pause(self, queue: Queue) -> None:
        name = "resume" if queue.paused else "pause"
        await self._do(name, lambda source: source.set_paused(queue, not queue.paused), queue=queue.name)

    async def _cancel(self, job: Job) -> None:
        short = job.id[:8]
        if job.ended:
            self._tell(self._words("has_ended"))
        elif await self._ask(Question(self._words("ask.cancel", id=short), self._words)):
            await self._do("cancel", lambda source: source.cancel(job), id=short)

    async def _do(self, name: str, deed: Callable[[Source], Awaitable[None]], **values: str) -> None:
        source = self._source()
        if source is None:
            self._tell(self._words("connecting"), bad=True)
            return
        self._doing = self._words(f"doing.{name}", **values)
        self._tell(self._doing)
        try:
            await deed(source)
        except ConsoleTrouble as trouble:
            self._tell(self._words.trouble(trouble), bad=True)
        else:
            self._tell(self._words(f"did.{name}", **values))
        finally:
            self._doing = ""
            self._done()
