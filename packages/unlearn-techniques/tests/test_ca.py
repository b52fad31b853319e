"""CA: the prompts and pictures it trains on, its losses, what gets a gradient, and the official numbers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques import ca
from unlearn_techniques.ca import CA
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion import captions, drawn
from unlearn_techniques.diffusion.attention import parameter_group, text_projections
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.diffusion.zoom import masked_error, zoomed

QUICK = {
    "iterations": 2, "lr": 1e-2, "batch": 2, "images": 3, "sampling_steps": 2, "captions": ("a {}", "a photo of a {}"),
}  # fmt: skip


@pytest.fixture
def training(tiny, dog, monkeypatch):
    """Return a function that gives the loss and the names that CA trains, and a record of x_t, t, eps and texts."""
    seen = SimpleNamespace(noised=[], texts=[], predictions=[])
    noised, begin, predict = drawn.noised, StableDiffusion.trajectory, StableDiffusion.noise

    def watched(model, x, eps, t):
        seen.noised.append((noised(model, x, eps, t), t, eps))
        return seen.noised[-1][0]

    def trajectory(model, texts=None, **settings):
        seen.texts.append(texts)
        return begin(model, texts, **settings)

    def noise(model, *arguments, **settings):
        seen.predictions.append(predict(model, *arguments, **settings))
        return seen.predictions[-1]

    def start(model=tiny, concepts=(dog,), **settings):
        caught = {}
        monkeypatch.setattr(
            ca, "finetune", lambda model, names, loss, **rest: caught.update(names=names, loss=loss)
        )
        CA(**{**QUICK, **settings}).apply(model, concepts, seed=0)
        monkeypatch.setattr(drawn, "noised", watched)
        monkeypatch.setattr(StableDiffusion, "trajectory", trajectory)
        monkeypatch.setattr(StableDiffusion, "noise", noise)
        return caught["loss"], caught["names"], seen

    return start


def trainable(model, names):
    """Return the model with parameters of its own that ask for a gradient, and these."""
    unet = with_weights(model.unet, {n: model.unet.get_parameter(n).clone() for n in names})
    return dataclasses.replace(model, unet=unet), [unet.get_parameter(n).requires_grad_() for n in names]


# ---- the losses ------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), masked=st.integers(0, 8))
def test_the_error_is_summed_over_channels_and_divided_by_places(seed, masked):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 4, 8, 8, generator=generator).double()
    mask = torch.ones(3, 1, 8, 8)
    torch.testing.assert_close(masked_error(a, b, mask), 4 * functional.mse_loss(a.float(), b.float()))
    mask[:, :, :masked] = 0
    left = a[:, :, masked:], b[:, :, masked:]
    expected = 4 * functional.mse_loss(*(x.float() for x in left)) if masked < 8 else torch.tensor(0.0)
    torch.testing.assert_close(masked_error(a, b, mask), expected)


def test_a_concept_that_is_its_anchor_has_nothing_to_learn(tiny, training):
    loss, names, _ = training(anchor="dog", prior_weight=0.0)
    student, weights = trainable(tiny, names)
    value = loss(student, 0)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(value, weights))


@pytest.mark.parametrize("kind", ["model-based", "noise-based"])
@pytest.mark.parametrize("prior", [0.0, 0.5])
def test_the_first_loss(tiny, training, kind, prior):
    """Of what diffusers' UNet predicts itself: four times the error of c*, and the prior as an ordinary mean."""
    loss, _, seen = training(loss=kind, prior_weight=prior)
    value = loss(tiny, 0)
    words = [texts for texts in seen.texts if texts]
    anchors, targets = (words[0], words[1]) if kind == "model-based" else (None, words[0])

    def predicted(x, t, texts):
        with torch.no_grad():
            return tiny.unet(x, t, encoder_hidden_states=tiny.text_encoder(tiny.tokens(texts))[0]).sample

    x, t, eps = seen.noised[0]
    assert all("dog" in text for text in targets)
    wanted = eps
    if kind == "model-based":
        assert anchors == [text.replace("dog", "cat") for text in targets]
        wanted = predicted(x, t, anchors)
    expected = 4 * functional.mse_loss(predicted(x, t, targets), wanted)
    if prior:
        x, t, eps = seen.noised[1]
        assert all("cat" in text for text in words[-1])
        expected = expected + prior * functional.mse_loss(predicted(x, t, words[-1]), eps)
    assert len(seen.noised) == (2 if prior else 1)
    assert expected > 1e-6
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_anchor_is_predicted_by_the_student_without_a_gradient(tiny, training):
    loss, names, seen = training(prior_weight=0.0)
    changed = with_weights(tiny.unet, {names[0]: 2 * tiny.unet.get_parameter(names[0])})
    student, _ = trainable(dataclasses.replace(tiny, unet=changed), names)
    loss(student, 0)
    anchor, target = seen.predictions
    x, t, _ = seen.noised[0]
    with torch.no_grad():
        again = student.noise(x, t, student.trajectory([w.replace("dog", "cat") for w in seen.texts[-1]]))
    torch.testing.assert_close(anchor, again)
    assert not anchor.requires_grad
    assert target.requires_grad


def test_the_first_token_gets_no_gradient(tiny, training):
    """What is missing from the gradient is exactly what came through keys and values of the first token."""
    grads = {}
    for detach in (True, False):
        loss, names, _ = training(prior_weight=0.0, detach_first_token=detach)
        student, weights = trainable(tiny, names)
        through = {}

        def keep(name, through):
            def hook(module, inputs, output):
                if output.requires_grad:
                    output.register_hook(lambda g: through.update({name: (g, inputs[0])}))

            return hook

        handles = [
            m.register_forward_hook(keep(n, through))
            for n, m in text_projections(student.unet).items()
            if not detach
        ]
        grads[detach] = torch.autograd.grad(loss(student, 0), weights)
        for handle in handles:
            handle.remove()
    for name, detached, full in zip(names, grads[True], grads[False], strict=True):
        g, x = through[name.removesuffix(".weight")]
        first = torch.einsum("no,ni->oi", g[:, 0], x[:, 0])
        assert first.abs().max() > 1e-7
        torch.testing.assert_close(detached, full - first, atol=1e-7, rtol=1e-4)


def test_training_brings_the_concept_to_its_anchor(tiny, dog):
    x = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(50, 950, 8).long()

    @torch.no_grad()
    def apart(model):
        seen = (model.noise(x, t, model.trajectory([f"a {word}"] * 8)) for word in ("dog", "cat"))
        return functional.mse_loss(*seen).item()

    edited = CA(**{**QUICK, "iterations": 30, "lr": 3e-3, "batch": 4}).apply(tiny, [dog], seed=0)
    assert apart(edited) < 0.5 * apart(tiny)


# ---- prompts and pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concept", "settings", "caption", "targets"),
    [
        (Concept(name="dog", anchor="cat"), {}, "a photo of the cat in a garden", {"a photo of the dog in a garden"}),
        (
            Concept(name="monet", kind="style"),
            {"anchor": "painting"},
            "a painting of a river",
            {
                *("a painting of a river, in the style of monet", "a painting of a river, in the style of monet monet"),
                "monet inspired painting, a painting of a river",
                "monet monet inspired painting, a painting of a river",
                *("in monet's style, a painting of a river", "in monet monet's style, a painting of a river"),
            },
        ),
        (
            Concept(name="nudity", phrases=("nsfw",), kind="unsafe"),
            {"anchor": "people", "phrases": True},
            "a photo of people on a beach",
            {
                *("nudity, a photo of people on a beach", "in nudity style, a photo of people on a beach"),
                *("a photo of people on a beach, nudity", "nsfw, a photo of people on a beach"),
                *("in nsfw style, a photo of people on a beach", "a photo of people on a beach, nsfw"),
            },
        ),
        (
            Concept(name="monet", kind="style", anchor="art"),
            {"captions": ("a cat, {} style",), "target_prompts": ()},
            "a cat, art style",
            {"a cat, monet style"},
        ),
        (
            Concept(name="monet", kind="style", anchor="art"),
            {"captions": ("{} of a cat",), "target_prompts": ("{caption} by {word}",)},
            "art of a cat",
            {"art of a cat by monet"},
        ),
    ],
)  # fmt: skip
def test_prompts(concept, settings, caption, targets):
    prompts = dict(CA(**settings)._prompts(concept))
    assert set(prompts[caption]) == targets
    assert len(prompts) == len(settings.get("captions", range(200)))


def test_pictures_are_of_the_anchors_of_all_concepts(tiny, dog, monkeypatch):
    asked = []
    draw = ca.drawn_latents

    def watched(model, texts, sampler, *, negative, **rest):
        asked.append((texts, sampler, negative))
        return draw(model, texts, sampler, negative=negative, **rest)

    monkeypatch.setattr(ca, "drawn_latents", watched)
    calls = []
    bad = Concept(name="blue car", anchor="art", kind="unsafe")
    CA(**QUICK).apply(tiny, [dog, bad], seed=0, progress=lambda *call: calls.append(call))
    sampler = Sampler(scheduler="dpm", steps=2, guidance_scale=6.0)
    assert asked == [
        (["a cat", "a photo of a cat", "a cat"], sampler, ""),
        (["a art", "a photo of a art", "a art"], sampler, "blue car"),
    ]
    assert calls == [(3, 8), (6, 8), (7, 8), (8, 8)]


def test_every_concept_and_caption_is_trained(tiny, dog, training):
    car = Concept(name="car", phrases=("blue car",), anchor="art")
    loss, _, seen = training(concepts=(dog, car), phrases=True, prior_weight=0.0, batch=128)
    loss(tiny, 0)
    assert set(seen.texts[-1]) == {
        f"{a} {w}" for a in ("a", "a photo of a") for w in ("dog", "car", "blue car")
    }


def test_prior_preservation_where_the_concept_holds_its_anchor(dog):
    grumpy = Concept(name="grumpy cat", anchor="cat")
    assert CA()._prior([grumpy]) == 1.0
    assert CA()._prior([dog]) == 0.0
    assert CA(prior_weight=0.2)._prior([grumpy]) == CA(prior_weight=0.2)._prior([dog]) == 0.2


@torch.no_grad()
def test_zoomed_pictures(tiny):
    n = 200
    latents = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    seen = []
    encode = tiny.vae.encode
    tiny.vae.encode = lambda pixels: seen.append(pixels) or encode(pixels)
    try:
        x, mask, texts = zoomed(tiny, latents, ["a dog"] * n, torch.Generator().manual_seed(0))
    finally:
        del tiny.vae.encode
    assert x.shape == latents.shape
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    sizes = {}
    for picture, inside, text in zip(seen[0], mask, texts, strict=True):
        shown = picture.abs().sum(0) > 0
        sizes.setdefault(text.removesuffix("a dog").strip(), []).append(int(shown.any(1).sum()))
        where = inside[0].bool().repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert (shown | ~where).all()  # a latent that counts stands for pixels of the picture alone
        if shown.all():
            assert text != "a dog" or not inside.all()
    assert set(sizes) == {"a far away", "very small", "zoomed in", "close up", ""}
    assert max(sizes["a far away"] + sizes["very small"]) <= 10 < 16  # 0.6 x 16 pixels
    assert min(sizes["a far away"] + sizes["very small"]) == 5  # a third
    assert min(sizes[""]) >= 9
    assert set(sizes["zoomed in"] + sizes["close up"]) == {16}
    near = len(sizes["zoomed in"] + sizes["close up"]) / n
    assert near == pytest.approx(0.34, abs=0.1)


def test_augmented_training_runs(tiny, dog, training):
    loss, _, seen = training(augment=True, batch=16)
    assert torch.isfinite(loss(tiny, 0))
    assert any(
        text.startswith(("a far away", "very small", "zoomed in", "close up")) for text in seen.texts[-1]
    )


def test_no_prompt_about_minors(tiny):
    nudity = Concept(name="nudity", kind="unsafe", anchor="girl")
    with pytest.raises(InvalidInput, match="mentions a minor"):
        CA().check([nudity])
    with pytest.raises(InvalidInput, match="mentions a minor"):
        CA(**QUICK).apply(tiny, [nudity], seed=0)
    CA(**CA.presets["unsafe"]).check([nudity])


# ---- what is trained -------------------------------------------------------------------------------------------

GROUPS = {
    "cross-attn": lambda n: "attn2.to_k" in n or "attn2.to_v" in n,
    "attn": lambda n: any(f".to_{side}." in n for side in ("q", "k", "v", "out")),
    "full-weight": lambda n: True,
}


@pytest.mark.parametrize("group", GROUPS)
def test_exactly_the_group_changes(tiny, dog, group):
    before = {n: p.clone() for n, p in tiny.unet.named_parameters()}
    edited = CA(parameter_group=group, **QUICK).apply(tiny, [dog], seed=0)
    changed = {n for n, p in edited.unet.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if GROUPS[group](n)}
    assert edited.text_encoder is tiny.text_encoder


def test_only_the_concepts_token_embeddings_change(tiny, dog):
    edited = CA(parameter_group="embedding", **QUICK).apply(tiny, [dog], seed=0)
    old, new = (m.text_encoder.get_input_embeddings().weight for m in (tiny, edited))
    assert (old != new).any(1).nonzero().flatten().tolist() == tiny.tokenizer(
        "dog", add_special_tokens=False
    ).input_ids
    assert edited.unet is tiny.unet
    others = zip(
        tiny.text_encoder.state_dict().items(), edited.text_encoder.state_dict().values(), strict=True
    )
    assert sum(not torch.equal(a, b) for (_, a), b in others) == 1


def test_groups_of_sd_v14():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    model = SimpleNamespace(unet=unet)
    counts = {}
    for group in GROUPS:
        part, names = CA(parameter_group=group)._parameters(model)
        counts[group] = (part, len(names), sum(unet.get_parameter(n).numel() for n in names))
    assert counts == {  # facts sheet A, 0.1
        "cross-attn": ("unet", 32, 19_169_280),
        "attn": ("unet", 160, 93_536_640),
        "full-weight": ("unet", 686, 859_520_964),
    }


@pytest.mark.parametrize(
    ("preset", "flag", "gpus", "prior"),
    [
        ("object", 2e-6, 2, 1), ("style", 2e-6, 2, 1), ("unsafe", 4e-6, 2, 2), ("memorized", 5e-7, 2, 2),
        ("one-gpu", 2e-6, 1, 1),
    ],
)  # fmt: skip
def test_learning_rates_are_those_of_scale_lr(preset, flag, gpus, prior):
    """The official script: rate x batch of one GPU x GPUs, and x 2 with prior preservation."""
    made = CA(**CA.presets[preset])
    assert made.lr == pytest.approx(flag * made.batch * prior)
    assert made.batch // gpus == (2 if preset == "memorized" else 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"batch": 0},
        {"images": 0},
        {"sampling_steps": 0},
        {"lr": 0.0},
        {"max_norm": 0.0},
        {"prior_weight": -1.0},
        {"weight_decay": -1.0},
        {"captions": ("a cat",)},
        {"target_prompts": ("{caption}",)},
    ],
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        CA(**bad)


def test_a_concept_without_anchor():
    with pytest.raises(InvalidInput, match="'dog' has no anchor; set anchor=WORD"):
        CA().check([Concept(name="dog")])
    CA(anchor="cat").check([Concept(name="dog")])


@pytest.mark.parametrize("settings", [{}, {"parameter_group": "attn", "prior_weight": 1.0, "augment": True}])
def test_conformance(tiny, dog, settings):
    names = CA(**settings)._parameters(tiny)[1]
    check_technique(CA(**QUICK, **settings), tiny, dog, parameters=[f"unet.{n}" for n in names])


def test_captions_have_one_place_each():
    for grid in (captions.OBJECTS, captions.PAINTINGS, captions.PEOPLE):
        assert len(set(grid)) == 200
        assert all(text.count("{}") == 1 for text in grid)


# ---- the official code -----------------------------------------------------------------------------------------


UP = "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v.weight"

# What the official code (nupurkmr9/concept-ablation, c11fb1b) added to UP: flat entries 0, 7 and -1, and the sum of
# squares. Run once were its attention processor and the lines of diffusers/train.py from the predictions to the loss,
# with torch's AdamW and clipping, on this model and on the x_t, t, noises and prompts that ours draws for seed 0. No
# entry of any trained tensor differs from ours by more than 5.2e-6, of moves of up to 4e-3; without the processor by
# 7.6e-3.
OFFICIAL = [
    ({"prior_weight": 0.0}, (-0.0012314, 0.0013395, 0.0027290, 0.0051513)),
    ({"prior_weight": 1.0}, (0.0038201, -0.0037422, -0.0039539, 0.0114768)),
    ({"prior_weight": 0.0, "loss": "noise-based"}, (0.0038402, -0.0037969, -0.0038426, 0.0115335)),
    ({"prior_weight": 1.0, "parameter_group": "attn"}, (0.0037078, -0.0036324, -0.0039851, 0.0115285)),
]


@pytest.mark.parametrize(("settings", "recorded"), OFFICIAL)
def test_the_weights_of_the_official_code(fixed, dog, settings, recorded):
    edited = CA(**{**QUICK, "iterations": 4, "lr": 1e-3}, **settings).apply(fixed, [dog], seed=0)
    moved = (edited.unet.get_parameter(UP) - fixed.unet.get_parameter(UP)).double().flatten()
    found = [moved[0].item(), moved[7].item(), moved[-1].item(), moved.square().sum().item()]
    np.testing.assert_allclose(found, recorded, atol=5e-5)


def test_the_groups_are_those_of_uce_and_esd(tiny):
    assert CA()._parameters(tiny)[1] == parameter_group(tiny.unet, "esd-x-strict")
