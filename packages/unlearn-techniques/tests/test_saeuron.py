"""SAeUron: the scores, the ablation and its identities, parity with the official hook, timesteps, other hooks."""

import dataclasses

import numpy as np
import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.spec import build
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.activations import drawn_activations
from unlearn_techniques.diffusion.sae import SparseAutoencoder
from unlearn_techniques.diffusion.sae_files import save
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.steps import Step
from unlearn_techniques.saeuron import Ablation, SAeUron, chosen
from unlearn_techniques.uce import UCE

MODULE = "up_blocks.1.attentions.1"
QUICK = {
    "expansion": 4, "k": 8, "rows": 8000, "lr": 3e-3, "captions": ("a car", "a photo of a cat", "a dog by a car"),
    "templates": ("{}", "a {}"), "sampling_steps": 4, "sampling_guidance": 3.0, "every": 2, "percentile": 95.0,
    "multiplier": -20.0,
}  # fmt: skip
SAMPLER = Sampler(steps=4, guidance_scale=4.0, batch=2)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def numbers(seed, n=48, d=12, m=40, k=5):
    """Return an autoencoder as the recorded runs of the official code had it (as in test_sae.py)."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    encoder, latent_bias, pre_bias, _ = drawn(n, d) / d**0.5, 0.1 * drawn(n), 0.3 * drawn(d), drawn(m, d)
    decoder = drawn(n, d)
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    return SparseAutoencoder(
        encoder=encoder, latent_bias=latent_bias, decoder=decoder, pre_bias=pre_bias, k=k
    )


TIMES = torch.tensor([900, 500, 100])


def official(error="official", halves="both", percentile=95.0, multiplier=-2.0, seed=2):
    """Return the hook, and three maps (4, 12, 4, 4), of the recorded run: three concepts of five prompts."""
    rng = np.random.default_rng(seed)
    mu = [torch.tensor(rng.random((5, 3, 48)), dtype=torch.float32) for _ in "abc"]
    maps = [torch.tensor(rng.normal(size=(4, 12, 4, 4)), dtype=torch.float32) for _ in range(3)]
    found = chosen(mu, 1, percentile, multiplier)
    return Ablation(
        modules=("m",), sae=numbers(1), times=TIMES, halves=halves, error=error, **found
    ), maps, mu  # fmt: skip


def at(t, n=2):
    return Step(index=0, total=3, t=torch.as_tensor(t), latents=torch.zeros(n, 4, 4, 4))


ROWS = {"empty": slice(0, 2), "prompt": slice(2, 4)}


def test_it_keeps_the_rules_of_every_technique(tiny, dog):
    check_technique(SAeUron(**QUICK), tiny, dog, parameters=())


# ---- parity ----------------------------------------------------------------------------------------------------


def test_the_hook_of_the_official_code():
    """cywinski/SAeUron 1a4302a, utils/hooks.py, SAEMaskedUnlearningHook(["a"], 95, -2.0, ..., steps=3), torch 2.13."""
    hook, maps, _ = official()
    chosen_at = [hook.features[hook.factors[i] != 1].tolist() for i in range(3)]
    assert chosen_at == [[16, 41, 44], [24, 26, 31], [17, 32, 35]]
    recorded = [  # sum, sum of squares, output[1, 3, 2, 1]
        (-99.13478232175112, 3618.6678296426053, 1.8587617874145508),
        (228.6022724956274, 6447.524884634845, 4.708539962768555),
        (206.86269656568766, 6401.58735569278, -2.4501428604125977),
    ]
    for t, x, (total, squares, one) in zip(TIMES, maps, recorded, strict=True):
        found = hook(x, ROWS, at(t)).double()
        assert found.sum().item() == pytest.approx(total, abs=1e-2)
        assert found.square().sum().item() == pytest.approx(squares, rel=1e-5)
        assert found[1, 3, 2, 1].item() == pytest.approx(one, abs=1e-4)


# ---- the rule --------------------------------------------------------------------------------------------------


def test_nothing_to_change_is_no_change():
    """Facts sheet B, section 4, invariant a: no latent chosen, and no place above the thresholds: the same bits."""
    hook, (x, *_), _ = official("kept")
    none = dataclasses.replace(
        hook, features=hook.features[:0], factors=hook.factors[:, :0], thresholds=hook.thresholds[:, :0]
    )
    high = dataclasses.replace(hook, thresholds=hook.thresholds + 1e6)
    for same in (none, high):
        assert torch.equal(same(x, ROWS, at(900)), x)
        theirs = dataclasses.replace(same, error="official")(x, ROWS, at(900))
        vectors = x.flatten(2).transpose(1, 2)
        output = hook.sae.decode(hook.sae.encode(vectors)).transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(theirs, 2 * output - x, atol=1e-5, rtol=1e-5)
        assert (theirs - x).abs().max() > 0.5


def test_a_factor_of_1_is_no_change():
    """Invariant b."""
    hook, (x, *_), _ = official("kept")
    ones = dataclasses.replace(hook, factors=torch.ones_like(hook.factors))
    assert torch.equal(ones(x, ROWS, at(900)), x)


def test_the_change_place_by_place():
    """Invariant c: sum of (gamma mu - 1) z_i W_dec[i] over the latents of this step above their thresholds."""
    hook, maps, mu = official("kept")
    edited = 0
    for step, x in enumerate(maps):
        found = hook(x, ROWS, at(TIMES[step]))
        own = mu[0][:, step].mean(0)
        nu = torch.stack([m[:, step].mean(0) for m in mu]).mean(0)
        for b, row, col in ((0, 0, 0), (1, 2, 3), (3, 3, 1), (2, 1, 1)):
            v = x[b, :, row, col]
            z, expected = hook.sae.encode(v), v.clone()
            for i in hook.features[hook.factors[step] != 1].tolist():
                if z[i] > nu[i]:
                    expected += (-2.0 * own[i] - 1) * z[i] * hook.sae.decoder[i]
                    edited += 1
            torch.testing.assert_close(found[b, :, row, col], expected, atol=1e-5, rtol=1e-5)
    assert edited > 0


def test_only_the_prompts_half():
    """Invariant d, also where no empty prompt is asked."""
    both, (x, *_), _ = official("kept")
    prompt = dataclasses.replace(both, halves="prompt")
    expected = both(x, ROWS, at(900))
    assert torch.equal(prompt(x, ROWS, at(900))[:2], x[:2])
    torch.testing.assert_close(prompt(x, ROWS, at(900))[2:], expected[2:])
    assert (expected[:2] - x[:2]).abs().max() > 0.1
    torch.testing.assert_close(prompt(x, {"prompt": slice(0, 4)}, at(900, n=4)), expected)


@pytest.mark.parametrize(("percentile", "count"), [(99.999, 1), (99.995, 2), (99.99, 3), (0.0, 20479)])
def test_how_many_latents_a_percentile_leaves(percentile, count):
    """Invariant e, of 20480 latents."""
    mu = [torch.tensor(np.random.default_rng(i).random((2, 1, 20480)), dtype=torch.float32) for i in range(2)]
    assert len(chosen(mu, 1, percentile, -1.0)["features"]) == count


def test_the_scores():
    """Shares of all activity, against the other prompts pooled: five times as loud all over is no difference."""
    mu = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    loud = 5 * mu + torch.tensor([[0.0, 0.0, 4.0, 0.0]])
    found = chosen([loud[None], mu[None], mu[None]], 1, 70.0, -1.0)
    assert found["features"].tolist() == [2]
    assert found["factors"].tolist() == [[-19.0]]
    torch.testing.assert_close(found["thresholds"], torch.tensor([[(19 + 3 + 3) / 3]]))


def test_several_concepts():
    """Each has its own latents; one of both is changed once, by the stronger."""
    base = torch.ones(1, 1, 6)
    a, b = base.clone(), base.clone()
    a[..., 0], a[..., 2], b[..., 1], b[..., 2] = 9.0, 5.0, 9.0, 7.0
    found = chosen([a, b, base, base], 2, 60.0, -1.0)
    assert dict(zip(found["features"].tolist(), found["factors"][0].tolist(), strict=True)) == {
        0: -9.0,
        1: -9.0,
        2: -7.0,
    }


def test_steps_are_matched_by_their_time():
    """Any number of steps, one time for each row, and the same rows in both halves."""
    hook, (x, *_), _ = official("kept")
    for t, nearest in ((999, 900), (701, 900), (699, 500), (310, 500), (1, 100)):
        assert torch.equal(hook(x, ROWS, at(t)), hook(x, ROWS, at(nearest)))
    mixed = hook(x, ROWS, at([900, 100]))
    torch.testing.assert_close(mixed[[0, 2]], hook(x, ROWS, at(900))[[0, 2]])
    torch.testing.assert_close(mixed[[1, 3]], hook(x, ROWS, at(100))[[1, 3]])
    assert (hook(x, ROWS, at(900)) - hook(x, ROWS, at(100))).abs().max() > 0.1


def test_half_precision():
    hook, (x, *_), _ = official("kept")
    found = hook(x.to(torch.bfloat16), ROWS, at(900))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), hook(x.to(torch.bfloat16).float(), ROWS, at(900)), atol=0.1, rtol=0.02
    )


# ---- activations -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_activations_that_it_learns_from(tiny):
    """Those of the prompts' half, of every second step, in the order of the texts, whatever the batch."""
    texts = ["a dog", "a cat", "a car"]
    seen = []
    tiny.unet.get_submodule(MODULE).register_forward_hook(lambda m, i, o: seen.append(o[0]))
    try:
        found = drawn_activations(tiny, texts, MODULE, SAMPLER, every=2, seed=0)
    finally:
        tiny.unet.get_submodule(MODULE)._forward_hooks.clear()
    assert found.shape == (3, 2, 64, 32)
    assert len(seen) == 8  # two batches of four steps, each with both halves
    torch.testing.assert_close(found[1, 1], seen[2][3].flatten(1).T)
    torch.testing.assert_close(found[2, 0], seen[4][2].flatten(1).T)


def test_the_module_of_sd_v14(dog):
    """Both modules of the paper are there, and as wide as the published autoencoders."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    for settings in (s for name, s in SAeUron.presets.items() if not name.startswith("pocket")):
        module = unet.get_submodule(build(SAeUron, settings).module)
        assert (type(module).__name__, module.in_channels) == ("Transformer2DModel", 1280)


# ---- the technique ---------------------------------------------------------------------------------------------


def test_published_autoencoders(tiny, dog, tmp_path):
    """They are loaded before anything is drawn; one that does not know this model's activations is warned of."""
    ours = SAeUron(**QUICK).apply(tiny, [dog], seed=0).activations[0].sae
    save(ours, tmp_path / "sae.safetensors")
    (hook,) = SAeUron(**QUICK, sae=str(tmp_path)).apply(tiny, [dog], seed=0).activations
    assert hook.sae.fingerprint == ours.fingerprint
    broken = dataclasses.replace(ours, encoder=-ours.encoder, pre_bias=ours.pre_bias + 3)
    save(broken, tmp_path / "other.safetensors")
    with pytest.warns(UnlearnWarning, match="another model"):
        SAeUron(**QUICK, sae=str(tmp_path / "other.safetensors")).apply(tiny, [dog], seed=0)
    save(numbers(0), tmp_path / "narrow.safetensors")
    with pytest.raises(
        InvalidInput, match="width 12, and unet.up_blocks.1.attentions.1 of this model has 32"
    ):
        SAeUron(**QUICK, sae=str(tmp_path / "narrow.safetensors")).apply(
            tiny, [dog], seed=0, progress=lambda *at: pytest.fail("drawn before")
        )


def test_progress_covers_the_whole(tiny, dog):
    """Drawing of 2 + 2 + 2 prompts in batches of eight, then training; the second time there is no training."""
    technique = SAeUron(**{**QUICK, "rows": 3 * 4096})
    seen = []
    for _ in range(2):
        technique.apply(tiny, [dog], seed=0, progress=lambda *at: seen.append(at))
    assert seen == [(6, 9), (7, 9), (8, 9), (9, 9), (6, 6)]


def test_what_the_concept_is_compared_with():
    concept = Concept(name="dog", phrases=("grey wolf",), adjacent=("cat", "fox"))
    technique = SAeUron(
        templates=("a {}",),
        preserve=("car", "Dog"),
        captions=("a Dog!", "a grey wolf", "a doghouse", "a cat, a dog"),
    )
    assert technique._others([concept]) == [["a cat"], ["a fox"], ["a car"], ["a doghouse"]]
    with pytest.raises(InvalidInput, match="nothing to compare"):
        SAeUron(captions=("a dog",)).check([Concept(name="dog")])


def test_it_composes_and_gradients_pass(tiny, dog):
    edited = SAeUron(**QUICK).apply(UCE(edit="erase").apply(tiny, [dog], seed=0), [dog], seed=0)
    rows = [Prompt(id="0", text="a dog", seed=0, group="target")]
    drawn = {
        next(iter(m.generate(rows, SAMPLER))).tobytes()
        for m in (tiny, edited, SAeUron(**QUICK).apply(tiny, [dog], seed=0))
    }
    assert len(drawn) == 3
    given = tiny.encode(["a dog"]).detach().requires_grad_()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = edited.noise(x, 500, edited.trajectory(embeddings=given), guidance_scale=4.0)
    (gradient,) = torch.autograd.grad(noise.square().sum(), given)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    "bad",
    [{"percentile": 100.0}, {"percentile": -1.0}, {"every": 0}, {"sampling_steps": 0}, {"k": 0}, {"templates": ()}],
)  # fmt: skip
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad)).rstrip("s")):
        SAeUron(**bad)


def test_an_unknown_module(tiny, dog):
    with pytest.raises(InvalidInput, match="did you mean 'up_blocks.1.attentions.1'"):
        SAeUron(**{**QUICK, "module": "up_blocks.1.attentions.2"}).apply(tiny, [dog], seed=0)
