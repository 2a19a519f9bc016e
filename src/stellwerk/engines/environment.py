"""What an engine may know of the gateway's own environment: nothing that could be a secret."""

import os
import re
import shutil
import sys
from collections.abc import Mapping

from stellwerk.engines.failure import EngineFailed

_NAMES = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ"})
_PREFIXES = ("CUDA_", "GGML_", "HIP_", "HSA_", "NVIDIA_", "OMP_", "ROCR_")
_VULKAN = frozenset({"VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LAYER_PATH", "VK_LOADER_DRIVERS_SELECT"})
"""Not everything that begins with VK_: tokens of a social network do so too."""
_TELLING = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of `environment` that a child process receives."""
    allowed = {name: value for name, value in environment.items() if _is_allowed(name)}
    # Otherwise a failed assertion starts a debugger, which holds the pipes open and outlives the engine.
    return allowed | {"GGML_NO_BACKTRACE": "1"}


def _is_allowed(name: str) -> bool:
    if name in _NAMES or name in _VULKAN:
        return True
    return name.startswith(_PREFIXES) and not _TELLING.search(name)


def bound_command(program: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The command line of a program, found on PATH, that cannot outlive us. Raises EngineFailed when it is not there.

    `program` is a name or an absolute path.
    """
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        name = os.path.basename(program)  # noqa: PTH119 — a name, not a place on this disk
        raise EngineFailed(f"the program {name} is not installed, or not where the configuration says")
    # -P: a file in the working directory must not be taken for a module.
    return (sys.executable, "-P", "-m", "stellwerk.engines.parent_death", str(os.getpid()), found, *arguments)


def threads_of(wanted: int) -> int:
    """How many threads an engine takes; 0 is every core but one."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return wanted or max(1, cores - 1)
