"""What ships beside the package: the unit for systemd and the commands that are installed."""

import configparser
import importlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stellwerk.cli.main import COMMANDS, EX_CONFIG
from stellwerk.config.settings import Config

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "systemd" / "stellwerk.service"
SYSUSERS = UNIT.with_suffix(".sysusers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORST_EXPOSURE = 2.5

HARDENING = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "PrivateUsers": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "LimitCORE": "0",
    "LimitNOFILE": "65536",
    "KillMode": "mixed",
    "Restart": "on-failure",
    "IPAddressDeny": "169.254.0.0/16",
}


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT, encoding="utf-8")
    return dict(parser["Service"])


def test_the_unit_has_every_line_of_the_hardening(service):
    assert {name: service.get(name) for name in HARDENING} == HARDENING


def test_the_unit_allows_only_the_calls_and_addresses_of_a_service():
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("SystemCallFilter=")] == [
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
    ]
    assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK" in lines


def test_the_unit_starts_a_command_that_exists(service):
    program, command = service["ExecStart"].split()
    assert Path(program).name in PROJECT["project"]["scripts"]
    assert command in COMMANDS


def test_the_unit_keeps_the_data_where_its_user_may_write(service):
    assert service["StateDirectory"] == "stellwerk"
    assert service["StateDirectoryMode"] == "0700"
    assert service["Environment"] == "STELLWERK_DATA=%S/stellwerk"
    assert SYSUSERS.read_text(encoding="utf-8").split()[:2] == ["u", service["User"]]


def test_the_unit_waits_for_running_answers_and_leaves_a_wrong_config_alone(service):
    assert int(service["TimeoutStopSec"]) > Config().drain_seconds
    assert int(service["RestartPreventExitStatus"]) == EX_CONFIG


def test_the_unit_ships_with_the_package():
    shared = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert (ROOT / "packaging" / "systemd").samefile(ROOT / next(iter(shared)))


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_every_installed_command_leads_to_a_function(name):
    module, _, function = PROJECT["project"]["scripts"][name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.fixture
def analyze(tmp_path, service):
    """Runs systemd-analyze on the unit, with a program in it that this machine has."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("this machine has no systemd-analyze")
    unit = tmp_path / UNIT.name
    # In quotes: the checkout may stand in a folder with a blank in its name.
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(service["ExecStart"].split()[0], f'"{sys.executable}"'))

    def analyze(*arguments):
        return subprocess.run([program, *arguments, unit], capture_output=True, text=True, check=False, timeout=60)

    return analyze


def test_systemd_understands_the_unit(analyze):
    done = analyze("verify", "--man=no")
    assert UNIT.name not in done.stderr, done.stderr


def test_systemd_finds_little_that_the_unit_exposes(analyze):
    done = analyze("security", "--offline=yes", "--no-pager")
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is older than version 250")
    summary = next(line for line in done.stdout.splitlines() if "Overall exposure level" in line)
    assert float(summary.partition(": ")[2].split()[0]) <= WORST_EXPOSURE


def test_the_native_parts_work_without_memory_that_is_both_written_and_run():
    program = """
import ctypes, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(77)
import httptools, uvloop, xllamacpp
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec
PasswordHasher(memory_cost=1024).hash("a password")
ec.generate_private_key(ec.SECP256R1())
uvloop.new_event_loop().close()
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux refuses such memory")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77:
        pytest.skip("the kernel is older than 6.3")
    assert (done.returncode, done.stderr) == (0, "")
