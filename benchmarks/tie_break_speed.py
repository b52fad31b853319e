"""The weight change of SD v1.4-sized float16 models, read tensor by tensor, against loading both with torch.

    uv run benchmarks/tie_break_speed.py [--folder FOLDER]

Three submissions with random weights: every weight changed, the keys and values of cross-attention changed, and the
latter as a delta. Each way runs in a process of its own on one thread, one after another: CPU seconds, and the most
memory that it held beyond its imports. Both must give the same norm. Writes records/tie_break_speed.json.
"""

import argparse
import copy
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from unlearn_core.environment import environment

RECORD = Path(__file__).parent / "records" / "tie_break_speed.json"
PARTS = ("unet", "text_encoder", "vae")


def make(folder: Path) -> dict[str, str]:
    """Write the original and what is compared with it; return the submissions by name."""
    import torch
    from techniques_sd14 import sd14

    from unlearn_techniques.diffusion.attention import text_projections
    from unlearn_techniques.diffusion.delta import Delta

    model = sd14(dtype=torch.float16)
    model.save_pretrained(folder / "original")
    edited = dataclasses.replace(model, unet=copy.deepcopy(model.unet))
    with torch.no_grad():
        for linear in text_projections(edited.unet).values():
            linear.weight.add_(torch.randn_like(linear.weight), alpha=1e-3)
    edited.save_pretrained(folder / "keys and values")
    Delta.between(model, edited).save(folder / "delta.safetensors")
    with torch.no_grad():
        for part in PARTS:
            for weight in getattr(edited, part).parameters():
                weight.add_(torch.randn_like(weight), alpha=1e-3)
    edited.save_pretrained(folder / "every weight")
    return {
        "every weight": "every weight",
        "keys and values": "keys and values",
        "delta": "delta.safetensors",
    }


def ours(original: Path, unlearned: Path) -> tuple[float, float, float]:
    """Return the norm of the change, CPU seconds and GB."""
    from genmu_eval.tie_break import tie_break

    def norm() -> float:
        return next(iter(tie_break(original, unlearned).models.values())).l2

    return cost(norm)


def loaded(original: Path, unlearned: Path) -> tuple[float, float, float]:
    """The same by loading both models whole with safetensors' own reader for torch."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)

    def read(folder: Path) -> dict[str, torch.Tensor]:
        files = [file for part in PARTS for file in sorted((folder / part).glob("*.safetensors"))]
        return {f"{file.parent.name}/{k}": v for file in files for k, v in load_file(file).items()}

    def norm() -> float:
        old, new = read(original), read(unlearned)
        return sum((new[k].float() - old[k].float()).double().norm() ** 2 for k in old).sqrt().item()

    return cost(norm)


def cost(norm) -> tuple[float, float, float]:
    """Return what `norm` does, its CPU seconds, and by how many GB it raised the memory of this process (Linux)."""
    before, start = memory("VmRSS"), time.process_time()
    value = norm()
    return value, time.process_time() - start, max(0.0, memory("VmHWM") - before)


def memory(what: str) -> float:
    """Return GB held now (VmRSS) or at most so far (VmHWM); getrusage would count the parent process as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise KeyError(what)


def apart(way: str, original: Path, unlearned: Path) -> dict[str, float]:
    """Return what `way` found and cost in a process of its own."""
    code = (
        "import json, pathlib, sys, tie_break_speed as here; "
        f"print(json.dumps(here.{way}(*map(pathlib.Path, sys.argv[1:]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, original, unlearned],
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(("norm", "cpu_seconds", "GB"), json.loads(done.stdout), strict=True))


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for 6.5 GB of models; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        submissions = make(folder)
        found = {}
        for name, file in submissions.items():
            found[name] = {"tie_break": apart("ours", folder / "original", folder / file)}
            if file == name:  # a delta is nothing that safetensors alone can compare
                found[name]["loading both"] = apart("loaded", folder / "original", folder / file)
                norms = [way["norm"] for way in found[name].values()]
                assert abs(norms[0] / norms[1] - 1) < 1e-5, norms
            print(name, json.dumps(found[name]), flush=True)
    record = {
        "what": "norm of the change between two models of SD v1.4's size in float16, each in a process of its own",
        "submissions": found,
        "environment": environment(),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
