import asyncio

import pytest

from stellwerk.core.errors import Unavailable
from stellwerk.records.missing_models import MissingModels, forget, list_missing

NEAREST = {"gtp-5": "gpt-5"}


@pytest.fixture
def missing(database, clock):
    async def run(work):
        return database.write(work)

    return MissingModels(run, clock, NEAREST.get)


def rows(database):
    return [(row.name, row.key_id, row.count, row.nearest) for row in database.read(list_missing)]


def ask(missing, name="gtp-5", key_id="k1"):
    missing.note(name, key_id=key_id, user_id=1)


async def test_a_name_is_counted_for_each_client(missing, database, clock):
    for key in ("k1", "k2", "k1"):
        clock.at += 1
        ask(missing, key_id=key)
    await missing.write()
    assert rows(database) == [("gtp-5", "k1", 2, "gpt-5"), ("gtp-5", "k2", 1, "gpt-5")]


async def test_later_requests_add_to_what_is_written(missing, database, clock):
    ask(missing)
    await missing.write()
    first = database.read(list_missing)[0]
    clock.at += 60
    ask(missing)
    await missing.write()
    (row,) = database.read(list_missing)
    assert (row.count, row.first_at, row.last_at, row.nearest) == (2, first.first_at, clock.at, "gpt-5")


async def test_what_cannot_be_stored_is_stored_with_the_next_write(database, clock):
    full = True

    async def run(work):
        if full:
            raise Unavailable("The disk is full.")
        return database.write(work)

    missing = MissingModels(run, clock, NEAREST.get)
    ask(missing)
    await missing.write()
    ask(missing, name="other")
    full = False
    await missing.write()
    assert sorted(row[0] for row in rows(database)) == ["gtp-5", "other"]


async def test_strangers_cannot_fill_the_memory_or_the_table(database, clock):
    async def run(work):
        return database.write(work)

    missing = MissingModels(run, clock, NEAREST.get, most_rows=5)
    for number in range(3000):
        ask(missing, name=f"model {number}" * 100)
    await missing.write()
    clock.at += 1
    ask(missing, name="last")
    await missing.write()
    stored = rows(database)
    assert len(stored) <= 1000
    assert stored[0][0] == "last"
    assert max(len(row[0]) for row in stored) <= 128


async def test_names_can_be_forgotten(missing, database):
    for name in ("a", "b", "c"):
        ask(missing, name=name)
    await missing.write()
    assert database.write(lambda connection: forget(connection, "a")) == 1
    assert database.write(forget) == 2
    assert rows(database) == []


async def test_it_writes_by_itself_until_it_is_cancelled(database, clock):
    written = asyncio.Event()

    async def run(work):
        database.write(work)
        written.set()

    missing = MissingModels(run, clock, NEAREST.get, write_seconds=0.001)
    ask(missing)
    task = asyncio.create_task(missing.run())
    async with asyncio.timeout(30):
        await written.wait()
    task.cancel()
    assert [row[0] for row in rows(database)] == ["gtp-5"]
