"""TraSCE: the official loop's latents, the formulas, and derivatives of what is itself a derivative."""

import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise
from unlearn_techniques.diffusion.steps import Predictions, Step
from unlearn_techniques.safree import SAFREE
from unlearn_techniques.sld import SLD
from unlearn_techniques.trasce import NUDITY, VIOLENCE, TraSCE

SAMPLER = Sampler(steps=5, guidance_scale=7.5, batch=2)
DOG = Concept(name="dog")
STRONG = {"guidance_loss_scale": 15.0, "discriminator_guidance_scale": 5.0, "sigma": 4.0}


def steered(tiny, **settings):
    return TraSCE(**settings).apply(tiny, [DOG], seed=0)


def latents(model, text, sampler=SAMPLER):
    noise = initial_noise(model, [torch.Generator().manual_seed(0)], sampler)
    with torch.no_grad():
        return denoise(model, noise, model.trajectory([text]), sampler)


def facts(x):
    """Three sums that no other tensor of these tests shares."""
    x = x.double().flatten()
    ramp = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    return [x.sum().item(), x.abs().sum().item(), (x * ramp).sum().item()]


@pytest.mark.parametrize(
    ("negative", "g", "d", "sigma", "expected", "first"),
    [
        (True, 1.5, 1.0, 2.0, [-15.1021, 1101.04948, 50.76267], [-7.06044, -6.34933, -4.72961, -3.70431]),
        (False, 1.5, 1.0, 2.0, [153.34861, 1141.68788, 149.35227], [-6.27733, -7.11713, -4.76043, -2.98143]),
        (True, 15.0, 5.0, 1.0, [-0.89112, 1160.90854, 53.75113], [-5.78877, -7.26408, -4.21118, -3.0957]),
        (True, 0.0, 1.0, 1.0, [-15.31058, 1100.50888, 50.72191], [-7.07894, -6.33572, -4.73668, -3.71282]),
        (False, 200.0, 5.0, 1.0, [317.7724, 3303.38232, 173.98438], [8.47804, -18.4091, 1.30818, 6.1797]),
    ],
)
def test_the_latents_of_the_official_loop(tiny, negative, g, d, sigma, expected, first):
    """`sample` of generate_images_concept_erasure.py, anubhav1997/TraSCE 8e3813b, on these very parts, torch 2.13.

    The prompt is "a dog", the concept "dog", five DDIM steps at guidance 7.5; without its negative prompt the script
    still moves the latents.
    """
    model = steered(
        tiny,
        modified_negative_prompt=negative,
        guidance_loss_scale=g,
        discriminator_guidance_scale=d,
        sigma=sigma,
    )
    found = latents(model, "a dog")
    assert facts(found) == pytest.approx(expected, rel=1e-3, abs=0.05)
    assert found.flatten()[:4].tolist() == pytest.approx(first, abs=5e-3)


# ---- the formulas -----------------------------------------------------------------------------------------------


def test_the_modified_negative_prompt(tiny):
    """eps_0 + s (eps_p - eps_n), from three predictions of the model itself; and what another guidance added stays."""
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    texts = ["a cat", "a wolf"]
    with torch.no_grad():
        e_0, e_p, e_n = (tiny.noise(x, 300, tiny.trajectory(t)) for t in (["", ""], texts, ["dog", "dog"]))
        model = steered(tiny, loss_guidance=False)
        found = model.noise(x, 300, model.trajectory(texts), guidance_scale=7.5)
    torch.testing.assert_close(found, e_0 + 7.5 * (e_p - e_n), atol=2e-5, rtol=1e-5)
    act, where = model.guidances[0].start(), Step(index=0, total=50, t=torch.tensor(0), latents=x)
    seen = Predictions(empty=e_0, prompt=e_p, extra=(e_n,))
    torch.testing.assert_close(act(e_p - e_0, seen, where), e_p - e_n)
    torch.testing.assert_close(act(e_p - e_0 + 1, seen, where), e_p - e_n + 1)
    assert where.latents is x


def test_an_empty_text_without_loss_is_plain_guidance(tiny):
    assert torch.equal(
        latents(steered(tiny, text="", guidance_loss_scale=0.0), "a cat"), latents(tiny, "a cat")
    )


def move(model, x, text="a cat", t=300, scale=1.0):
    """Return what one prediction does to the latents."""
    step = Step(index=0, total=50, t=torch.tensor(t), latents=scale * x)
    with torch.no_grad():
        model.noise(x, t, model.trajectory([text] * len(x)), guidance_scale=7.5, step=step)
    return step.latents - scale * x


@pytest.fixture
def x():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def gap(tiny, x, text="a cat"):
    """n_t of each row."""
    with torch.no_grad():
        p, n = (tiny.noise(x, 300, tiny.trajectory([s] * len(x))) for s in (text, "dog"))
    return (p - n).flatten(1).norm(dim=1)


def test_the_move_is_the_gradient_of_the_loss(tiny, x):
    """Against the loss as it is printed, differentiated by finite differences in float64."""
    double = tiny.to(dtype=torch.float64)
    g, d, sigma, x = 1.5, 0.7, 2.0, x[:1].double()
    model = steered(double, guidance_loss_scale=g, discriminator_guidance_scale=d, sigma=sigma)
    found = move(model, x)
    along, h = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double(), 1e-5
    losses = [-g * torch.exp(-gap(double, x + s * h * along) / sigma) for s in (1, -1)]
    slope = ((losses[0] - losses[1]) / (2 * h)).item()
    assert abs(slope) > 1e-5
    assert -d * slope == pytest.approx((found * along).sum().item(), rel=1e-4)


def test_the_move_closes_the_gap(tiny, x):
    """It brings the prompt's prediction nearer to the concept's: that is the intent."""
    moved = move(steered(tiny, discriminator_guidance_scale=0.3), x)
    assert (gap(tiny, x + moved) < gap(tiny, x)).all()
    assert (gap(tiny, x - moved) > gap(tiny, x)).all()


def test_only_the_product_of_the_two_scales_matters(tiny, x):
    a = steered(tiny, guidance_loss_scale=3.0, discriminator_guidance_scale=0.5)
    b = steered(tiny, guidance_loss_scale=0.5, discriminator_guidance_scale=3.0)
    torch.testing.assert_close(move(a, x), move(b, x), atol=1e-9, rtol=1e-5)


def test_far_from_the_concept_nothing_moves(tiny, x):
    """The exponential is local: with sigma towards 0 it is 0 in float32."""
    assert move(steered(tiny), x).abs().max() > 0
    assert not move(steered(tiny, sigma=gap(tiny, x).min().item() / 200), x).any()


def test_a_prompt_that_is_the_concept_stays_and_is_guided_by_nothing(tiny, x):
    model = steered(tiny, **STRONG)
    assert not move(model, x, "dog").any()
    with torch.no_grad():
        found = model.noise(x, 300, model.trajectory(["dog"] * 2), guidance_scale=7.5)
        torch.testing.assert_close(found, tiny.noise(x, 300, tiny.trajectory(["", ""])), atol=1e-4, rtol=1e-4)
    e = tiny.encode(["dog"]).detach().requires_grad_()
    out = denoise(model, x[:1], model.trajectory(embeddings=e), Sampler(steps=2))
    assert torch.autograd.grad(out.square().sum(), e)[0].isfinite().all()


def test_each_row_has_a_norm_of_its_own(tiny, x):
    model = steered(tiny, **STRONG)
    torch.testing.assert_close(move(model, x)[:1], move(model, x[:1]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(move(model, x)[0], move(model, x)[1], atol=1e-3)


def test_a_scheduler_that_scales_its_latents_moves_as_far(tiny, x):
    """Euler holds x_t times sqrt(1 + sigma^2)."""
    model = steered(tiny, **STRONG)
    torch.testing.assert_close(move(model, x, scale=14.6) / 14.6, move(model, x), atol=1e-5, rtol=1e-3)


# ---- gradients, memory, company -----------------------------------------------------------------------------------


def test_an_attack_differentiates_the_move_as_well(tiny, x):
    """Two steps in float64: the slope along a direction of the embeddings against finite differences."""
    double = tiny.to(dtype=torch.float64)
    model = steered(double, **STRONG)
    e = model.encode(["a cat"]).detach().requires_grad_()
    start, sampler = x[:1].double(), Sampler(steps=2)

    def drawn(embeddings, m=model):
        return denoise(m, start, m.trajectory(embeddings=embeddings), sampler).square().sum()

    along = torch.randn(e.shape, generator=torch.Generator().manual_seed(2)).double()
    (slope,) = torch.autograd.grad(drawn(e), e)
    (still,) = torch.autograd.grad(drawn(e, steered(double, loss_guidance=False)), e)
    with torch.no_grad():
        expected = (drawn(e + 1e-5 * along) - drawn(e - 1e-5 * along)).item() / 2e-5
    assert (slope * along).sum().item() == pytest.approx(expected, rel=1e-4)
    assert (still * along).sum().item() != pytest.approx(expected, rel=0.01)


def test_without_gradients_no_graph_is_left(tiny, x):
    model = steered(tiny, **STRONG)
    step = Step(index=0, total=50, t=torch.tensor(300), latents=x)
    with torch.no_grad():
        noise = model.noise(x, 300, model.trajectory(["a cat"] * 2), guidance_scale=7.5, step=step)
    assert not noise.requires_grad
    assert not step.latents.requires_grad
    assert not x.requires_grad
    # The UNet is the same memory; what stands in for its parameters asks for no gradient.
    for ours, theirs in zip(model.unet.parameters(), tiny.unet.parameters(), strict=True):
        assert ours.data_ptr() == theirs.data_ptr()
        assert not ours.requires_grad


def test_it_composes(tiny, x):
    """With itself, SLD and SAFREE's latent re-attention: every one of them acts, on one graph."""
    other = Concept(name="car")
    twice = TraSCE(**STRONG).apply(steered(tiny, **STRONG), [other], seed=0)
    torch.testing.assert_close(
        move(twice, x),
        move(steered(tiny, **STRONG), x) + move(steered(tiny, text="car", **STRONG), x),
        atol=1e-4,
        rtol=1e-3,
    )
    models = [tiny, steered(tiny, **STRONG), twice]
    models.append(SLD(**SLD.presets["max"]).apply(twice, [other], seed=0))
    models.append(SAFREE().apply(models[-1], [DOG], seed=0))
    found = [latents(m, "a cat") for m in models]
    assert all((a - b).abs().max() > 1e-2 for i, a in enumerate(found) for b in found[:i])
    assert all(f.isfinite().all() for f in found)


IDLE = TraSCE(modified_negative_prompt=False, loss_guidance=False)


@pytest.mark.parametrize(
    "settings", [{}, STRONG, {"modified_negative_prompt": False, **STRONG}, {"loss_guidance": False}]
)
def test_it_keeps_the_rules_of_techniques(tiny, dog, settings):
    check_technique(TraSCE(**settings), tiny, dog, parameters=(), identity=IDLE)


# ---- settings -----------------------------------------------------------------------------------------------------


def test_the_text(tiny):
    def text(*concepts, **settings):
        (guidance,) = TraSCE(loss_guidance=False, **settings).apply(tiny, concepts, seed=0).guidances
        return guidance.texts

    wolf = Concept(name="dog", phrases=("wolf",))
    assert text(wolf, Concept(name="car")) == ("dog, wolf, car",)
    assert text(wolf, text="a cat") == ("a cat",)
    assert text(wolf, text="paper") == ("dog, wolf",)
    with pytest.warns(UnlearnWarning, match="TraSCE: the text has more than the 16 tokens"):
        assert text(Concept(name="nudity", kind="unsafe"), text="paper") == (NUDITY,)
    with pytest.warns(UnlearnWarning):
        assert text(Concept(name="violence", kind="unsafe"), text="paper") == (VIOLENCE,)


def test_the_commands_of_the_authors():
    """README: nudity, violence, artist, object; and the script's own defaults."""
    found = {}
    for name in ("unsafe", "violence", "style", "object", "argparse"):
        t = TraSCE(**TraSCE.presets[name])
        found[name] = (t.guidance_loss_scale, t.discriminator_guidance_scale, t.sigma)
    assert found == {
        "unsafe": (1.5, 1.0, 2.0),
        "violence": (1.5, 1.0, 1.0),
        "style": (1.0, 1.0, 0.25),
        "object": (1.0, 1.0, 1.0),
        "argparse": (15.0, 5.0, 1.0),
    }


@pytest.mark.parametrize(
    "bad", [{"guidance_loss_scale": -1.0}, {"discriminator_guidance_scale": -1.0}, {"sigma": 0.0}]
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        TraSCE(**bad)
