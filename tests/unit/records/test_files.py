import pytest

from stellwerk.core.errors import Conflict, NotFound
from stellwerk.records import files
from stellwerk.records.files import MOST_BYTES, StoredFile, Whose

ADA, BOB = Whose(user_id=7), Whose(user_id=8)


def file(name="a", *, user_id=7, size=3, created_at=100.0, expires_at=None, purpose="batch"):
    return StoredFile(
        id=f"file-{name}",
        key_id="k",
        user_id=user_id,
        purpose=purpose,
        name=name,
        size=size,
        created_at=created_at,
        expires_at=expires_at,
    )


def add(database, stored, *parts, whose=ADA):
    database.write(lambda connection: files.create(connection, stored, parts, whose))


def listed(database, whose=ADA, **options):
    return [each.name for each in database.read(lambda connection: files.list_files(connection, whose, **options))]


def test_a_file_is_found_with_its_parts_until_it_is_deleted(database):
    add(database, file(), b"one", b"two")
    assert database.read(lambda connection: files.find(connection, "file-a")) == file()
    parts = [database.read(lambda connection, n=n: files.read_part(connection, "file-a", n)) for n in range(3)]
    assert parts == [b"one", b"two", None]
    assert database.write(lambda connection: files.delete_file(connection, "file-a"))
    assert database.read(lambda connection: files.read_part(connection, "file-a", 0)) is None
    with pytest.raises(NotFound):
        database.read(lambda connection: files.find(connection, "file-a"))


def test_lists_have_the_owners_files_in_pages(database):
    for name in "abc":
        add(database, file(name))
    add(database, file("d", user_id=8), whose=BOB)
    add(database, file("e", purpose="ocr"))
    assert listed(database) == ["e", "c", "b", "a"]
    assert listed(database, purpose="batch", limit=2) == ["c", "b"]
    assert listed(database, after="file-b") == ["a"]
    assert listed(database, after="file-b", ascending=True) == ["c", "e"]
    assert listed(database, Whose()) == ["e", "d", "c", "b", "a"]
    with pytest.raises(NotFound):
        listed(database, after="file-d")


def test_there_is_room_for_so_much_and_no_more(database):
    add(database, file(size=MOST_BYTES - 10))
    with pytest.raises(Conflict, match="room"):
        add(database, file("b", size=11))
    add(database, file("c", size=11, user_id=8), whose=BOB)
    add(database, file("d", size=10))


def test_a_file_that_is_written_bit_by_bit_is_seen_when_it_is_complete(database):
    database.write(lambda connection: files.begin(connection, file(size=0)))
    database.write(lambda connection: files.append(connection, "file-a", 0, b"x"))
    with pytest.raises(NotFound):
        database.read(lambda connection: files.find(connection, "file-a"))
    assert listed(database) == []
    database.write(lambda connection: files.begin(connection, file(size=0)))
    assert database.read(lambda connection: files.read_part(connection, "file-a", 0)) is None
    database.write(lambda connection: files.complete(connection, "file-a", 5))
    assert database.read(lambda connection: files.find(connection, "file-a")).size == 5


def test_what_is_kept_no_longer_goes(database):
    add(database, file("old", expires_at=200.0), b"x")
    add(database, file("kept", expires_at=300.0))
    database.write(lambda connection: files.begin(connection, file("broken")))
    assert database.write(lambda connection: files.prune(connection, 250.0)) == 1
    assert listed(database) == ["kept"]
    assert database.write(lambda connection: files.prune(connection, 250.0 + 24 * 3600)) == 2
