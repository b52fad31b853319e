"""Points on the way to pictures: the sampler's grid, the model's own predictions, and the pool."""

import pytest
import torch

from unlearn_techniques.diffusion import scenes
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.scenes import Scenes

SAMPLER = Sampler(steps=5, guidance_scale=3.0)
GRID = [801, 601, 401, 201, 1]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_x_t_lies_on_the_path_of_diffusers_own_pipeline(tiny, monkeypatch):
    noises, draw = [], scenes.initial_noise
    monkeypatch.setattr(scenes, "initial_noise", lambda *a: noises.append(draw(*a)) or noises[-1])
    pipe = tiny.to_pipeline()
    pipe.set_progress_bar_config(disable=True)
    drawn = Scenes(tiny, SAMPLER, seed=1)
    seen = set()
    for i in range(6):
        scene = drawn.of("a dog", 2, generator())
        path = [noises[i]]
        pipe(
            ["a dog"] * 2, latents=noises[i], num_inference_steps=5, guidance_scale=3.0, output_type="latent",
            callback_on_step_end=lambda _, i, t, kept, path=path: path.append(kept["latents"]) or kept,
        )  # fmt: skip
        torch.testing.assert_close(scene.x, path[GRID.index(int(scene.t))], atol=1e-4, rtol=1e-4)
        seen.add(int(scene.t))
    assert len(seen) > 2
    assert not torch.equal(noises[0], noises[1])  # without a pool no scene comes twice


def test_predictions_are_the_unets(tiny):
    scene = Scenes(tiny, SAMPLER, seed=0).among(["a dog", "a cat"], 2, generator())
    with torch.no_grad():
        for found, texts in [(scene.prompted, scene.texts), (scene.empty, ["", ""])]:
            expected = tiny.unet(scene.x, scene.t, encoder_hidden_states=tiny.encode(texts)).sample
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        one = scene.noise(tiny, tiny.encode(["a cat"]))
        expected = tiny.unet(scene.x, scene.t, encoder_hidden_states=tiny.encode(["a cat"] * 2)).sample
    torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-4)
    assert not scene.prompted.requires_grad


def test_some_of_many_are_all_different(tiny):
    texts = ["a dog", "a cat", "a car", "art", "blue"]
    drawn = Scenes(tiny, Sampler(steps=1), seed=0)
    found = [drawn.among(texts, 3, generator()).texts for _ in range(6)]
    assert all(len(set(some)) == 3 for some in found)
    assert len(set(found)) > 1
    assert set(drawn.among(texts, 9, generator()).texts) == set(texts)


def test_a_pool_repeats_itself(tiny):
    pooled = Scenes(tiny, SAMPLER, seed=0, pool=2)
    found = [pooled.of("a dog", 1, generator(i)) for i in range(12)]
    assert len({id(scene) for scene in found}) == 2
    again = Scenes(tiny, SAMPLER, seed=0, pool=2)
    assert torch.equal(again.of("a dog", 1, generator(0)).x, found[0].x)
    assert len({id(pooled.among(["a cat", "a car"], 2, generator(i))) for i in range(12)}) == 2


@pytest.mark.parametrize(("steps", "low", "high"), [(50, 39, 58), (5, 399, 598)])
def test_the_later_timestep_of_the_first_esd_code(tiny, steps, low, high):
    """Sheet, 0.2: the latent is at 20 (t_enc - 2) + 1, t uniform in [20 t_enc, 20 (t_enc + 1)); at most 999."""
    settings = {"seed": 3, "pool": 4}
    own = Scenes(tiny, Sampler(steps=steps, guidance_scale=1.0), **settings)
    told = Scenes(tiny, Sampler(steps=steps, guidance_scale=1.0), later=True, **settings)
    for i in range(6):
        one, other = own.of("a dog", 1, generator(i)), told.of("a dog", 1, generator(i))
        assert torch.equal(one.x, other.x)
        offset = int(other.t) - int(one.t)
        assert low <= offset <= high or int(other.t) == 999
