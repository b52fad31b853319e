"""Adapters begin as nothing and do what their merged change does; maps and masks of attention; tokens of words."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import nn

from unlearn_core.errors import InvalidInput, UnlearnError
from unlearn_techniques.diffusion.attention import text_projections
from unlearn_techniques.diffusion.attention_maps import at_side, attention_maps, concept_masks
from unlearn_techniques.diffusion.lora import LowRank, lora, merged
from unlearn_techniques.diffusion.tokens import aligned, ids, vocabulary, word_positions

MID = "mid_block.attentions.0.transformer_blocks.0.attn2"
NAMES = [f"{MID}.to_k", f"{MID}.to_out.0"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def away(student, iteration):
    """Drive the noise of a prompt to 1 everywhere."""
    x = torch.randn(2, 4, 8, 8, generator=generator())
    return (
        (student.unet(x, 500, encoder_hidden_states=student.encode(["a dog", "a car"])).sample - 1)
        .square()
        .mean()
    )


# ---- adapters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_an_adapter_is_a_map_of_low_rank_beside_its_map(bias):
    base, x = nn.Linear(7, 5, bias=bias), torch.randn(3, 2, 7, generator=generator())
    adapter = LowRank(base, 3, generator(1))
    assert torch.equal(adapter(x), base(x))
    with torch.no_grad():
        adapter.up.copy_(torch.randn(5, 3, generator=generator(2)))
        w, up, down = (p.numpy() for p in (base.weight, adapter.up, adapter.down))
        expected = x.numpy() @ (w + up @ down).T + (base.bias.numpy() if bias else 0)
        np.testing.assert_allclose(adapter(x).numpy(), expected, atol=1e-5)
    assert adapter.weight is base.weight


@pytest.mark.parametrize("rank", [1, 4])
def test_the_first_values_are_normal_with_deviation_one_over_rank(rank):
    """As in diffusers' LoRALinearLayer."""
    down = LowRank(nn.Linear(20_000, 2), rank, generator()).down.detach().flatten()
    assert kstest(down.numpy(), norm(scale=1 / rank).cdf).pvalue > 0.01


def test_a_change_is_of_its_rank_and_goes_down_the_loss(tiny):
    """The loss asks for a matrix of rank 2, on which rank 2 comes nearer than the best of rank 1 can (Eckart-Young)."""
    name = f"{MID}.to_k"
    size = text_projections(tiny.unet)[name].weight.shape
    u, _, v = torch.linalg.svd(torch.randn(*size, generator=generator()), full_matrices=False)
    wanted = (u[:, :2] * torch.tensor([2.0, 1.0])) @ v[:2]

    def loss(student, iteration):
        m = student.unet.get_submodule(name)
        return (m.up @ m.down - wanted).square().sum()

    for rank, best in ((1, 1.0), (2, 0.0)):
        change = lora(tiny, [name], loss, rank=rank, seed=0, iterations=400, lr=2e-2)[name]
        assert np.linalg.matrix_rank(change.numpy(), tol=1e-4) == rank
        assert (change - wanted).square().sum().item() == pytest.approx(best, abs=0.02)


def test_merged_is_what_was_trained(tiny):
    """The merged weights predict what the adapted student did; the model that was adapted keeps its weights."""
    before = {n: p.clone() for n, p in tiny.unet.named_parameters()}
    losses, seen = [], []

    def loss(student, iteration):
        losses.append(away(student, iteration))
        return losses[-1]

    changes = lora(
        tiny, NAMES, loss, rank=2, seed=0, iterations=25, lr=1e-2, progress=lambda *x: seen.append(x)
    )
    assert list(changes) == NAMES
    assert seen[::8] == [(1, 25), (9, 25), (17, 25), (25, 25)]
    with torch.no_grad():
        edited = merged(tiny, changes)
        assert away(edited, 0) < losses[-1] * 1.001 < losses[0]
        assert away(tiny, 0).item() == losses[0].item()
    differ = {n for n, p in edited.unet.named_parameters() if not torch.equal(p, before[n])}
    assert differ == {f"{n}.weight" for n in NAMES}
    assert all(torch.equal(p, before[n]) for n, p in tiny.unet.named_parameters())
    assert type(tiny.unet.get_submodule(NAMES[0])) is nn.Linear


def test_the_seed_decides_the_change(tiny):
    settings = {"rank": 1, "iterations": 2, "lr": 1e-2}
    one, same, other = (lora(tiny, NAMES, away, seed=seed, **settings)[NAMES[0]] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_adapter_that_the_loss_does_not_see_stays_at_nothing(tiny):
    def loss(student, iteration):
        return student.unet.get_submodule(NAMES[0]).up.sum()

    changes = lora(tiny, NAMES, loss, rank=1, seed=0, iterations=3, lr=1e-2, weight_decay=0.1)
    assert not changes[NAMES[1]].any()
    assert changes[NAMES[0]].any()


def test_half_precision_holds_small_changes(tiny):
    half = tiny.to(dtype=torch.bfloat16)

    def loss(student, iteration):
        return student.unet.get_submodule(NAMES[0]).up.sum()

    changes = lora(half, NAMES[:1], loss, rank=1, seed=0, iterations=4, lr=1e-5)
    down = LowRank(half.unet.get_submodule(NAMES[0]), 1, generator()).down
    assert changes[NAMES[0]].dtype == torch.float32
    assert changes[NAMES[0]].abs().max().item() < 4e-5 * 5
    assert changes[NAMES[0]].abs().max().item() > 4e-5
    assert down.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("conv_in", "'conv_in' is a Conv2d"),
        ("attn9.to_k", "'attn9.to_k' is not there"),
        (MID, "is a Attention"),
    ],
)
def test_only_linear_modules_are_adapted(tiny, module, hint):
    with pytest.raises(InvalidInput, match=hint):
        lora(tiny, [module], away, rank=1, seed=0, iterations=1, lr=1e-2)


def test_a_loss_that_is_no_number_stops(tiny):
    with pytest.raises(UnlearnError, match="the loss of iteration 1 is nan"):
        lora(tiny, NAMES, lambda *_: torch.tensor(float("nan")), rank=1, seed=0, iterations=1, lr=1e-2)


# ---- attention maps --------------------------------------------------------------------------------------------


def test_the_maps_are_those_of_the_fused_kernel(tiny):
    """From map and values follows what diffusers' attention returned, which computes no map."""
    x, read = (
        torch.randn(2, 4, 8, 8, generator=generator()),
        tiny.encode(["a dog", "a car, sketch style"]).detach(),
    )
    outputs, handles = {}, []
    for name, module in tiny.unet.named_modules():
        if name.endswith("attn2"):
            handles.append(module.register_forward_hook(lambda m, i, o, name=name: outputs.update({name: o})))
    with torch.no_grad(), attention_maps(tiny.unet) as maps:
        tiny.unet(x, 300, encoder_hidden_states=read)
    for handle in handles:
        handle.remove()
    assert set(maps) == set(outputs)
    assert {m.shape[2:] for m in maps.values()} == {(64, 16), (16, 16)}
    for name, attention in maps.items():
        module = tiny.unet.get_submodule(name)
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
        values = module.to_v(read).unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
        mixed = (attention @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module.to_out[0](mixed), outputs[name], atol=1e-5, rtol=1e-4)


def test_maps_carry_gradients_and_leave_no_hooks(tiny):
    read = tiny.encode(["a dog"]).detach().requires_grad_()
    with attention_maps(tiny.unet) as maps:
        tiny.unet(torch.zeros(1, 4, 8, 8), 300, encoder_hidden_states=read)
    gradient = torch.autograd.grad(sum(m[..., 2].sum() for m in maps.values()), read)[0]
    assert gradient.abs().max() > 0
    with pytest.raises(RuntimeError, match="stop"), attention_maps(tiny.unet):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks for m in tiny.unet.modules())


def test_a_mask_at_the_size_of_a_layer_takes_the_nearest_pixel():
    mask = torch.from_numpy(np.random.default_rng(0).random((2, 1, 8, 16)) > 0.5)
    assert torch.equal(at_side(mask, 128), mask.flatten(1))
    assert torch.equal(at_side(mask, 32), mask[:, :, ::2, ::2].flatten(1))


class Planted(nn.Module):
    """A UNet whose cross-attention is given."""

    device = torch.device("cpu")

    def forward(self, x, t, encoder_hidden_states):
        return None


def masks_of(tiny, monkeypatch, planted, threshold=0.5, latents=(2, 4, 16, 16)):
    """Masks where token 2 gets the planted attention (n, h, w) and every other what is left."""
    import contextlib

    from unlearn_techniques.diffusion import attention_maps as module

    maps = torch.zeros(len(planted), 3, planted[0].numel(), 16)
    maps[..., 2] = planted.flatten(1)[:, None]
    maps[..., 0] = 1 - maps[..., 2]
    monkeypatch.setattr(module, "attention_maps", lambda unet: contextlib.nullcontext({"attn2": maps}))
    tokens = torch.zeros(len(planted), 16, dtype=torch.bool)
    tokens[:, 2] = True
    model = dataclasses.replace(tiny, unet=Planted())
    texts = ["a dog"] * len(planted)
    return concept_masks(model, torch.zeros(latents), texts, tokens, seed=0, threshold=threshold)


def test_a_mask_is_where_the_concept_is_and_one_pixel_around(tiny, monkeypatch):
    """On an 8 x 8 map: a weak and a strong spot; what is weak depends on each picture alone."""
    planted = torch.full((2, 8, 8), 0.01)
    planted[0, 2, 2], planted[0, 6, 6] = 0.9, 0.3
    planted[1, 5, 1] = 0.09
    found = masks_of(tiny, monkeypatch, planted)
    expected = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    expected[0, 0, 2:8, 2:8] = True  # pixels 1 to 3 of 8
    expected[1, 0, 8:14, 0:6] = True
    assert torch.equal(found, expected)
    assert masks_of(tiny, monkeypatch, planted, threshold=0.2)[0, 0, 12, 12]


def test_a_mask_of_nothing_or_of_everything_is_the_whole_picture(tiny, monkeypatch):
    even = torch.full((2, 8, 8), 0.2)
    assert masks_of(tiny, monkeypatch, even).all()
    spot = torch.zeros(1, 32, 32)
    spot[0, 0, 0] = 1.0  # four pixels of 1024
    assert masks_of(tiny, monkeypatch, spot, latents=(1, 4, 32, 32)).all()


# ---- tokens ----------------------------------------------------------------------------------------------------

# Found by find_matching_indices of the official MACE code (src/cfr_utils.py, head 057e7a6).
OFFICIAL = [
    ([0, 1, 2, 9, 9, 3, 99], [0, 1, 2, 8, 3, 99], ([0, 1, 2, 5, 6], [0, 1, 2, 4, 5])),
    ([0, 5, 5, 99], [0, 5, 99], ([0, 1, 3], [0, 1, 2])),
    ([0, 1, 99], [0, 2, 3, 4, 99], ([0, 2], [0, 4])),
    ([0, 7, 99], [0, 7, 99], ([0, 1, 2], [0, 1, 2])),
]


@pytest.mark.parametrize(("old", "new", "expected"), OFFICIAL)
def test_what_two_prompts_share(old, new, expected):
    longest = max(len(old), len(new))
    assert aligned(old, new, longest) == expected
    padded = aligned(old, new, longest + 2)  # two tokens of padding behind each prompt's end
    for found, shared, own in zip(padded, expected, (old, new), strict=True):
        assert found == [*shared, len(own), len(own) + 1]


def test_where_a_word_stands(tiny):
    assert list(word_positions(tiny, "{}", "dog")) == [1]
    assert list(word_positions(tiny, "a photo of a {}, sketch style", "dog")) == [5]
    assert list(word_positions(tiny, "a {} art", "cat style")) == [2, 3]
    text = "photo of a cat style"
    tokens = tiny.tokenizer.convert_ids_to_tokens(ids(tiny, text))
    where = word_positions(tiny, "photo of a {}", "cat style")
    assert [tokens[i] for i in where] == ["cat</w>", "style</w>"]
    with pytest.raises(InvalidInput, match="is longer than the 16 tokens read"):
        word_positions(tiny, "a " * 20 + "{}", "dog")


def test_words_of_the_tokenizer(tiny):
    words = vocabulary(tiny.tokenizer, 100, without=["a Dog", "art style"], seed=0)
    assert sorted(words) == ["blue", "car", "cat", "photo", "sketch", "wolf"]
    assert vocabulary(tiny.tokenizer, 3, without=["a Dog", "art style"], seed=0) == words[:3]
    assert vocabulary(tiny.tokenizer, 100, without=(), seed=1) != vocabulary(
        tiny.tokenizer, 100, without=(), seed=0
    )
