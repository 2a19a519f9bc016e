"""Who waits for a worker: a line for each document, and the lines take turns. A long document holds up no short one."""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """Bounded by whoever adds to it."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[asyncio.Future[_T]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(not waiter.done() for line in self._lines.values() for waiter in line)

    def join(self, line: str) -> "asyncio.Future[_T]":
        waiter: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(line, deque()).append(waiter)
        return waiter

    def leave(self, line: str, waiter: "asyncio.Future[_T]") -> None:
        """To be called by a waiter that gives up."""
        waiting = self._lines.get(line)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._lines[line]

    def next(self) -> "asyncio.Future[_T] | None":
        """The first of the line whose turn it is; that line goes to the end of the round."""
        while self._lines:
            name, line = self._lines.popitem(last=False)
            waiter = line.popleft()
            if line:
                self._lines[name] = line
            if not waiter.done():
                return waiter
        return None
