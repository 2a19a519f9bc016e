import json
import threading

import pytest

from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.sessions.memory import MOST_CONTENT, MOST_VERSIONS, Memory, MemoryBlock


@pytest.fixture
def file(tmp_path):
    return tmp_path / "memory.json"


@pytest.fixture
def block(tmp_path, clock):
    return MemoryBlock(tmp_path, clock)


@pytest.fixture
def later(block, clock):
    """What is in force after the next look."""

    def look():
        clock.at += 1.0
        return block.current()

    return look


def versions(tmp_path):
    return [path.read_text() for path in sorted((tmp_path / "memory.versions").glob("*"))]


def test_it_is_empty_by_default(block, file):
    assert block.current() == Memory(content="", cache=False)
    assert not file.exists()


def test_a_new_block_is_in_force_at_once_and_after_a_restart(tmp_path, block, clock):
    assert block.replace("be kind", True) == Memory(content="be kind", cache=True)
    assert block.current() == Memory(content="be kind", cache=True)
    assert MemoryBlock(tmp_path, clock).current() == Memory(content="be kind", cache=True)


def test_the_file_has_the_documented_form_and_is_private(block, file):
    block.replace("Grüße", True)
    assert file.read_text(encoding="utf-8") == '{\n  "content": "Grüße",\n  "cache": true\n}\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_of_somebody_is_read(block, file, later):
    file.write_text('{"content": "by hand"}')
    assert block.current() == Memory(content="by hand")
    file.write_text('{"content": "changed by hand", "cache": true, "note": 1}')
    assert later() == Memory(content="changed by hand", cache=True)


def test_a_removed_file_is_an_empty_block(block, file, later):
    block.replace("x", False)
    file.unlink()
    assert later() == Memory()


def test_the_disk_is_looked_at_once_a_second(block, file, clock):
    block.current()
    file.write_text('{"content": "new"}')
    clock.at += 0.9
    assert block.current() == Memory()
    clock.at += 0.1
    assert block.current() == Memory(content="new")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"content":1}',
        b'{"content":"x","cache":"yes"}',
        b'{"content":"\xff"}',
        b"[" * 100_000,
        b'{"content":"' + b"x" * (MOST_CONTENT + 1) + b'"}',
        b" " * (8 * MOST_CONTENT + 1),
    ],
)
def test_a_wrong_file_changes_nothing_and_is_reported_once(block, file, later, content, caplog):
    block.replace("good", True)
    file.write_bytes(content)
    assert later() == later() == Memory(content="good", cache=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert file.read_bytes() == content


def test_a_folder_in_the_place_of_the_file_changes_nothing(block, file, later):
    file.mkdir()
    assert later() == Memory()
    with pytest.raises(Unavailable) as caught:
        block.replace("x", False)
    assert caught.value.code == "storage_unavailable"
    assert block.current() == Memory()


@pytest.mark.parametrize("content", ["x" * (MOST_CONTENT + 1), "ü" * (MOST_CONTENT // 2 + 1), "\ud800"])
def test_content_that_is_too_large_or_no_text_is_refused(block, file, content):
    with pytest.raises(BadRequest) as caught:
        block.replace(content, False)
    assert caught.value.param == "content"
    assert not file.exists()


@pytest.mark.parametrize("content", ["x" * MOST_CONTENT, "ü" * (MOST_CONTENT // 2), "\x01" * MOST_CONTENT])
def test_the_largest_content_is_read_again(tmp_path, block, clock, content):
    block.replace(content, False)
    assert MemoryBlock(tmp_path, clock).current().content == content


def test_what_was_before_is_kept_with_its_time(tmp_path, block, file, clock):
    block.replace("first", False)
    assert not (tmp_path / "memory.versions").exists()
    before = file.read_text()
    block.replace("second", True)
    assert versions(tmp_path) == [before]
    (version,) = (tmp_path / "memory.versions").iterdir()
    assert version.name == "memory-19700112T134640.000000Z-000.json"
    assert version.stat().st_mode & 0o777 == 0o600
    assert version.parent.stat().st_mode & 0o777 == 0o700


def test_what_somebody_wrote_by_hand_is_kept_too(tmp_path, block, file):
    file.write_text('{"content": "by hand", }')
    block.replace("x", False)
    assert versions(tmp_path) == ['{"content": "by hand", }']


def test_a_file_that_is_too_large_to_be_ours_is_kept_whole(tmp_path, block, file):
    file.write_bytes(b"x" * 1_000_000)
    block.replace("x", False)
    assert versions(tmp_path) == ["x" * 1_000_000]


@pytest.mark.parametrize("pause", [0.0, 1.5])
def test_only_the_newest_versions_are_kept(tmp_path, block, clock, pause):
    for number in range(MOST_VERSIONS + 10):
        block.replace(f"{number}", False)
        clock.at += pause
    kept = [json.loads(version)["content"] for version in versions(tmp_path)]
    assert kept == [f"{number}" for number in range(9, 9 + MOST_VERSIONS)]


def test_two_who_change_it_at_once_leave_one_of_both(tmp_path, block, clock):
    threads = [threading.Thread(target=block.replace, args=(f"{n}", False)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    content = block.current().content
    assert MemoryBlock(tmp_path, clock).current().content == content
    assert len(versions(tmp_path)) == 7
    assert list(tmp_path.glob("*.new")) == []


def test_two_processes_see_each_others_changes(tmp_path, block, clock, later):
    block.replace("one", False)
    MemoryBlock(tmp_path, clock).replace("two", False)
    assert later() == Memory(content="two")
