"""Who has to leave when a model needs room: decisions only, from figures."""

from collections.abc import Iterable, Sequence

import msgspec


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model, as seen when somebody needs room."""

    name: str
    mib: float
    """What becomes free when it leaves."""
    idle_seconds: float
    """Since the last request ended."""
    busy: bool = False
    """Somebody has or awaits a lease."""
    pinned: bool = False


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model cannot be loaded whatever is unloaded for it; in MiB."""

    needs: float
    free: float
    could_be_freed: float

    def __str__(self) -> str:
        return (
            f"it needs {self.needs:,.0f} MiB of memory, {self.free:,.0f} MiB are free and "
            f"{self.could_be_freed:,.0f} MiB could be freed"
        )


def cost(resident: Resident) -> float:
    """What it would cost to have evicted it: more to load again, the larger it is and the likelier it is wanted."""
    return resident.mib / (1.0 + max(0.0, resident.idle_seconds))


def choose_victims(
    residents: Sequence[Resident], *, needs: float, free: float, slots_free: int
) -> tuple[str, ...] | Shortage:
    """Names of those who have to leave until `needs` MiB and a slot are there; none when both already are.

    The cheapest first, those in use only when the idle ones do not suffice, pinned ones never. Nobody leaves without
    need.
    """
    able = [resident for resident in residents if not resident.pinned]
    ranked = sorted(able, key=lambda resident: (resident.busy, cost(resident), resident.name))
    chosen: list[Resident] = []
    for resident in ranked:
        if _suffices(chosen, needs, free, slots_free):
            break
        chosen.append(resident)
    if not _suffices(chosen, needs, free, slots_free):
        return Shortage(needs=needs, free=max(0.0, free), could_be_freed=sum(resident.mib for resident in able))
    # A large one that came late may have made small ones before it needless; the dearest is spared first.
    for resident in sorted(chosen, key=lambda each: (each.busy, cost(each)), reverse=True):
        rest = [each for each in chosen if each is not resident]
        if _suffices(rest, needs, free, slots_free):
            chosen = rest
    return tuple(resident.name for resident in chosen)


def _suffices(leaving: Iterable[Resident], needs: float, free: float, slots_free: int) -> bool:
    gone = list(leaving)
    return slots_free + len(gone) >= 1 and free + sum(resident.mib for resident in gone) >= needs
