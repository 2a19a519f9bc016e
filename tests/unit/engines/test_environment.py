import subprocess
import sys

import pytest

from stellwerk.engines.environment import child_environment

SECRETS = {
    "OPENAI_API_KEY": "canary",
    "STELLWERK_ADMIN_KEY": "canary",
    "HF_TOKEN": "canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "HTTPS_PROXY": "http://me:canary@proxy",
    "DATABASE_URL": "postgresql://me:canary@host/db",
    "SSH_AUTH_SOCK": "canary",
    "VK_TOKEN": "canary",
    "VK_APP": "canary",
    "CUDA_API_KEY": "canary",
    "NVIDIA_NGC_token": "canary",
    "LD_PRELOAD": "canary",
}
NEEDED = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "VK_ICD_FILENAMES": "/x.json", "OMP_NUM_THREADS": "2"}


def test_a_real_child_knows_what_it_needs_and_no_canary():
    shown = subprocess.run(
        [sys.executable, "-c", "import os; print(*sorted(f'{n}={v}' for n, v in os.environ.items()), sep='\\n')"],
        env=child_environment(SECRETS | NEEDED),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "canary" not in shown
    assert set(shown.splitlines()) >= {f"{name}={value}" for name, value in NEEDED.items()}
    assert "GGML_NO_BACKTRACE=1" in shown


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_what_may_be_a_secret_is_not_passed_on(name: str):
    assert name not in child_environment({name: "x"})
