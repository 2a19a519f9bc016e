"""scripts/environment in folders and locales as people have them."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "environment"
LOCK = "requirements.lock"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """One whose environment is up to date, as installers leave it: with the whole path of the source."""
    root = tmp_path / "Möin Welt"
    for folder in ("scripts", "src/stellwerk"):
        (root / folder).mkdir(parents=True)
    for name in (LOCK, "pyproject.toml", "src/stellwerk/__init__.py"):
        (root / name).touch()
    shutil.copy(SCRIPT, root / "scripts")
    venv.create(root / ".venv", symlinks=True)
    [packages] = (root / ".venv").glob("lib/python*/site-packages")
    (packages / "_editable_impl_stellwerk.pth").write_text(f"{root}/src", "utf-8")
    command = f'printf "runtime %s %s\\n" "$(cat {LOCK} pyproject.toml | cksum)" "$PWD"'
    state = subprocess.run(["/bin/sh", "-c", command], cwd=root, check=True, capture_output=True).stdout
    (root / ".venv" / "stellwerk-environment").write_bytes(state)
    return root


@pytest.mark.parametrize("locale", ["C", "xx_XX.UTF-8"])
def test_a_folder_with_an_umlaut_is_started_from_in_any_locale(checkout, locale):
    python = checkout / ".venv" / "bin" / "python"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": locale}
    made = subprocess.run(
        [checkout / "scripts" / "environment", "runtime"], env=environment, capture_output=True, check=False
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, b"", b"")
    started = subprocess.run(
        [python, "-c", "import stellwerk; print(ascii(stellwerk.__file__))"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert b"stellwerk/__init__.py" in started.stdout
