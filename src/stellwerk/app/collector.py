"""The garbage collector of a process that answers calls."""

import gc

_OBJECTS_BETWEEN_COLLECTIONS = 20_000


def calm_collector() -> None:
    """What exists now stays, so the garbage collector need not walk through it again and again.

    Calls leave no cycles behind: looking for them after every 700 new objects finds nothing and holds up streams.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
