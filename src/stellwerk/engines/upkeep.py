"""What goes on by itself: models of before a restart come back, unused ones go, new files are seen, places told."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Conflict, GatewayError
from stellwerk.engines.load_line import LoadLine, LoadOrder
from stellwerk.engines.model_stock import ModelStock
from stellwerk.engines.placements import PlacementBook, restore_order
from stellwerk.engines.residents import Residents

log = logging.getLogger("stellwerk.engines")


class Upkeep:
    """Works for the background; none of them ends before it is cancelled, but for `restore`."""

    def __init__(
        self, stock: ModelStock, residents: Residents, line: LoadLine, book: PlacementBook, clock: Clock
    ) -> None:
        self._stock = stock
        self._residents = residents
        self._line = line
        self._book = book
        self._clock = clock
        self.lost: dict[str, str] = {}
        """Models that could not be restored since their files are gone, with the words for it."""

    async def watch_folder(self, first_look: asyncio.Task[None], seconds: float, seen: Callable[[], None]) -> None:
        """Looks into the folder every so often; calls `seen` after each look."""
        await asyncio.wait({first_look})
        while True:
            seen()
            await asyncio.sleep(seconds)
            await self._stock.scan()

    async def watch_idle(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self.unload_idle()

    def unload_idle(self) -> None:
        """Ends the engines that nobody has used for as long as they are kept."""
        now = self._clock.monotonic()
        for tenant in list(self._residents.tenants()):
            kept = None if tenant.pinned or tenant.opened_at is None else tenant.keep_alive
            if kept is not None and not tenant.leases and now - tenant.used >= kept:
                log.info("engine %s has not been used for %g s", tenant.file.id, kept)
                self._residents.leave_tenant(tenant)

    async def tell_places(self, seconds: float, more: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            self._line.tell_places()
            more()

    async def restore(
        self, first_look: asyncio.Task[None], preload: tuple[str, ...], pinned: Mapping[str, bool]
    ) -> None:
        """Loads what was loaded before the restart, one after the other; what fails does not stop the others.

        `pinned` is what is to be loaded in any case.
        """
        await asyncio.wait({first_look})
        wanted = {model: self._book.pinned.get(model, pin) for model, pin in {**pinned, **self._book.pinned}.items()}
        here = [model for model in preload if model in self._stock.files and model not in self._book.dismissed]
        for model, port in restore_order(self._book.to_restore, wanted, here):
            try:
                await self._restore_one(model, port)
            except GatewayError as error:
                log.warning("the model %s is not loaded again: %s", model, error.message)
            if port is not None:
                self._book.to_restore.pop(port, None)
        self._book.to_restore.clear()
        self._book.keep(self._residents.ports(), self._stock.said)

    async def _restore_one(self, model: str, port: int | None) -> None:
        if model not in self._stock.files:
            self.lost[model] = self._stock.broken.get(model, "its file is gone since the last start")
            log.warning("the model %s is not loaded again: %s", model, self.lost[model])
            return
        slot = self._residents.slot_at(port) if port is not None else None
        if slot is not None and slot.vacant:
            try:
                await self._load(LoadOrder(port=slot.port, gentle=True), model)
            except Conflict as error:
                log.warning("the model %s gets another slot: %s", model, error.message)
            else:
                return
        await self._load(LoadOrder(gentle=True), model)

    async def _load(self, order: LoadOrder, model: str) -> None:
        tenant = await self._line.wait(model, order=order)
        tenant.give_up()
