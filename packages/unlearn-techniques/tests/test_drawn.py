"""Latents that the model draws itself are those of its pictures, and noise is added as diffusers adds it."""

import numpy as np
import pytest
import torch

from unlearn_core.prompts import Prompt
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.drawn import drawn_latents, noised, training_target
from unlearn_techniques.diffusion.sampling import Sampler, decode

SAMPLER = Sampler(steps=3, guidance_scale=4.0, batch=2)


@torch.no_grad()
def test_latents_are_those_of_the_pictures(tiny):
    texts = ["a dog", "a cat", "a dog"]
    seen = []
    latents = drawn_latents(
        tiny, texts, SAMPLER, seed=5, progress=lambda done, total: seen.append((done, total))
    )
    rows = [
        Prompt(id=str(i), text=text, seed=derive(5, "drawn", i), group="target")
        for i, text in enumerate(texts)
    ]
    pictures = np.stack(list(tiny.generate(rows, SAMPLER)))
    assert np.array_equal(decode(tiny, latents[:2]), pictures[:2])
    assert np.array_equal(decode(tiny, latents[[2, 2]])[:1], pictures[2:])
    assert (latents[0] != latents[2]).any()
    assert seen == [(2, 3), (3, 3)]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_diffusers(tiny, kind):
    from dataclasses import replace

    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(tiny.scheduler.config, prediction_type=kind)
    model = replace(tiny, scheduler=scheduler)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    t = torch.tensor([0, 500, 999])
    torch.testing.assert_close(noised(model, latents, noise, t), scheduler.add_noise(latents, noise, t))
    expected = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, t)
    torch.testing.assert_close(training_target(model, latents, noise, t), expected)
