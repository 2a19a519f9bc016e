"""Real engines for tests: free ports, short times, and questions over a real socket."""

import asyncio
import http.client
import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from stellwerk.core.clock import Clock, SystemClock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.options import EngineDefaults
from stellwerk.engines.restarts import RestartSettings
from stellwerk.engines.slot_settings import SlotSettings
from stellwerk.engines.slots import Slots
from stellwerk.engines.supervisor import SupervisorSettings

DEADLINE = 60.0
"""Seconds that a test waits for anything before it fails; nothing normally takes one."""

QUICK = SupervisorSettings(
    load_timeout=DEADLINE,
    probe_interval=0.1,
    # Short, but not so short that an engine on a busy machine is taken for one that hangs.
    probe_timeout=1.5,
    pause_after_miss=0.05,
    grace=2.0,
    restarts=RestartSettings(first_delay=0.05),
)
SMALL = EngineDefaults(context=512, load_seconds=DEADLINE)

FAKE_SERVER = """\
#!{python} -IS
# Takes the command line of llama-server and answers like it, without a model.
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def option(name):
    return sys.argv[sys.argv.index(name) + 1]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = "Bearer " + os.environ["LLAMA_API_KEY"]
        allowed = self.path == "/health" or self.headers.get("Authorization") == wanted
        body = json.dumps({{"id": option("--alias"), "arguments": sys.argv[1:]}}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body) if allowed else 0))
        self.end_headers()
        self.wfile.write(body if allowed else b"")

    def log_message(self, *_):
        pass

print("fake server starts", file=sys.stderr, flush=True)
{trouble}
ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
"""


def write_fake_server(path: Path, trouble: str = "") -> Path:
    """A program that can stand in for `llama-server`; `trouble` is a line of Python that runs before it listens."""
    path.write_text(FAKE_SERVER.format(python=os.path.realpath(sys.executable), trouble=trouble))
    path.chmod(0o755)
    return path


RESERVED: deque[int] = deque()
"""Descriptors of the ports that this process was given lately: other runs on the machine see that they are taken."""
MOST_RESERVED = 300


def free_ports(count: int = 1) -> int:
    """The first of `count` neighbouring ports on which nobody listens, and which no other test is given meanwhile.

    They lie below those that the kernel hands out by itself.
    """
    for _ in range(200):
        first = random.randrange(20_000, 32_000)
        try:
            RESERVED.extend(_reserve(port) for port in range(first, first + count))
        except OSError:
            continue
        while len(RESERVED) > MOST_RESERVED:
            os.close(RESERVED.popleft())
        return first
    raise AssertionError("no free ports")


def _reserve(port: int) -> int:
    """Raises OSError when somebody has the port. Reserved is UDP's: TCP's stays free for whom it is meant for."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    reservation = socket.socket(type=socket.SOCK_DGRAM)
    try:
        reservation.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        raise
    return reservation.detach()


def small(server: Path | None = None, **said: Any) -> dict[str, Any]:
    """Settings for engines of a small context; with `server` they are `llama-server`, which that program plays."""
    defaults = msgspec.structs.replace(SMALL, **said)
    if server is None:
        return {"defaults": defaults}
    defaults = msgspec.structs.replace(defaults, engine="llama-server")
    return {"defaults": defaults, "programs": EnginePrograms(llama_server=str(server))}


@asynccontextmanager
async def running_slots(
    folder: Path,
    *,
    count: int = 2,
    first_port: int | None = None,
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    seams: Mapping[str, Any] | None = None,
    **said: Any,
) -> AsyncIterator[Slots]:
    """`seams` go to Slots itself, everything else is said in its settings."""
    usual: dict[str, Any] = {"bundled": (), "preload": (), "rescan_after": 0.0, "defaults": SMALL, "supervisor": QUICK}
    settings = SlotSettings(folder=folder, first_port=first_port or free_ports(count), count=count, **{**usual, **said})
    slots = Slots(settings, clock or SystemClock(), os.environ if environment is None else environment, **(seams or {}))
    await slots.start()
    try:
        yield slots
    finally:
        await slots.stop()


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that nobody announces."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 — there is no event to wait for
            await asyncio.sleep(0.005)


def soon(seconds: float = DEADLINE) -> float:
    return time.monotonic() + seconds


async def ask(address: EngineAddress, path: str, body: Any = None, *, key: str | None = "") -> tuple[int, Any]:
    """Status and JSON body of a request; `key` "" is the engine's own, None is none."""
    return await asyncio.to_thread(_ask, address, path, body, address.key if key == "" else key)


def _ask(address: EngineAddress, path: str, body: Any, key: str | None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=DEADLINE)
    try:
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {key}"} if key else {},
        )
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


async def chat(address: EngineAddress) -> int:
    """Status of a short chat."""
    messages = [{"role": "user", "content": "hello"}]
    status, _ = await ask(address, "/v1/chat/completions", {"messages": messages, "max_tokens": 3})
    return status


def ends(pid: int, seconds: float) -> bool:
    """Whether a process, not necessarily a child, ends within `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
