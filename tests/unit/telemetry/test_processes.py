import os
import subprocess

from stellwerk.telemetry.machine import Cores
from stellwerk.telemetry.processes import ProcessLoads
from tests.port_fakes import StillClock


def write_process(proc, pid, *, started=100, worked=0, pages=10):
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(worked), "0", *["0"] * 6, str(started), "0", str(pages), "0"]
    (folder / "stat").write_text(f"{pid} (a ) b (c) {' '.join(fields)}\n")


def test_the_work_between_two_looks_is_a_share_of_one_core(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "uptime").write_text("11.0 1.0\n")
    clock = StillClock()
    loads = ProcessLoads(clock, tmp_path)
    write_process(tmp_path, 7, started=ticks, worked=5 * ticks)
    assert loads.look([7, 8])[7].cpu_percent == 50.0
    write_process(tmp_path, 7, started=ticks, worked=9 * ticks)
    clock.seconds += 2
    assert loads.look([7])[7].cpu_percent == 200.0
    assert loads.look([7])[7].cpu_percent == 0.0
    write_process(tmp_path, 7, started=6 * ticks, worked=1 * ticks)
    assert loads.look([7])[7].cpu_percent == 20.0, "another process with the same number"


def test_a_real_process_holds_memory_and_one_that_ended_is_left_out():
    loads = ProcessLoads(StillClock())
    assert loads.look([os.getpid()])[os.getpid()].resident_bytes > 1 << 20
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert loads.look([ended.pid]) == {}


def test_each_core_has_its_own_share(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu 0 0 0 0 0\ncpu0 100 0 0 100 0 0 0 0 9 9\ncpu1 0 0 0 200 0 0 0 0\nintr 5\n")
    cores = Cores(stat)
    assert cores.busy() == [0.0, 0.0]
    stat.write_text("cpu 0 0 0 0 0\ncpu0 175 0 0 125 0 0 0 0 9 9\ncpu1 0 0 0 250 50 0 0 0\nintr 5\n")
    assert cores.busy() == [75.0, 0.0]
    assert Cores(tmp_path / "nothing").busy() == []
