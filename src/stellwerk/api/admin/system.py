"""/admin/api/system: the machine and what the models take of it."""

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import Instant, show_instant
from stellwerk.api.admin.local_models import LocalModels
from stellwerk.api.admin.slot_shapes import SlotWord
from stellwerk.api.admin.slots import LookAtProcesses, show_slots
from stellwerk.core.principal import OBSERVERS
from stellwerk.engines.model_types import ModelType
from stellwerk.telemetry.machine import Memory

_TAG = "Slots"
_GIB = 1 << 30
_MIB = 1 << 20


class CoresShape(msgspec.Struct, kw_only=True):
    """Empty and null where the system does not tell."""

    percent_per_core: list[float]
    total_percent: float | None
    cores: int


class MachineMemoryShape(msgspec.Struct, kw_only=True):
    """Gibibytes; null where the system does not tell. What it would give back when asked counts as free."""

    total_gb: float | None
    available_gb: float | None
    used_gb: float | None
    percent: float | None


class ModelMemoryShape(msgspec.Struct, kw_only=True):
    """Mebibytes for models; null where no bound is known."""

    capacity_mb: float | None
    reserved_mb: Annotated[float, Meta(description="Of those that are loaded or being loaded.")]
    available_mb: Annotated[float | None, Meta(description="What the machine could give in addition.")]


class SlotLoadShape(msgspec.Struct, kw_only=True):
    """What one slot takes."""

    port: int
    status: SlotWord
    model: str | None
    model_type: ModelType | None
    pid: int | None
    ram_mb: float
    ram_percent: float | None
    cpu_percent: float | None
    threads: int | None


class WaitingLoadShape(msgspec.Struct, kw_only=True):
    """A model that waits for room."""

    model: str
    place: Annotated[int, Meta(description="1 is next.")]
    requests: int
    since: Instant


class SystemState(msgspec.Struct, kw_only=True):
    """The machine, and what the models take of it."""

    cpu: CoresShape
    memory: MachineMemoryShape
    models: ModelMemoryShape
    slots: list[SlotLoadShape]
    waiting: list[WaitingLoadShape]


class SystemAPI:
    """`cores` and `processor` tell percent, `memory` bytes of the machine."""

    def __init__(
        self,
        local: LocalModels,
        *,
        look: LookAtProcesses,
        cores: Callable[[], list[float]],
        processor: Callable[[], float | None],
        memory: Callable[[], Memory | None],
    ) -> None:
        self._local = local
        self._look = look
        self._cores = cores
        self._processor = processor
        self._memory = memory

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/system",
                access=OBSERVERS,
                tag=_TAG,
                summary="Show the machine and what the models take of it",
                handler=self._show,
                answer=SystemState,
                example=_SYSTEM,
            )
        )

    async def _show(self, _: Asked) -> SystemState:
        memory = self._memory()
        cores = self._cores()
        return SystemState(
            cpu=CoresShape(percent_per_core=cores, total_percent=self._processor(), cores=len(cores)),
            memory=_show_memory(memory),
            models=await self._show_budget(),
            slots=[
                SlotLoadShape(
                    port=slot.port,
                    status=slot.status,
                    model=slot.model_name,
                    model_type=slot.model_type,
                    pid=slot.pid,
                    ram_mb=slot.ram_mb,
                    ram_percent=None if memory is None else round(100 * slot.ram_mb * _MIB / memory.total, 1),
                    cpu_percent=slot.cpu_percent,
                    threads=slot.threads,
                )
                for slot in show_slots(self._local, self._look)
            ],
            waiting=[
                WaitingLoadShape(
                    model=load.model, place=load.place, requests=load.requests, since=show_instant(load.since)
                )
                for load in self._local.engines.waiting()
            ],
        )

    async def _show_budget(self) -> ModelMemoryShape:
        budget = await self._local.engines.memory()
        return ModelMemoryShape(
            capacity_mb=_rounded(budget.capacity_mib),
            reserved_mb=round(budget.reserved_mib, 1),
            available_mb=_rounded(budget.available_mib),
        )


def _rounded(mib: float | None) -> float | None:
    return None if mib is None else round(mib, 1)


def _show_memory(memory: Memory | None) -> MachineMemoryShape:
    if memory is None:
        return MachineMemoryShape(total_gb=None, available_gb=None, used_gb=None, percent=None)
    return MachineMemoryShape(
        total_gb=round(memory.total / _GIB, 2),
        available_gb=round((memory.total - memory.used) / _GIB, 2),
        used_gb=round(memory.used / _GIB, 2),
        percent=round(100 * memory.used / memory.total, 1),
    )


_SYSTEM = {
    "cpu": {"percent_per_core": [12.0, 13.0], "total_percent": 12.5, "cores": 2},
    "memory": {"total_gb": 15.62, "available_gb": 10.5, "used_gb": 5.12, "percent": 32.8},
    "models": {"capacity_mb": 12800.0, "reserved_mb": 5100.0, "available_mb": 7700.0},
    "slots": [
        {
            "port": 4801,
            "status": "running",
            "model": "Qwen2.5-7B-Instruct-Q4_K_M",
            "model_type": "text",
            "pid": 4711,
            "ram_mb": 5012.4,
            "ram_percent": 31.3,
            "cpu_percent": 0.0,
            "threads": 0,
        }
    ],
    "waiting": [],
}
