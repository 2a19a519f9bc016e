"""Listeners and pools on real sockets."""

import asyncio
import contextlib

import pytest
import uvloop

from stellwerk.http.guard import GuardSettings
from tests.running_listener import Running, listening
from tests.upstream_calls import Calls, RawUpstream

# The gateway runs on uvloop where there is one and on asyncio's own loop elsewhere; their transports differ.
ON_BOTH_LOOPS = {
    "test_egress.py",
    "test_pool.py",
    "test_pool_tls.py",
    "test_serving_tls.py",
    "test_upstream.py",
    "test_upstream_time.py",
}


def pytest_asyncio_loop_factories(config, item):
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def serve():
    """Starts listeners: `await serve(GuardSettings(...), host=…, context=…)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(settings: GuardSettings | None = None, **more) -> Running:
            return await stack.enter_async_context(listening(settings, **more))

        yield start


@pytest.fixture
async def calls():
    """Pools whose clock the test holds."""
    made = Calls()
    yield made
    await made.close()


@pytest.fixture
async def raw_upstream():
    """Starts upstreams that say exactly what a test tells them: `await raw_upstream(talk)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(talk) -> RawUpstream:
            return await stack.enter_async_context(RawUpstream.running(talk))

        yield start
