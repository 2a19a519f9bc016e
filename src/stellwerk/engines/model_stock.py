"""What could be loaded, and how: the files of the last scan, with what is said of each of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from stellwerk.core.clock import Clock
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.plan import Model
from stellwerk.engines import launching
from stellwerk.engines.model_files import ModelFile, ModelFiles, Shelf
from stellwerk.engines.options import EngineDefaults, EngineOptions, EngineOverrides, resolve_options
from stellwerk.engines.projectors import Projector

_RETRY = 5.0


class ModelStock:
    """Owns the last scan. `said` is what operators have said of single models while the gateway ran."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        bundled: frozenset[str],
        defaults: EngineDefaults,
        configured: Mapping[str, EngineOverrides],
        rescan_after: float,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """`configured` is what the configuration says of single models. `changed` is called when `models` differs."""
        self._files = files
        self._bundled = bundled
        self._defaults = defaults
        self._configured = configured
        self._rescan_after = rescan_after
        self._clock = clock
        self._changed = changed
        self._shelf = Shelf(files={}, broken={})
        self._scanned = float("-inf")
        self._scanning = asyncio.Lock()
        self._models: list[Model] = []
        self.said: dict[str, EngineOverrides] = {}

    @property
    def files(self) -> Mapping[str, ModelFile]:
        return self._shelf.files

    @property
    def broken(self) -> Mapping[str, str]:
        return self._shelf.broken

    @property
    def projectors(self) -> tuple[Projector, ...]:
        return self._shelf.projectors

    @property
    def models(self) -> Sequence[Model]:
        return self._models

    def is_bundled(self, model: str) -> bool:
        return model in self._bundled

    def options(self, file: ModelFile, said: EngineOverrides | None = None) -> EngineOptions:
        """How a file is to be loaded. `said` takes the place of what was said before."""
        word = self.said.get(file.id) if said is None else said
        configured = self._configured.get(file.id, EngineOverrides())
        overrides = configured if word is None else word.over(configured)
        return resolve_options(file, self._defaults, overrides, self._shelf.projectors)

    def say(self, model: str, said: EngineOverrides) -> None:
        """Remembers how a model is wanted from now on; an empty word forgets."""
        self.said.pop(model, None)
        if said != EngineOverrides():
            self.said[model] = said
        self.describe()

    async def find(self, model: str) -> ModelFile:
        """The file of a model; looks again for one that is not known, for it may have just been put there.

        Raises NotFound, and Unavailable for a file that cannot be used.
        """
        if model not in self.files and self._clock.monotonic() - self._scanned >= self._rescan_after:
            await self.scan()
        return self.get(model)

    def get(self, model: str) -> ModelFile:
        """The same without looking again."""
        file = self.files.get(model)
        if file is not None:
            return file
        if model in self.broken:
            reason = f"The model '{model}' cannot be loaded: {self.broken[model]}."
            raise Unavailable(reason, code="model_failed", retry_after=_RETRY, may_fall_back=True)
        raise NotFound(f"There is no local model '{model}'.", code="model_not_found", param="model")

    async def scan(self) -> None:
        async with self._scanning:
            before = self._shelf
            self._shelf = await asyncio.to_thread(self._files.scan)
            self._scanned = self._clock.monotonic()
        if self._shelf != before:
            self.describe()

    def describe(self) -> None:
        """Makes `models` anew."""
        before = self._models
        self._models = [launching.describe(file, self.options(file)) for file in self.files.values()]
        if self._models != before:
            self._changed()
