"""Takes over a changed config file while the gateway runs; a wrong one changes nothing."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.reading import load
from stellwerk.config.settings import Config


class ConfigWatch:
    """Looks at the file every `interval` seconds and whenever it is poked, by SIGHUP for instance.

    `on_change` gets every new config that differs from the one in use and may itself raise ConfigError to refuse it;
    `on_error` gets what is wrong. Both are called on the event loop.
    """

    def __init__(
        self,
        path: Path | None,
        environ: Mapping[str, str],
        current: Config,
        on_change: Callable[[Config], None],
        on_error: Callable[[Sequence[ConfigProblem]], None],
        interval: float = 1.0,
        vendors: Collection[str] | None = None,
    ) -> None:
        self._path = path
        self._environ = environ
        self._current = current
        self._on_change = on_change
        self._on_error = on_error
        self._interval = interval
        self._vendors = vendors
        self._poked = asyncio.Event()
        self._taken = self._fingerprint()

    def poke(self) -> None:
        """Reads the file at once, also when it looks unchanged. On the event loop only."""
        self._poked.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        seen = self._taken
        while True:
            poked = await self._pause()
            before, seen = seen, self._fingerprint()
            # A file that is being written may be empty for a moment, and an empty file is a valid config: a change
            # counts only when the file has been the same for two looks.
            if poked or (seen != self._taken and seen == before):
                await self._reload()
                self._taken = seen

    async def _pause(self) -> bool:
        try:
            await asyncio.wait_for(self._poked.wait(), self._interval)
        except TimeoutError:
            return False
        self._poked.clear()
        return True

    async def _reload(self) -> None:
        try:
            new = await asyncio.to_thread(load, self._path, self._environ, self._vendors)
            if new != self._current:
                self._on_change(new)
                self._current = new
        except ConfigError as error:
            self._on_error(error.problems)

    def _fingerprint(self) -> tuple[int, int, int] | None:
        """Changes with the file; None when there is none. One `stat`, too short to be worth a thread."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except (OSError, ValueError):
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
