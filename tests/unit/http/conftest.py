"""Listeners and pools on real sockets."""

import contextlib

import pytest

from stellwerk.http.guard import GuardSettings
from tests.running_listener import Running, listening
from tests.upstream_calls import Calls, RawUpstream


@pytest.fixture
async def serve():
    """Starts listeners: `await serve(GuardSettings(...))`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(settings: GuardSettings | None = None) -> Running:
            return await stack.enter_async_context(listening(settings))

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
