"""Where a number was computed: versions, commit, machine. Recorded beside every result, never hashed."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_PACKAGES = {
    "unlearn-core", "unlearn-techniques", "unlearn-metrics", "klom-bench", "genmu-eval", "pocket-sd",
    "unlearn-bench", "numpy", "torch", "torchvision", "diffusers", "transformers", "safetensors",
}  # fmt: skip


def environment() -> dict[str, Any]:
    """Return the command as typed, Python, versions, platform, processor count, device and this code's git commit."""
    versions: dict[str, str] = {}
    for found in distributions():
        if found.name in _PACKAGES:
            versions.setdefault(found.name, found.version)  # the first on the path is the one imported
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": dict(sorted(versions.items())),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": _device(),
        "git": _git(),
    }


def _device() -> str:
    torch = sys.modules.get("torch")  # whoever computed something has it loaded; never load it for the name
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"


def _git() -> dict[str, Any] | None:
    """Return the commit and whether the tree differs from it; None where this code is not in a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository: only a tracked file speaks for us.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
