"""Latents that the model draws itself are those of its pictures, and noise is added as diffusers adds it."""

import numpy as np
import pytest
import torch

from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.drawn import drawn_latents, noised, noised_anywhere, training_target
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


@torch.no_grad()
def test_a_negative_prompt_is_that_of_diffusers(tiny):
    noise = torch.stack(
        [
            torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(derive(5, "drawn", i)))
            for i in range(2)
        ]
    )
    pipe = tiny.to_pipeline()
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        ["a dog", "a cat"], negative_prompt=["blue"] * 2, latents=noise, num_inference_steps=3, guidance_scale=4.0,
        output_type="latent",
    ).images  # fmt: skip
    found = drawn_latents(tiny, ["a dog", "a cat"], SAMPLER, seed=5, negative="blue")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - drawn_latents(tiny, ["a dog", "a cat"], SAMPLER, seed=5)).abs().max() > 1e-2


def test_what_the_guard_refuses_is_not_drawn(tiny):
    with pytest.raises(InvalidInput, match="mentions a minor"):
        drawn_latents(tiny, ["a dog", "a nude child"], SAMPLER, seed=0)


def test_noise_at_any_time(tiny):
    latents = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x, t, eps = noised_anywhere(tiny, latents, torch.Generator().manual_seed(1), 200, 400)
    assert 200 <= t.min() < 220 < 380 < t.max() < 400
    torch.testing.assert_close(x, noised(tiny, latents, eps, t))
    assert eps.std().item() == pytest.approx(1, abs=0.02)
