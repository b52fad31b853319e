"""Concept Steerers: the shift at the hooked layer, identities, attacks that give embeddings, other hooks beside it."""

import dataclasses

import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.prompts import Prompt
from unlearn_core.spec import build
from unlearn_techniques.concept_steerers import ConceptSteerers
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.activations import changed_layer, text_activations, text_layers
from unlearn_techniques.diffusion.sae import SparseAutoencoder
from unlearn_techniques.diffusion.sae_files import save
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.sld import SLD
from unlearn_techniques.uce import UCE

QUICK = {"rows": 6000, "k": 8, "lr": 3e-3, "captions": ("a car", "a photo of a cat")}
SAMPLER = Sampler(steps=3, guidance_scale=4.0, batch=2)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def steered(tiny, concept, **settings):
    edited = ConceptSteerers(**{**QUICK, **settings}).apply(tiny, [concept], seed=0)
    return edited, edited.conditions[-1]


def rows(*texts):
    return [Prompt(id=str(i), text=text, seed=i, group="target") for i, text in enumerate(texts)]


def pictures(model, *texts):
    return [p.tobytes() for p in model.generate(rows(*texts), SAMPLER)]


def embeddings(model, texts):
    """Return what the UNet reads at the first step, (n, tokens, width), and of the empty prompt."""
    start = model.trajectory(texts)
    (condition,) = start.conditions
    return condition(start.prompt, None), start.empty


def test_it_keeps_the_rules_of_every_technique(tiny, dog):
    technique = ConceptSteerers(**QUICK, lamb=-3.0)
    check_technique(technique, tiny, dog, parameters=(), identity=dataclasses.replace(technique, lamb=0.0))


# ---- the rule --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_formula(tiny, dog, tmp_path):
    """``f = lambda ReLU(W_e (h(c) - b_pre) + b_lat) W_d``, one number after another, without top-k and b_pre."""
    generator = torch.Generator().manual_seed(0)
    n, d = 20, 32
    tensors = [torch.randn(s, generator=generator) for s in ((n, d), (n,), (n, d), (d,))]
    sae = SparseAutoencoder(
        **dict(zip(("encoder", "latent_bias", "decoder", "pre_bias"), tensors, strict=True)), k=1
    )
    save(sae, tmp_path / "sae.safetensors")
    _, steering = steered(tiny, dog, sae=str(tmp_path), lamb=-0.7, layer=0, text="a dog")
    h = text_activations(tiny, ["a dog"], 0)[0]
    for at in (0, 2, 15):
        expected = torch.zeros(d)
        for i in range(n):
            z = max(0.0, float(sae.encoder[i] @ (h[at] - sae.pre_bias) + sae.latent_bias[i]))
            expected -= 0.7 * z * sae.decoder[i]
        torch.testing.assert_close(steering.shift[at], expected, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_the_shift_at_the_layer(tiny, dog):
    """Facts sheet B, section 3, invariant c: +f for prompts and -f for the empty prompt, at every position."""
    edited, steering = steered(tiny, dog, layer=0)
    texts = ["a dog", "a photo of a cat"]
    found, empty = embeddings(edited, texts)
    for expected, prompts, sign in ((found, texts, 1), (empty, [""], -1)):
        layer = tiny.text_encoder.encoder.layers[0]
        handle = layer.register_forward_hook(
            lambda module, inputs, output, s=sign: output + s * steering.shift
        )
        torch.testing.assert_close(tiny.encode(prompts), expected, atol=1e-5, rtol=1e-5)
        handle.remove()
    assert (empty - tiny.encode([""])).abs().max() > 0.01
    _, one_sided = embeddings(steered(tiny, dog, layer=0, sides="prompt")[0], texts)
    assert torch.equal(one_sided, tiny.encode([""]))


def test_the_shift_is_linear_in_lambda(tiny, dog):
    """Invariant d."""
    one, three = (steered(tiny, dog, lamb=lamb)[1].shift for lamb in (-1.0, 3.0))
    torch.testing.assert_close(three, -3 * one)
    assert one.norm() > 1


def test_lambda_0(tiny, dog):
    """Invariant a: bit-equal embeddings and pictures."""
    edited, _ = steered(tiny, dog, lamb=0.0)
    found, empty = embeddings(edited, ["a dog"])
    assert torch.equal(found, tiny.encode(["a dog"]))
    assert torch.equal(empty, tiny.encode([""]))
    assert pictures(edited, "a dog", "a cat") == pictures(tiny, "a dog", "a cat")
    assert pictures(steered(tiny, dog, lamb=-3.0)[0], "a dog") != pictures(tiny, "a dog")


def test_a_decoder_of_zeros(tiny, dog, tmp_path):
    """Invariant b."""
    zeros = torch.zeros(8, 32)
    sae = SparseAutoencoder(
        encoder=torch.ones(8, 32), latent_bias=torch.ones(8), decoder=zeros, pre_bias=torch.ones(32), k=2
    )
    save(sae, tmp_path / "sae.safetensors")
    edited, _ = steered(tiny, dog, sae=str(tmp_path), lamb=-5.0)
    assert pictures(edited, "a dog") == pictures(tiny, "a dog")


def test_the_concepts_text(tiny):
    concepts = [Concept(name="dog", phrases=("wolf",)), Concept(name="car")]
    technique = ConceptSteerers(**QUICK)
    (both,) = technique.apply(tiny, concepts, seed=0).conditions
    assert both.text == "dog, wolf, car"
    assert ConceptSteerers(**QUICK, text="a cat").apply(tiny, concepts, seed=0).conditions[0].text == "a cat"


def test_three_quarters_of_the_way(tiny, dog):
    """Layer 9 of the 12 of SD v1.4's text encoder (narrow here), counted from 0; the last of two."""
    from transformers import CLIPTextConfig, CLIPTextModel

    own = {**tiny.text_encoder.config.to_dict(), "num_hidden_layers": 12}
    deep = dataclasses.replace(tiny, text_encoder=CLIPTextModel(CLIPTextConfig(**own)).eval())
    assert len(text_layers(deep.text_encoder)) == 12
    assert steered(deep, dog)[1].layer == 9
    assert steered(tiny, dog)[1].layer == 1


def test_layers_of_transformers_4(tiny):
    """They are called text_model.encoder.layers and return tuples."""

    class Layer(torch.nn.Module):
        def forward(self, h):
            return (h, "more")

    old = torch.nn.Module()
    old.text_model = torch.nn.Module()
    old.text_model.encoder = torch.nn.Module()
    old.text_model.encoder.layers = torch.nn.ModuleList([Layer()])
    with changed_layer(old, 0, lambda h: h + 1):
        assert text_layers(old)[0](torch.zeros(2))[0].tolist() == [1, 1]
        assert text_layers(old)[0](torch.zeros(2))[1] == "more"
    assert text_layers(old)[0](torch.zeros(2))[0].tolist() == [0, 0]


# ---- beside others ---------------------------------------------------------------------------------------------


def test_embeddings_without_texts(tiny, dog):
    """They are moved as the concept's own text would be, so an attack on embeddings meets the defence."""
    edited, steering = steered(tiny, dog, lamb=-3.0)
    given = tiny.encode(["dog"]).detach().requires_grad_()
    start = edited.trajectory(embeddings=given)
    moved = start.conditions[0](start.prompt, None)
    torch.testing.assert_close(moved, embeddings(edited, [steering.text])[0])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = tiny.noise(x, 500, tiny.trajectory(embeddings=given), guidance_scale=4.0)
    defended = edited.noise(x, 500, start, guidance_scale=4.0)
    assert (plain - defended).abs().max() > 1e-4
    (gradient,) = torch.autograd.grad(defended.square().sum(), given)
    assert gradient.abs().max() > 0


def test_gradients_reach_the_text_encoder(tiny, dog):
    """Through the steered pass as well: a soft token is moved through the hook."""
    edited, steering = steered(tiny, dog)
    table = tiny.text_encoder.get_input_embeddings()
    soft = table(tiny.tokens(["a dog"])).detach().requires_grad_()
    handle = table.register_forward_hook(lambda module, inputs, output: soft)
    try:
        steering.prepare(edited, ["a dog"], torch.zeros(()))(torch.zeros(()), None).square().sum().backward()
    finally:
        handle.remove()
    assert soft.grad.abs().max() > 0


def test_it_composes(tiny, dog):
    """With a weight edit below, a guidance above, and itself: each changes pictures."""
    settings = {**QUICK, "lamb": -3.0}
    edit = UCE(edit="erase").apply(tiny, [dog], seed=0)
    both = ConceptSteerers(**settings).apply(edit, [dog], seed=0)
    all_three = SLD(**SLD.presets["max"]).apply(both, [dog], seed=0)
    twice = ConceptSteerers(**settings, text="car").apply(both, [dog], seed=0)
    drawn = [pictures(m, "a dog")[0] for m in (tiny, edit, both, all_three, twice)]
    assert len(set(drawn)) == 5
    one, other = (m.trajectory(["a cat"]) for m in (both, twice))
    first, second = (c(torch.zeros(()), None) for c in other.conditions)
    torch.testing.assert_close(
        other.conditions[1](other.conditions[0](other.prompt, None), None), other.prompt + first + second
    )
    assert (other.empty - one.empty).abs().max() > 1e-3


# ---- settings --------------------------------------------------------------------------------------------------


def test_the_presets_are_settings():
    for preset in ConceptSteerers.presets.values():
        build(ConceptSteerers, preset)
    assert ConceptSteerers.presets["unsafe"]["lamb"] == -0.5


def test_progress_is_that_of_the_training(tiny, dog):
    seen = []
    technique = ConceptSteerers(**{**QUICK, "rows": 5 * 4096, "k": 7})
    technique.apply(tiny, [dog], seed=0, progress=lambda *at: seen.append(at))
    assert seen == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize(
    "bad", [{"k": 0}, {"rows": 0}, {"lr": 0.0}, {"expansion": 0}, {"templates": ("{} {}",)}]
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad)).rstrip("s")):
        ConceptSteerers(**bad)


def test_what_does_not_fit_the_model(tiny, dog, tmp_path):
    with pytest.raises(InvalidInput, match=r"layer is in \[0, 2\), got 9"):
        steered(tiny, dog, layer=9)
    with pytest.raises(InvalidInput, match="k is at most"):
        steered(tiny, dog, k=200)
    with pytest.raises(Unavailable, match="no autoencoder"):
        steered(tiny, dog, sae=str(tmp_path))
