"""The holder and the loop: equal to diffusers, independent of company, and open to hooks and gradients."""

import dataclasses
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_techniques.diffusion import sampling
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.sld import SLD
from unlearn_techniques.uce import UCE

SAMPLER = Sampler(steps=5, guidance_scale=5.0, batch=4)


def diffusers_pictures(model, rows, *, scheduler, steps, scale):
    """What diffusers' own pipeline draws, one prompt at a time."""
    import diffusers

    pipe = model.to_pipeline()
    if scheduler != "model":
        pipe.scheduler = getattr(diffusers, sampling.SCHEDULERS[scheduler]).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    found = []
    for row in rows:
        result = pipe(
            row.text,
            generator=torch.Generator().manual_seed(row.seed),
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="np",
        )
        found.append((result.images[0] * 255).round().astype(np.uint8))
    return np.array(found)


@pytest.mark.parametrize("scheduler", ["model", *sampling.SCHEDULERS])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_pictures_are_those_of_diffusers(tiny, rows, scheduler, scale):
    sampler = Sampler(scheduler=scheduler, steps=5, guidance_scale=scale, batch=1)
    ours = np.array(list(tiny.generate(rows[:2], sampler)))
    theirs = diffusers_pictures(tiny, rows[:2], scheduler=scheduler, steps=5, scale=scale)
    assert np.ptp(theirs.astype(int)) > 20
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_picture_is_the_same_alone_in_a_batch_and_in_another_order(tiny, rows):
    together = list(tiny.generate(rows, SAMPLER))
    for i in (0, 3, 4):
        (alone,) = tiny.generate([rows[i]], SAMPLER)
        assert np.array_equal(alone, together[i])
    backwards = list(tiny.generate(rows[::-1], SAMPLER))[::-1]
    assert all(map(np.array_equal, together, backwards))
    assert not np.array_equal(together[0], together[1])


def test_the_ambient_generator_decides_nothing(tiny, rows):
    first = next(iter(tiny.generate(rows, SAMPLER)))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert np.array_equal(next(iter(tiny.generate(rows, SAMPLER))), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_row_with_a_guidance_of_its_own_is_drawn_with_it(tiny, rows):
    own = dataclasses.replace(rows[0], guidance=9.0)
    pictures = list(tiny.generate([own, rows[0]], SAMPLER))
    expected = list(tiny.generate([rows[0]], dataclasses.replace(SAMPLER, guidance_scale=9.0)))
    assert np.abs(pictures[0].astype(int) - expected[0]).max() <= 1
    assert not np.array_equal(pictures[0], pictures[1])


def test_it_halves_the_batch_when_memory_runs_out(tiny, rows, monkeypatch):
    expected = list(tiny.generate(rows, dataclasses.replace(SAMPLER, batch=2)))
    draw, sizes = sampling._draw, []

    def small_memory(model, prompts, sampler, batch):
        sizes.append(batch)
        if batch > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return draw(model, prompts, sampler, batch)

    monkeypatch.setattr(sampling, "_draw", small_memory)
    done = []
    found = list(
        tiny.generate(rows, dataclasses.replace(SAMPLER, batch=8), progress=lambda *x: done.append(x))
    )
    assert sizes == [8, 4, 2, 2, 2]
    assert done == [(2, 5), (4, 5), (5, 5)]
    assert all(map(np.array_equal, found, expected))
    monkeypatch.setattr(sampling, "_draw", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError()))
    with pytest.raises(Unavailable, match="single picture does not fit"):
        list(tiny.generate(rows, SAMPLER))


def test_other_errors_are_not_taken_for_a_full_memory(tiny, rows, monkeypatch):
    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(sampling, "_draw", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(tiny.generate(rows, SAMPLER))


def test_long_prompts_are_counted(tiny, rows):
    long = dataclasses.replace(rows[0], text="dog " * 40)
    with pytest.warns(UnlearnWarning, match="1 of 6 prompts have more than the 16 tokens"):
        list(tiny.generate([*rows, long], SAMPLER))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(tiny.generate([dataclasses.replace(rows[0], text="dog " * 14)], SAMPLER))


def test_a_refused_prompt_is_not_drawn(tiny):
    row = Prompt(id="x", text="a naked child", seed=0, group="target")
    with pytest.raises(InvalidInput, match="not drawn"):
        list(tiny.generate([row], SAMPLER))


def test_sizes(tiny, rows):
    (picture,) = tiny.generate(rows[:1], Sampler(steps=1, height=32, width=16))
    assert picture.shape == (32, 16, 3)
    assert picture.dtype == np.uint8
    with pytest.raises(InvalidInput, match="n x 4"):
        list(tiny.generate(rows[:1], Sampler(steps=1, height=30)))


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"guidance_scale": -1}, {"batch": 0}, {"guidance_scale": float("nan")}]
)
def test_a_sampler_checks_itself(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        Sampler(**bad)


def test_half_precision_starts_from_the_same_noise(tiny, rows):
    half = tiny.to(dtype=torch.bfloat16)
    assert tiny.dtype == torch.float32
    full, rough = (np.array(list(m.generate(rows, SAMPLER))).astype(int) for m in (tiny, half))
    assert 0 < np.abs(full - rough).mean() < 6


# ---- hooks: the shapes that SAFREE, SAeUron, SLD and white-box attacks need ------------------------------------


@dataclass(frozen=True, kw_only=True)
class LateOnly:
    """A condition that depends on the step, as SAFREE's: zero embeddings until `until`."""

    until: int = 2

    def prepare(self, model, texts, embeddings):
        mine = torch.zeros_like(embeddings)
        return lambda read, step: mine if step.index < self.until else read


@dataclass(frozen=True, kw_only=True)
class Damp:
    """An activation hook as SAeUron's: it sees one module's output, and only the prompt's rows."""

    factor: float = 0.5
    modules: tuple[str, ...] = ("mid_block.attentions.0",)

    def __call__(self, output, rows, step):
        changed = output.clone()
        changed[rows["prompt"]] *= self.factor
        return changed


def add(model, **hooks):
    return dataclasses.replace(model, **hooks)


def picture(model, row, **settings):
    return next(iter(model.generate([row], dataclasses.replace(SAMPLER, **settings))))


def test_every_kind_of_hook_changes_pictures_and_the_fingerprint_and_composes(tiny, rows, dog):
    away = SLD.presets["max"]
    kinds = {
        "condition": add(tiny, conditions=(LateOnly(),)),
        "activation": add(tiny, activations=(Damp(),)),
        "guidance": SLD(**away).apply(tiny, [dog], seed=0),
        "weights": UCE().apply(tiny, [dog], seed=0),
    }
    both = SLD(**away).apply(
        add(kinds["weights"], conditions=(LateOnly(),), activations=(Damp(),)), [dog], seed=0
    )
    models = [tiny, *kinds.values(), both]
    assert len({m.fingerprint for m in models}) == len(models)
    assert len({picture(m, rows[0]).tobytes() for m in models}) == len(models)
    assert add(tiny, activations=(Damp(factor=0.4),)).fingerprint != kinds["activation"].fingerprint
    assert not tiny.unet.mid_block.attentions[0]._forward_hooks  # nothing is left behind


def test_hooks_of_strength_zero_change_nothing(tiny, rows):
    idle = add(tiny, conditions=(LateOnly(until=0),), activations=(Damp(factor=1.0),))
    assert np.array_equal(picture(idle, rows[0]), picture(tiny, rows[0]))


def test_a_hook_on_a_module_that_is_not_there_says_so(tiny, rows):
    with pytest.raises(UnlearnError, match="no module 'mid'"):
        picture(add(tiny, activations=(Damp(modules=("mid",)),)), rows[0])


def test_a_defence_is_inside_what_an_attack_differentiates(tiny, dog):
    """A white-box attack descends `noise` with respect to the embeddings; the hooks change value and gradient."""
    defended = SLD(**SLD.presets["max"]).apply(add(tiny, activations=(Damp(),)), [dog], seed=0)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def attack(model):
        embeddings = tiny.encode(["a dog"]).detach().requires_grad_()
        out = model.noise(x, 500, model.trajectory(embeddings=embeddings)).square().sum()
        return out.item(), torch.autograd.grad(out, embeddings)[0]

    (plain, slope), (value, other) = attack(tiny), attack(defended)
    assert plain != pytest.approx(value)
    assert other.abs().sum() > 0
    assert not torch.allclose(slope, other)


def test_noise_is_classifier_free_guidance(tiny):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        start = tiny.trajectory(["a dog", "a cat"])
        asked = tiny.noise(x, 300, start)
        empty = tiny.noise(x, 300, tiny.trajectory(["", ""]))
        guided = tiny.noise(x, 300, start, guidance_scale=7.5)
    torch.testing.assert_close(guided, empty + 7.5 * (asked - empty), atol=1e-5, rtol=1e-5)


def test_a_negative_prompt_takes_the_place_of_the_empty_one(tiny):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        start = tiny.trajectory(["a dog"], empty=tiny.encode(["a dog"]))
        guided = tiny.noise(x, 300, start, guidance_scale=7.5)
        torch.testing.assert_close(guided, tiny.noise(x, 300, start), atol=1e-5, rtol=1e-5)


# ---- parts ---------------------------------------------------------------------------------------------------------


def test_to_pipeline_and_back(tiny, rows, tmp_path):
    again = StableDiffusion.from_pipeline(tiny.to_pipeline())
    assert again.fingerprint == tiny.fingerprint
    tiny.save_pretrained(tmp_path / "saved")
    loaded = StableDiffusion.load(tmp_path / "saved")
    assert loaded.fingerprint == tiny.fingerprint
    assert np.array_equal(picture(loaded, rows[0]), picture(tiny, rows[0]))


def test_a_pipeline_cannot_hold_a_guidance(tiny, dog, tmp_path):
    with pytest.raises(InvalidInput, match="Away acts while the model draws"):
        SLD().apply(tiny, [dog], seed=0).save_pretrained(tmp_path)


def test_with_weights_shares_all_but_what_changes(tiny):
    name = "conv_in.weight"
    value = torch.ones_like(tiny.unet.get_parameter(name))
    edited = with_weights(tiny.unet, {name: value})
    assert torch.equal(edited.get_parameter(name), value)
    assert not torch.equal(tiny.unet.get_parameter(name), value)
    for other, parameter in tiny.unet.named_parameters():
        shared = edited.get_parameter(other).data_ptr() == parameter.data_ptr()
        assert shared == (other != name)
    with pytest.raises(InvalidInput, match="no parameter 'conv'"):
        with_weights(tiny.unet, {"conv": value})
    with pytest.raises(InvalidInput, match=r"is \(32, 4, 3, 3\), not \(1,\)"):
        with_weights(tiny.unet, {name: torch.ones(1)})


def test_the_fingerprint_sees_every_weight_and_the_dtype(tiny):
    last = list(tiny.vae.state_dict())[-1]
    other = dataclasses.replace(tiny, vae=with_weights(tiny.vae, {last: tiny.vae.get_parameter(last) + 1}))
    assert len({tiny.fingerprint, other.fingerprint, tiny.to(dtype=torch.float16).fingerprint}) == 3
    assert isinstance(tiny.unet, nn.Module)


def test_more_steps_than_the_model_was_trained_with(tiny):
    with pytest.raises(InvalidInput, match="at most 1000, as the model was trained; got 1001"):
        Sampler(steps=1001).scheduler_for(tiny)
