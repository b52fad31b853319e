"""Pictures per second of our loop against diffusers' pipeline called one prompt at a time, in one run.

    uv run benchmarks/generation.py [--device cuda]

On the CPU: pocket-sd, 25 steps, one thread and CPU seconds, so that whatever else the machine does counts little. On a
GPU: SD v1.4's configuration with random weights at 512 pixels in float16, with and without torch.compile, wall-clock
seconds. One prompt at a time is what eval-learn does. What counts is the ratio.

And how many pictures the metrics need: each distinct row once, against once for every metric that rates it.
Writes records/generation.json.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pocket_sd
from unlearn_core import registry
from unlearn_core.environment import environment
from unlearn_core.prompts import Prompt
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler

BATCHES = (1, 2, 4, 8, 16, 32)
METRICS = ("clip_score", "fid", "kid", "ua_ira", "asr_i2p")
ROUNDS = 2


def seconds(call: Callable[[], Any], device: str) -> float:
    """Return the seconds of a call: of this process on the CPU, of the wall on a GPU."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def rates(model: StableDiffusion, prompts: list[Prompt], sampler: Sampler, device: str) -> dict[str, Any]:
    """Return pictures per second of the pipeline, one prompt at a time, and of our loop at each batch size."""
    pipe = model.to_pipeline()
    pipe.scheduler = sampler.scheduler_for(model)
    pipe.set_progress_bar_config(disable=True)

    def one_at_a_time(rows: list[Prompt], steps: int) -> None:
        for row in rows:
            pipe(
                row.text, generator=torch.Generator().manual_seed(row.seed), num_inference_steps=steps,
                guidance_scale=sampler.guidance_scale, output_type="np",
            )  # fmt: skip

    def ours(rows: list[Prompt], batch: int, steps: int) -> None:
        list(model.generate(rows, dataclasses.replace(sampler, batch=batch, steps=steps)))

    few = prompts[:8]
    best = {batch: 0.0 for batch in (0, *BATCHES)}  # 0: diffusers
    one_at_a_time(few[:1], 2)
    for _ in range(ROUNDS):
        best[0] = max(best[0], len(few) / seconds(lambda: one_at_a_time(few, sampler.steps), device))
        for batch in BATCHES:
            ours(prompts[:batch], batch, 2)  # kernels are chosen, and compiled, for each shape
            rows = prompts[: max(batch, len(few))]
            taken = seconds(lambda b=batch, r=rows: ours(r, b, sampler.steps), device)
            best[batch] = max(best[batch], len(rows) / taken)
    return {
        "diffusers_one_at_a_time": round(best[0], 3),
        "ours": {batch: round(best[batch], 3) for batch in BATCHES},
        "times_faster": {batch: round(best[batch] / best[0], 2) for batch in BATCHES},
    }


def pictures_needed(concept: str) -> dict[str, Any]:
    """Return how many pictures of pocket-sd the metrics rate: every row once, and once for each metric."""
    rows, each = set(), {}
    for name in METRICS:
        groups = registry.load("unlearn.metrics", name).prompts
        known = [g for g in groups if g in pocket_sd.prompt_sets.GROUPS]
        own = {row.id for group in known for row in pocket_sd.prompts(group, concept)}
        each[name] = len(own)
        rows |= own
    return {
        "concept": concept,
        "distinct_rows": len(rows),
        "one_generation_per_metric": sum(each.values()),
        "times_fewer": round(sum(each.values()) / len(rows), 2),
        "per_metric": each,
    }


def main() -> None:
    """Time everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "generation.json")
    arguments = parser.parse_args()

    device = arguments.device
    record: dict[str, Any] = {"what": f"pictures per second on the {device.upper()}", "device": device}
    prompts = list(pocket_sd.prompts("quality", n=max(BATCHES)))
    if device == "cpu":
        torch.set_num_threads(1)
        record |= {"model": "pocket-sd, 64 pixels, 25 steps, float32", "seconds": "CPU seconds of one thread"}
        sampler = Sampler(steps=pocket_sd.STEPS, guidance_scale=pocket_sd.GUIDANCE)
        record["pictures_per_second"] = rates(StableDiffusion.load("pocket"), prompts, sampler, device)
    else:
        from techniques_sd14 import sd14

        record |= {
            "model": "SD v1.4's configuration, random weights, 512 pixels, 50 steps, float16",
            "seconds": "wall-clock",
        }
        model = sd14(device, torch.float16)
        record["pictures_per_second"] = rates(model, prompts, Sampler(), device)
        model.unet.compile()
        record["pictures_per_second_compiled"] = rates(model, prompts, Sampler(), device)
    record |= {"pictures_needed": pictures_needed("dog"), "environment": environment()}
    print(json.dumps({k: v for k, v in record.items() if k != "environment"}, indent=1))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
