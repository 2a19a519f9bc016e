"""House rules that no linter checks, as facts about the tree."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "stellwerk"
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
OURS = {"src", "tests", "scripts", "docs", "models", "packaging", "bench", ".ci", ".github"}
NOT_OURS = {"__pycache__", ".environments", "results"}

# The commands load what they need when they are called, so that `stellwerk --help` is quick.
MAY_IMPORT_LATE = {"cli"}
MAY_IMPORT_LATE_TOO = {"engines/ocr/worker_program.py"}
"""A program of its own, which draws pages without the second and the memory that reading them takes."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def text_files():
    """Every file of the repository that holds text."""
    for top in sorted(ROOT.iterdir()):
        if top.is_file():
            files = [top]
        elif top.name in OURS:
            files = (Path(folder, name) for folder, inner, names in os.walk(top) for name in prune(inner, names))
        else:
            continue
        for path in files:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def prune(folders, names):
    folders[:] = [folder for folder in folders if folder not in NOT_OURS]
    return names


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_source_file_is_longer_than_400_lines():
    assert [name_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_no_function_is_longer_than_70_lines():
    assert [
        f"{name_of(path)}: {function.name}"
        for path, tree in TREES.items()
        for function in functions(tree)
        if function.end_lineno - function.lineno + 1 > 70
    ] == []


def test_no_file_has_a_name_that_says_nothing():
    saying_nothing = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    files = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    assert [name_of(path) for path in files if saying_nothing & set(path.stem.removeprefix("test_").split("_"))] == []


def test_no_module_state_is_changed_by_functions():
    assert [
        name_of(path) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Global)
    ] == []


def test_modules_import_each_other_at_their_top_only():
    late = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        if path.relative_to(SOURCE).parts[0] not in MAY_IMPORT_LATE
        and path.relative_to(SOURCE).as_posix() not in MAY_IMPORT_LATE_TOO
        for function in functions(tree)
        for node in ast.walk(function)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "stellwerk")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "stellwerk" for alias in node.names))
    ]
    assert late == []


def test_every_module_says_what_it_is_for():
    assert [name_of(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)] == []


def test_nothing_is_left_for_later():
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    here = Path(__file__)
    assert [name_of(path) for path, text in text_files() if path != here and left.search(text)] == []


def test_nothing_names_a_machine_or_a_package_registry():
    names = re.compile(r"(?<![\w.])/(?:work|root|opt)/|pypi\.org|pythonhosted|npmjs|proxy\.golang|crates\.io|index-url")
    here = Path(__file__)
    assert [
        f"{name_of(path)}: {found[0]}" for path, text in text_files() if path != here and (found := names.search(text))
    ] == []


def test_importing_the_package_is_quick():
    program = "import time; start = time.perf_counter(); import stellwerk; print(time.perf_counter() - start)"
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True) for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.25


def test_importing_starts_nothing():
    """No module opens a socket, starts a thread or a process, or writes a file when it is imported."""
    program = """
import importlib, pkgutil, sys

def refuse(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event in {"socket.__new__", "subprocess.Popen", "os.fork", "_thread.start_new_thread"} or writes:
        raise SystemExit(f"importing {name}: {event} {args}")

import stellwerk
names = [module.name for module in pkgutil.walk_packages(stellwerk.__path__, "stellwerk.")]
name = "stellwerk"
sys.addaudithook(refuse)
for name in names:
    # The first is a command; the others are run by Alembic, inside its own context.
    if not name.endswith("__main__") and ".migrations." not in name:
        importlib.import_module(name)
"""
    # -B because compiled modules would be written on the first run.
    run = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, check=False, text=True)
    assert run.stderr == ""
    assert run.returncode == 0


@pytest.mark.parametrize("script", [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"], ids=name_of)
def test_every_script_can_be_run_and_stops_at_the_first_error(script):
    first, *rest = script.read_text(encoding="utf-8").splitlines()
    assert first.startswith("#!")
    assert os.access(script, os.X_OK)
    assert any(line.startswith("set -eu") for line in rest)


def test_the_workflow_runs_what_developers_run():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert "run: .ci/run" in workflow
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_foreign_actions_are_pinned_to_a_commit():
    used = [
        line.split("uses:")[1].split()[0]
        for path in (ROOT / ".github").rglob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=name_of)
def test_every_locked_package_has_a_hash(lock):
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in wanted}
    reasons = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    assert {name for name in names if f"`{name}`" not in reasons} == set()


@pytest.mark.parametrize("page", ["README.md", "README.de.md"])
def test_the_first_page_is_short(page):
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= 150
