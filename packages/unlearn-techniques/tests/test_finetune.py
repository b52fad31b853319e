"""The training loop: torch's Adam without torch.optim, only the named parameters, and masters in float32."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import UnlearnError
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.finetune import Adam, clipped, finetune

NAMES = ["conv_in.bias", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]


@given(
    seed=st.integers(0, 2**31), lr=st.floats(1e-6, 1.0), steps=st.integers(1, 6), scale=st.floats(1e-6, 1e4)
)
def test_adam_is_torchs(seed, lr, steps, scale):
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(shape, generator=generator) for shape in [(3, 4), (5,)]]
    ours, theirs = [p.clone() for p in start], [p.clone().requires_grad_() for p in start]
    adam, reference = Adam(ours, lr), torch.optim.Adam(theirs, lr)
    for _ in range(steps):
        gradients = [scale * torch.randn(p.shape, generator=generator) for p in start]
        adam.step(gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.detach(), atol=1e-7 * max(1.0, lr), rtol=1e-6)


def shrink(student, iteration):
    """A loss whose minimum is 0 at weights 0."""
    return sum(student.unet.get_parameter(n).float().square().sum() for n in NAMES)


def test_only_the_named_parameters_change(tiny):
    before = {n: p.clone() for n, p in tiny.unet.named_parameters()}
    flags = {n: p.requires_grad for n, p in tiny.unet.named_parameters()}
    calls = []
    done = finetune(tiny, NAMES, shrink, iterations=3, lr=1e-2, progress=lambda *x: calls.append(x))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for name, parameter in done.unet.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in NAMES)
        assert not parameter.requires_grad
    assert all(torch.equal(p, before[n]) for n, p in tiny.unet.named_parameters())
    assert flags == {n: p.requires_grad for n, p in tiny.unet.named_parameters()}


def test_a_step_too_small_for_bfloat16_is_not_lost(tiny):
    """200 steps of 1e-5 move a weight near 1 by 2e-3; each alone is far below bfloat16's half ulp of 4e-3."""
    name = "conv_norm_out.weight"  # all ones
    half = tiny.to(dtype=torch.bfloat16)

    def loss(student, iteration):
        return student.unet.get_parameter(name).sum()

    moved = finetune(half, [name], loss, iterations=500, lr=1e-5).unet.get_parameter(name)
    assert moved.dtype == torch.bfloat16
    assert moved.float().mean().item() == pytest.approx(1 - 5e-3, abs=2e-3)
    alone = finetune(half, [name], loss, iterations=1, lr=1e-5).unet.get_parameter(name)
    assert torch.equal(alone, half.unet.get_parameter(name))


def test_half_precision_trains_the_network(tiny):
    half = tiny.to(dtype=torch.bfloat16)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    start = half.trajectory(["a dog"])

    def loss(student, iteration):
        return student.noise(x, 500, start).float().square().mean()

    done = finetune(half, parameter_group(half.unet, "esd-u"), loss, iterations=5, lr=1e-3)
    assert done.dtype == torch.bfloat16
    with torch.no_grad():
        assert loss(done, 0) < 0.8 * loss(half, 0)


def test_a_loss_that_is_no_number_stops(tiny):
    def loss(student, iteration):
        return shrink(student, iteration) * (1.0 if iteration < 1 else float("nan"))

    with pytest.raises(UnlearnError, match="the loss of iteration 2 is nan: lower the learning rate"):
        finetune(tiny, NAMES, loss, iterations=3, lr=1e-3)


def test_hooks_stay_on_the_student(tiny):
    """A defence that acts while sampling is part of what is trained, and of the result."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Zero:
        def prepare(self, model, texts, embeddings):
            return lambda read, step: torch.zeros_like(read)

    hooked = dataclasses.replace(tiny, conditions=(Zero(),))
    done = finetune(hooked, NAMES, shrink, iterations=1, lr=1e-3)
    assert done.conditions == hooked.conditions


@given(st.integers(0, 99), st.sampled_from([0.01, 0.3]))
def test_adam_with_decay_is_torchs_adamw(seed, decay):
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
    ours, theirs = [p.clone() for p in start], [torch.nn.Parameter(p.clone()) for p in start]
    adam, adamw = Adam(ours, 0.1, weight_decay=decay), torch.optim.AdamW(theirs, lr=0.1, weight_decay=decay)
    for _ in range(4):
        gradients = [torch.randn(p.shape, generator=generator) for p in start]
        adam.step(gradients)
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = g
        adamw.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.detach())


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_are_clipped_as_torch_clips_them(max_norm):
    gradients = [torch.arange(6.0).reshape(3, 2), torch.ones(4)]
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for ours, p in zip(clipped(gradients, max_norm), parameters, strict=True):
        torch.testing.assert_close(ours, p.grad)


def test_the_text_encoder_can_be_trained(tiny):
    names = [n for n, _ in tiny.text_encoder.named_parameters() if "self_attn.q_proj" in n]
    before = tiny.encode(["a dog"])

    def loss(student, iteration):
        return (student.encode(["a dog"]) - 1).square().mean()

    trained = finetune(tiny, names, loss, iterations=3, lr=0.05, part="text_encoder", max_norm=1.0)
    changed = {
        n
        for n, p in trained.text_encoder.named_parameters()
        if (p != tiny.text_encoder.get_parameter(n)).any()
    }
    assert changed == set(names)
    assert trained.unet is tiny.unet
    assert loss(trained, 0) < loss(tiny, 0)
    assert torch.equal(tiny.encode(["a dog"]), before)
