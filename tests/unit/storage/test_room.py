import pytest

from stellwerk.storage.room import Room

NEEDED = 1_000


@pytest.fixture
def disk(tmp_path, clock):
    class Disk:
        total = 100 * NEEDED
        free = NEEDED
        looks = 0

        def usage(self, folder):
            assert folder == tmp_path
            self.looks += 1
            if self.free is None:
                raise OSError
            return self.total, self.total - self.free, self.free

        def room(self):
            return Room(tmp_path, clock.monotonic, least=NEEDED, usage=self.usage)

    return Disk()


def test_there_is_room_down_to_what_has_to_stay_free(disk):
    assert disk.room().has_room()
    disk.free -= 1
    assert not disk.room().has_room()


def test_of_a_small_disk_a_twentieth_is_enough(disk):
    disk.total, disk.free = 10 * NEEDED, NEEDED // 2
    assert disk.room().has_room()
    disk.free -= 1
    assert not disk.room().has_room()


def test_the_system_is_asked_once_a_second(disk, clock):
    room = disk.room()
    assert room.has_room()
    disk.free = 0
    clock.at += 0.9
    assert room.has_room()
    assert disk.looks == 1
    clock.at += 0.2
    assert not room.has_room()


def test_a_system_that_does_not_say_stops_nobody(disk):
    disk.free = None
    assert disk.room().has_room()


def test_a_real_folder_is_looked_at(tmp_path, clock):
    assert Room(tmp_path, clock.monotonic, least=0).has_room()
    assert not Room(tmp_path, clock.monotonic, usage=lambda folder: (1 << 62, 0, 0)).has_room()
