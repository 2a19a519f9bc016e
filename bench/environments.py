"""Sets up what a target runs in, below bench/.environments, and says why when it cannot."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

BENCH = Path(__file__).resolve().parent
REPOSITORY = BENCH.parent
ENVIRONMENTS = BENCH / ".environments"
SETUP_SECONDS = 1800


class SetupFailed(Exception):
    """The environment is not there; the message says what to do."""


@dataclass(frozen=True)
class Prepared:
    """Where the programs of an environment lie, and which version they are."""

    programs: Path
    version: str = ""


class Environment(Protocol):
    def prepare(self, folder: Path) -> Prepared:
        """Makes sure that everything is installed."""
        ...


def run_setup(command: list[str], log: Path, cwd: Path | None = None, extra: dict[str, str] | None = None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        print("$", *command, file=output, flush=True)
        try:
            code = subprocess.run(
                command,
                check=False,
                cwd=cwd,
                env=os.environ | (extra or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SETUP_SECONDS,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupFailed(f"{command[0]}: {error}") from error
    if code:
        last_lines = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
        raise SetupFailed(f"{Path(command[0]).name} failed, see {log.relative_to(BENCH)}: {last_lines}")


def output_of(command: list[str]) -> str:
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    return (answer.stdout + answer.stderr).strip()


def find_program(name: str) -> str | None:
    # Debian keeps servers out of the PATH of ordinary users.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def installed_as(folder: Path, wanted: str) -> bool:
    stamp = folder / "installed"
    return stamp.exists() and stamp.read_text() == wanted


def build_anew(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder / "setup.log"


@dataclass(frozen=True)
class NoEnvironment:
    def prepare(self, folder: Path) -> Prepared:
        return Prepared(folder)


@dataclass(frozen=True)
class DebianPackage:
    name: str

    def prepare(self, folder: Path) -> Prepared:
        if not find_program(self.name):
            self._install(folder / "setup.log")
        program = find_program(self.name)
        if not program:
            raise SetupFailed(f"{self.name} was installed but is not found")
        return Prepared(Path(program).parent, self._version(program))

    def _install(self, log: Path) -> None:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise SetupFailed(f"{self.name} is not installed: install it, or run once as root where apt-get exists")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run_setup(["apt-get", "update"], log, extra=quiet)
        run_setup(["apt-get", "install", "-y", "--no-install-recommends", self.name], log, extra=quiet)

    def _version(self, program: str) -> str:
        # nginx answers on stderr: "nginx version: nginx/1.22.1"
        return output_of([program, "-v"]).rpartition("/")[2]


@dataclass(frozen=True)
class PythonPackages:
    """A virtual environment with pinned packages; the first one gives the version."""

    requirements: tuple[str, ...]

    def prepare(self, folder: Path) -> Prepared:
        wanted = "\n".join((*self.requirements, sys.version))
        if not installed_as(folder, wanted):
            log = build_anew(folder)
            run_setup([sys.executable, "-m", "venv", str(folder / "venv")], log)
            run_setup([str(folder / "venv/bin/python"), "-m", "pip", "install", *self.requirements], log)
            (folder / "installed").write_text(wanted)
        return Prepared(folder / "venv/bin", self.requirements[0].partition("==")[2])


@dataclass(frozen=True)
class NodePackages:
    """An npm folder with pinned packages; the first one gives the version."""

    packages: dict[str, str]
    overrides: dict[str, str] = field(default_factory=dict)

    def prepare(self, folder: Path) -> Prepared:
        for program in ("node", "npm"):
            if not shutil.which(program):
                raise SetupFailed(f"{program} is not installed: Node.js 20 or newer is needed")
        manifest = json.dumps({"private": True, "dependencies": self.packages, "overrides": self.overrides}, indent=2)
        if not installed_as(folder, manifest):
            log = build_anew(folder)
            (folder / "package.json").write_text(manifest)
            run_setup(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev"], log, cwd=folder)
            (folder / "installed").write_text(manifest)
        return Prepared(folder / "node_modules", next(iter(self.packages.values())))


@dataclass(frozen=True)
class ThisRepository:
    """The gateway as it stands in the working copy: the repository's own .venv, or one made here."""

    command: str

    def prepare(self, folder: Path) -> Prepared:
        own = REPOSITORY / ".venv/bin"
        programs = own if (own / self.command).exists() else self._install(folder)
        return Prepared(programs, output_of(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]))

    def _install(self, folder: Path) -> Path:
        programs = folder / "venv/bin"
        if not (programs / self.command).exists():
            log = build_anew(folder)
            run_setup([sys.executable, "-m", "venv", str(folder / "venv")], log)
            run_setup([str(programs / "python"), "-m", "pip", "install", "-e", str(REPOSITORY)], log)
        if not (programs / self.command).exists():
            raise SetupFailed(f"the repository installs no command {self.command}")
        return programs


def compile_program(name: str) -> Path:
    """Builds bench/<name>.c when it or the marks are newer than the program."""
    source, program = BENCH / f"{name}.c", ENVIRONMENTS / name
    newest = max(path.stat().st_mtime for path in (source, BENCH / "marks.h"))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("cc")
    if not compiler:
        raise SetupFailed("no C compiler: install gcc or clang so that cc is found")
    ENVIRONMENTS.mkdir(exist_ok=True)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    run_setup([compiler, *flags, "-o", str(program), str(source), "-lm"], ENVIRONMENTS / f"{name}.log")
    return program
