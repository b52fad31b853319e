"""Every technique on SD v1.4's real configuration with random weights: what it edits, and what a step of it costs.

    uv run benchmarks/techniques_full_size.py [--device cuda] [--pixels 256] [--techniques esd,ca]

One iteration of each that trains, the whole of each that does not, and then one guided step of drawing with the result,
compared with that of the unmodified model. Nothing is downloaded. On the CPU pictures are 256 pixels wide, a quarter
of the work. Writes records/techniques_full_size.json; run `benchmarks/techniques_pocket.py --docs-only` after it, whose
page shows the table.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from techniques_sd14 import measured, sd14

from unlearn_bench.sd.runner import changes
from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.environment import environment
from unlearn_core.spec import build
from unlearn_techniques.diffusion.model import StableDiffusion

DOG = Concept(name="dog", anchor="cat", adjacent=("wolf", "fox"))
DRAWN = {"sampling_steps": 1}
SAE = {"rows": 4096, "batch": 1024, "expansion": 4, "captions": ["a photo of a car"], "templates": ["{}"]}

LEAST: dict[str, dict[str, Any]] = {
    "none": {},
    "advunlearn": {**DRAWN, "iterations": 1, "warmup": 0, "attack_steps": 1, "retain_batch": 1},
    "ca": {**DRAWN, "iterations": 1, "batch": 1, "images": 1},
    "cogfd": {**DRAWN, "iterations": 1, "batch": 2, "images": 1},
    "concept_steerers": SAE,
    "esd": {**DRAWN, "iterations": 1},
    "fade": {**DRAWN, "iterations": 1, "batch": 1, "images": 1},
    "mace": {**DRAWN, "iterations": 1, "images": 1},
    "rece": {},
    "saeuron": {**SAE, **DRAWN, "every": 1},
    "safree": {},
    "sld": {},
    "ssd": {**DRAWN, "samples": 1, "pictures": 1, "alpha": 1.0, "retain_prompts": ["", "a house"]},
    "trasce": {},
    "uce": {"edit": "erase"},
}
"""The least that still goes through all of a technique's code; what is left out is its default."""


def of_technique(name: str, model: StableDiffusion, device: str) -> dict[str, Any]:
    """Return what a technique changes, its seconds and GiB, and those of a guided step with the result."""
    technique = build(registry.load("unlearn.techniques", name), LEAST[name])
    edited, seconds, peak = measured(lambda: technique.apply(model, [DOG], seed=0), device)
    step, step_peak = a_step(edited, device)
    return {
        "settings": LEAST[name],
        "changes": changes(model, edited),
        "seconds": seconds,
        "GiB_beyond_the_model": peak,
        "guided_step": {"seconds": step, "GiB_beyond_the_model": step_peak},
    }


@torch.no_grad()
def a_step(model: StableDiffusion, device: str) -> tuple[float, float]:
    """Return seconds and GiB of one guided prediction of the noise of one picture."""
    side = model.unet.config.sample_size
    start = model.trajectory(["a dog"])
    x = torch.randn(1, 4, side, side).to(model.device, model.dtype)
    _, seconds, peak = measured(lambda: model.noise(x, 500, start, guidance_scale=7.5), device)
    return seconds, peak


def main() -> None:
    """Go through all techniques, and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--pixels", type=int, default=512 if gpu else 256)
    parser.add_argument("--techniques", default=",".join(LEAST))
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "records" / "techniques_full_size.json"
    )
    arguments = parser.parse_args()
    # Autoencoders are cached: here their training is what is to be measured.
    os.environ["UNLEARN_BENCH_CACHE"] = tempfile.mkdtemp()
    model = sd14(arguments.device, pixels=arguments.pixels)
    a_step(model, arguments.device)  # the first call starts threads and kernels
    record = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {"techniques": {}}
    for name in arguments.techniques.split(","):
        print(name, flush=True)
        record["techniques"][name] = of_technique(name, model, arguments.device)
        print(json.dumps(record["techniques"][name]), flush=True)
        record |= {
            "what": "SD v1.4's configuration with random weights, float32, wall-clock seconds",
            "pixels": arguments.pixels,
            "device": arguments.device,
            "threads": torch.get_num_threads(),
            "environment": environment(),
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
