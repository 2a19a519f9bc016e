from pathlib import Path

import pytest

from stellwerk.engines.machine_memory import MachineMemory, capacity, read_machine_memory, reserve

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A /proc and a /sys/fs/cgroup of a machine with 8000 MiB, of which 6000 are available."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {8000 * 1024} kB\nMemAvailable: {6000 * 1024} kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(machine: Path, membership: str, folder: str, files: dict[str, object]) -> None:
    write(machine / "proc/self/cgroup", membership)
    for name, value in files.items():
        write(machine / "cgroup" / folder / name, f"{value}\n")


def look(machine: Path) -> MachineMemory:
    return read_machine_memory(machine / "proc", machine / "cgroup")


def test_without_a_limit_the_machine_counts(machine: Path):
    assert look(machine) == MachineMemory(total=8000, available=6000)


def test_a_limit_of_version_2_counts_less_what_is_used_but_for_the_file_cache(machine: Path):
    files = {
        "memory.max": 2000 * MIB,
        "memory.current": 900 * MIB,
        "memory.stat": f"anon 1\ninactive_file {400 * MIB}",
    }
    group(machine, "0::/app\n", "app", files)
    assert look(machine) == MachineMemory(total=2000, available=1500)


def test_a_limit_of_version_1_counts(machine: Path):
    files = {
        "memory.limit_in_bytes": 3000 * MIB,
        "memory.usage_in_bytes": 1000 * MIB,
        "memory.stat": f"cache 5\ntotal_inactive_file {200 * MIB}",
    }
    group(machine, "4:cpu,memory:/app/own\n2:pids:/\n0::/\n", "memory/app", files)
    assert look(machine) == MachineMemory(total=3000, available=2200)


def test_the_narrowest_of_all_groups_above_counts(machine: Path):
    stat = "inactive_file 0"
    group(machine, "0::/a/b\n", "a/b", {"memory.max": "max", "memory.current": 5, "memory.stat": stat})
    group(machine, "0::/a/b\n", "a", {"memory.max": 1000 * MIB, "memory.current": 999 * MIB, "memory.stat": stat})
    assert look(machine) == MachineMemory(total=1000, available=1)


def test_inside_a_container_the_root_is_the_containers_own(machine: Path):
    files = {"memory.max": 700 * MIB, "memory.current": 100 * MIB, "memory.stat": "inactive_file 0"}
    group(machine, "0::/docker/0123\n", ".", files)
    assert look(machine) == MachineMemory(total=700, available=600)


@pytest.mark.parametrize("text", ["", "nonsense", "0::/../../etc\n", "\n\n::\n", "4:memory:/x\n"])
def test_what_cannot_be_understood_is_no_limit(machine: Path, text: str):
    write(machine / "proc/self/cgroup", text)
    assert look(machine) == MachineMemory(total=8000, available=6000)


def test_a_real_machine_has_memory():
    memory = read_machine_memory()
    assert memory.total
    assert memory.total > 100


def test_a_reserve_stays_for_the_system_and_for_us():
    assert reserve(8000) == 800
    assert reserve(2000) == 384
    assert reserve(500) == 250
    assert reserve(100_000) == 4096
    bounds = capacity(MachineMemory(total=8000, available=6000), 0)
    assert (bounds.all, bounds.now) == (7200, 5600)


def test_a_configured_bound_replaces_the_machines_size_but_not_what_is_there():
    bounds = capacity(MachineMemory(total=8000, available=100), 20_000)
    assert (bounds.all, bounds.now) == (20_000, 0)


def test_a_system_that_tells_nothing_has_no_bound():
    bounds = capacity(MachineMemory(total=None, available=None), 0)
    assert (bounds.all, bounds.now) == (None, None)
