"""A step of each attack, and a pass of the networks of the metrics, at their real sizes with random weights.

    uv run benchmarks/attacks_full_size.py [--device cuda] [--pixels 256] [--pictures 4]

Attacks see SD v1.4's configuration; a white-box step is a gradient through the UNet, for P4D with the prediction of the
original, both alone and through SLD's guidance. Networks are asked about random pictures of 512 pixels: Inception, the
CLIPs ViT-L/14 and ViT-H/14, BLIP for questions (base), and NudeNet, whose own weights come with it. Nothing is
downloaded. Writes records/attacks_full_size.json.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from techniques_sd14 import DOG, measured, sd14

from unlearn_bench.sd.attacks import Drawn
from unlearn_core import registry
from unlearn_core.environment import environment
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.spec import build
from unlearn_metrics.attacks.drawing import Candidates, Noised
from unlearn_metrics.attacks.vocabulary import Vocabulary
from unlearn_techniques.diffusion.sampling import Sampler

RECORD = Path(__file__).parent / "records" / "attacks_full_size.json"
ROW = Prompt(id="a", text="a photo of a dog in a park", seed=0, group="target", concept="dog")
TEXT_STEPS = {"ring_a_bell": {"generations": 1}, "mma_diffusion": {"steps": 1, "restarts": 1}}
Ask = Callable[[list[Any]], Any]


def white_box(name: str, model: Any, original: Any, device: str) -> dict[str, float]:
    """Return seconds and GiB of one step of P4D or UnlearnDiffAtk on a model with its defence."""
    attack = build(registry.load("unlearn.attacks", name), {})
    words = Vocabulary.for_attack(attack, model, DOG)
    search = Candidates.of(attack, model, words, ROW, DOG)
    generator = torch.Generator().manual_seed(0)
    ids = words.draw((search.slots.count,), generator)
    side = model.unet.config.sample_size
    latents = torch.randn(1, 4, side, side, generator=generator).to(model.device, model.dtype)
    noised = Noised.of(original, latents, 500, generator)
    scale = attack.guidance_scale if name == "p4d" and model.hooks else 1.0

    def step() -> None:
        wanted = noised.truth.float()
        if name == "p4d":
            with torch.no_grad():
                wanted = noised.seen_by(original, ROW.text, original.encode([ROW.text]), scale)
        search.gradient(ids, noised, wanted, scale)

    step()  # the first call starts threads and kernels
    _, seconds, peak = measured(step, device)
    return {"seconds": seconds, "GiB_beyond_the_model": peak}


def on_text(name: str, model: Any, device: str) -> dict[str, float]:
    """Return seconds and GiB of one generation of Ring-A-Bell or one step of MMA-Diffusion."""
    attack = build(registry.load("unlearn.attacks", name), TEXT_STEPS[name])
    rows = PromptSet(name="one", rows=(ROW,))
    _, seconds, peak = measured(lambda: attack.craft(model, rows, seed=0, concept=DOG), device)
    return {"seconds": seconds, "GiB_beyond_the_model": peak}


def networks(device: str, folder: Path) -> Iterator[tuple[str, Ask]]:
    """Yield what metrics ask about pictures, with random weights but for NudeNet's."""
    import open_clip

    from unlearn_metrics.open_clip_model import OpenClip

    weights = inception(folder / "inception.pth")
    extractor = build(
        registry.load("unlearn.extractors", "inception"), {"weights": weights, "device": device}
    )
    yield "inception (fid, kid)", extractor.features
    for name in ("ViT-L-14", "ViT-H-14"):
        net, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
        clip = OpenClip(net.eval(), preprocess, open_clip.get_tokenizer(name), "random", torch.device(device))
        yield f"{name} (clip_score, cmmd, p4d)", clip.encode_images
    vqa = build(registry.load("unlearn.vqa", "blip"), {"model": blip(folder / "blip"), "device": device})
    yield (
        "BLIP base, one question (tifa)",
        lambda pictures: vqa.answer(pictures, [["is there a dog?"]] * len(pictures)),
    )
    nudenet = build(registry.load("unlearn.detectors", "nudenet"), {})
    yield "nudenet (asr, err)", nudenet.presence


def inception(path: Path) -> str:
    """Save Inception with random weights; without a file torch-fidelity would download its own."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    net = module.FeatureExtractorInceptionV3
    with (
        patch.object(module, "load_state_dict_from_url", return_value={}),
        patch.object(net, "load_state_dict"),
    ):
        torch.save(net("inception-v3-compat", ["2048"]).state_dict(), path)
    return str(path)


def blip(folder: Path) -> str:
    """Save BLIP for questions, base size, with random weights and a few words."""
    import transformers

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *["is", "there", "a", "dog", "?", "yes", "no"],
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    text = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    transformers.BlipForQuestionAnswering(transformers.BlipConfig(text_config=text)).save_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    transformers.BlipProcessor(transformers.BlipImageProcessor(), tokenizer).save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--pixels", type=int, default=512 if gpu else 256, help="of Stable Diffusion")
    parser.add_argument("--pictures", type=int, default=64 if gpu else 4, help="that the networks are shown")
    parser.add_argument("--out", type=Path, default=RECORD)
    arguments = parser.parse_args()
    device = arguments.device
    # What attacks find and detectors say is cached: here it is to be measured.
    os.environ["UNLEARN_BENCH_CACHE"] = tempfile.mkdtemp()
    sampler = Sampler(steps=50, guidance_scale=7.5)
    base = sd14(device, pixels=arguments.pixels)
    original = Drawn(model=base, sampler=sampler)
    sld = build(registry.load("unlearn.techniques", "sld"), {}).apply(base, [DOG], seed=0)
    defended = Drawn(model=sld, sampler=sampler)
    steps: dict[str, dict[str, float]] = {}
    for name, call in {
        "p4d": lambda: white_box("p4d", original, original, device),
        "p4d through sld": lambda: white_box("p4d", defended, original, device),
        "unlearndiffatk": lambda: white_box("unlearndiffatk", original, original, device),
        **{name: functools.partial(on_text, name, original, device) for name in TEXT_STEPS},
    }.items():
        steps[name] = call()
        print(name, steps[name], flush=True)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (512, 512, 3), dtype=np.uint8) for _ in range(arguments.pictures)]
    passes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, ask in networks(device, Path(folder)):
            ask(pictures[:1])  # loads, and starts threads and kernels
            _, seconds, peak = measured(lambda ask=ask: ask(pictures), device)
            passes[name] = {"seconds": seconds, "GiB_beyond_the_model": peak}
            print(name, passes[name], flush=True)
    record = {
        "what": "SD v1.4's configuration and the metrics' networks, random weights, float32, wall-clock seconds",
        "pixels": arguments.pixels,
        "pictures": arguments.pictures,
        "device": device,
        "threads": torch.get_num_threads(),
        "attack_steps": steps,
        "metric_passes": passes,
        "environment": environment(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
