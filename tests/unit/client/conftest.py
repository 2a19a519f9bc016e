"""A gateway whose answers a test writes, and both clients in front of it."""

import asyncio

import pytest

from stellwerk.client import AsyncClient, Client
from tests.scripted_answers import scripted_answers


@pytest.fixture
def server():
    with scripted_answers() as running:
        yield running


class Blocking:
    """The client that waits, with the verbs of the tests."""

    def __init__(self, url, **options):
        self.client = Client(url, "sk-test", **options)

    def do(self, ask):
        return ask(self.client)

    def gather(self, ask):
        return list(ask(self.client))


class Looping:
    """The client of an event loop, with the same verbs."""

    def __init__(self, url, **options):
        self.client = AsyncClient(url, "sk-test", **options)

    def do(self, ask):
        async def run():
            return await ask(self.client)

        return asyncio.run(run())

    def gather(self, ask):
        async def run():
            return [each async for each in ask(self.client)]

        return asyncio.run(run())


@pytest.fixture(params=[Blocking, Looping])
def make_client(request, server):
    """Each test runs with both."""
    return lambda **options: request.param(server.url, **options)


@pytest.fixture
def client(make_client):
    return make_client()
