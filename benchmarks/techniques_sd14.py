"""What UCE, ESD and SLD cost on SD v1.4's real configuration, with random weights: nothing is downloaded.

    uv run benchmarks/techniques_sd14.py [--device cuda]

On the CPU, in float32 and 512 pixels: UCE as a whole (how many matrices it finds and changes, seconds, memory beyond
the model), and the parts of ESD and SLD once: a guided step, a step of SLD, and an iteration of ESD-x without the
drawing of x_t, which is 24.5 guided steps on average. On a GPU, in float16: UCE, ten whole iterations of ESD-x, and 50
steps with and without SLD, before and after torch.compile. Writes records/techniques_sd14.json.
"""

import argparse
import ctypes
import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unlearn_core.concept import Concept
from unlearn_core.environment import environment
from unlearn_core.prompts import Prompt
from unlearn_techniques.diffusion.attention import text_projections
from unlearn_techniques.diffusion.delta import Delta
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.esd import ESD
from unlearn_techniques.sld import SLD
from unlearn_techniques.testing import tokenizer
from unlearn_techniques.uce import UCE

DOG = Concept(name="dog", anchor="cat", adjacent=("wolf", "car", "photo", "art"))


def sd14(device: str = "cpu", dtype: torch.dtype = torch.float32, *, pixels: int = 512) -> StableDiffusion:
    """Return SD v1.4 with random weights: its UNet, VAE and text encoder, and 77 tokens of a small vocabulary."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=pixels // 8, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4,
        )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12,
            max_position_embeddings=77, vocab_size=49408, projection_dim=768,
        )
    )  # fmt: skip
    words = tokenizer()
    words.model_max_length = 77
    torch.manual_seed(0)
    for part in (unet, vae):
        part.to_empty(device=device)
        for name, p in part.named_parameters():
            with torch.no_grad():
                p.normal_(0, 0.02) if p.ndim > 1 else p.fill_(
                    float("norm" in name and name.endswith("weight"))
                )
        part.requires_grad_(False)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    parts = [part.to(device, dtype) for part in (unet, vae, text)]
    return StableDiffusion.from_pipeline(
        StableDiffusionPipeline(
            unet=parts[0], vae=parts[1], text_encoder=parts[2], tokenizer=words, scheduler=scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ),
        source="SD v1.4 with random weights",
    )  # fmt: skip


def measured(call: Callable[[], Any], device: str) -> tuple[Any, float, float]:
    """Return what a call returns, its seconds, and the peak of its memory (GiB) beyond what was there."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is taken now
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
    start = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else memory("VmHWM")
    return result, round(seconds, 2), round(max(peak - before, 0) / 2**30, 2)


def memory(field: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def uce(model: StableDiffusion, device: str) -> dict[str, Any]:
    """Time the edit and count the matrices that it changed."""
    found = {}
    for name, technique in {
        "2025": UCE(edit="erase"),
        "2023, 6 templates": UCE(
            variant="2023", edit="erase",
            templates=("{}", "image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
        ),
    }.items():  # fmt: skip
        edited, seconds, peak = measured(lambda t=technique: t.apply(model, [DOG], seed=0), device)
        changed = set(Delta.between(model, edited).tensors)
        assert changed == {f"unet.{n}.weight" for n in text_projections(model.unet)}, "another tensor changed"
        found[name] = {"seconds": seconds, "GiB_beyond_the_model": peak, "matrices_changed": len(changed)}
    return found


@torch.no_grad()
def a_step(model: StableDiffusion, device: str) -> tuple[float, float]:
    """Return seconds and GiB of one prediction of the noise of one picture at guidance 7.5."""
    start = model.trajectory(["a dog"])
    x = torch.randn(1, 4, 64, 64).to(model.device, model.dtype)
    return measured(lambda: model.noise(x, 500, start, guidance_scale=7.5), device)[1:]


def on_the_cpu(model: StableDiffusion) -> dict[str, Any]:
    """Time each part once, after one call to warm up."""
    small = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        model.noise(small, 500, model.trajectory(["a dog"]))
    found: dict[str, Any] = {"uce": uce(model, "cpu")}
    guided, guided_memory = a_step(model, "cpu")
    steered, steered_memory = a_step(SLD().apply(model, [DOG], seed=0), "cpu")
    _, seconds, peak = measured(
        lambda: ESD(iterations=1, sampling_steps=1).apply(model, [DOG], seed=0), "cpu"
    )
    found["guided_step"] = {"seconds": guided, "GiB_beyond_the_model": guided_memory}
    found["sld_step"] = {
        "seconds": steered,
        "GiB_beyond_the_model": steered_memory,
        "times_guided": round(steered / guided, 2),
    }
    found["esd_x_iteration_without_drawing"] = {"seconds": seconds, "GiB_beyond_the_model": peak}
    found["esd_x_iteration_on_average"] = {"seconds": round(seconds + 24.5 * guided)}
    return found


def on_a_gpu(model: StableDiffusion) -> dict[str, Any]:
    """Time whole edits and whole pictures in float16, with and without torch.compile."""
    uce(model, "cuda")  # cuBLAS and cuSOLVER start
    found: dict[str, Any] = {"uce": uce(model, "cuda")}
    rows = [Prompt(id=str(i), text="a dog", seed=i, group="target") for i in range(16)]
    sampler = Sampler(batch=16)

    def draw(drawn: StableDiffusion) -> dict[str, Any]:
        list(drawn.generate(rows, dataclasses.replace(sampler, steps=2)))
        _, seconds, peak = measured(lambda: list(drawn.generate(rows, sampler)), "cuda")
        return {"seconds_for_16_pictures": seconds, "GiB_beyond_the_model": peak}

    for name in ("eager", "compiled"):
        if name == "compiled":
            model.unet.compile()
        times = {"none": draw(model), "sld": draw(SLD().apply(model, [DOG], seed=0))}
        if name == "eager":  # the student is another network: it would be compiled for every run
            ESD(iterations=1).apply(model, [DOG], seed=0)
            _, seconds, peak = measured(lambda: ESD(iterations=10).apply(model, [DOG], seed=0), "cuda")
            times["esd_x"] = {"seconds_an_iteration": round(seconds / 10, 2), "GiB_beyond_the_model": peak}
        found[name] = times
    return found


def main() -> None:
    """Time everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "records" / "techniques_sd14.json"
    )
    arguments = parser.parse_args()

    device = arguments.device
    load = os.getloadavg()[0]
    model = sd14(device, torch.float16 if device == "cuda" else torch.float32)
    record = {
        "what": "SD v1.4's configuration with random weights, 512 pixels, wall-clock seconds",
        "parameters_of_the_unet": sum(p.numel() for p in model.unet.parameters()),
        "projections": len(text_projections(model.unet)),
        device: on_a_gpu(model) if device == "cuda" else on_the_cpu(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "load_of_the_machine_before": round(load, 1),
        "environment": environment(),
    }
    print(json.dumps({k: v for k, v in record.items() if k != "environment"}, indent=1))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
