import asyncio

import pytest

from stellwerk.api._guard import Request
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.openai.file_store import PART_BYTES, FileStore
from stellwerk.api.openai.files import FilesAPI
from stellwerk.core.errors import Unavailable
from stellwerk.records.files import Whose
from stellwerk.storage.sealing import Seal
from tests.port_fakes import ALICE, RecordedExchange


class SlowClient(RecordedExchange):
    """Takes one piece, and another one only when it is told to."""

    def __init__(self):
        super().__init__()
        self.taken = asyncio.Event()

    def write(self, data):
        super().write(data)
        if self.source is not None:
            self.source.pause_reading()
        self.taken.set()


@pytest.fixture
def store(database, clock):
    async def run(work):
        return database.write(work)

    return FileStore(run=run, fetch=database.fetch, seal=Seal(bytes(32)), clock=clock)


async def test_a_file_is_read_no_faster_than_its_client_takes_it(store):
    content = b"".join(bytes([number]) * PART_BYTES for number in range(4))
    file = await store.add(ALICE, Whose(), purpose="batch", name="a.jsonl", content=content)
    client = SlowClient()
    client.path = f"/v1/files/{file.id}/content"
    api = FilesAPI(store, Ownership(lambda _: False))
    showing = asyncio.ensure_future(api._show_content(Request(client, "req_1", ALICE)))
    for number in range(1, 5):
        async with asyncio.timeout(30):
            await client.taken.wait()
        client.taken.clear()
        # Nothing more comes, however long he takes.
        await asyncio.wait({showing}, timeout=0.05)
        assert len(client.written) == number * PART_BYTES
        client.source.resume_reading()
    await showing
    assert client.written == content
    assert client.source is None


async def test_without_room_on_the_disk_no_file_is_stored(database, clock):
    async def run(work):
        raise AssertionError("nothing is written")

    store = FileStore(run=run, fetch=database.fetch, seal=Seal(bytes(32)), clock=clock, has_room=lambda: False)
    with pytest.raises(Unavailable) as caught:
        await store.add(ALICE, Whose(), purpose="batch", name="a.jsonl", content=b"x")
    assert caught.value.code == "storage_full"
