"""What every training script shares: a log that is also a record, files of tensors, and the precision."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class Log:
    """Prints a line and keeps it in `name.jsonl`, with the seconds since the run began (sum over resumes)."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.before = json.loads(lines[-1])["seconds"] if lines else 0.0
        self.start = time.monotonic()

    def __call__(self, **values: Any) -> None:
        """Write one line of numbers."""
        row = {"seconds": round(self.before + time.monotonic() - self.start, 1), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            self.path.stem,
            *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
            flush=True,
        )


def save_state(path: Path, **parts: Any) -> None:
    """Write tensors and numbers by their names, atomically."""
    beside = path.with_suffix(".part")
    torch.save(parts, beside)
    beside.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Return what was written to `path`, on the CPU, or None."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


@contextmanager
def half_precision(device: str) -> Iterator[None]:
    """Compute in bfloat16 where that is safe.

    The fused attention of the CPU is ten times slower backwards in bfloat16 than in float32; the plain one is not.
    """
    with torch.autocast(device, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
