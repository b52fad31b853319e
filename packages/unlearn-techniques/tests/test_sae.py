"""Sparse autoencoders: TopK, parity with both official codes, training on planted directions, files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError, UnlearnWarning
from unlearn_techniques.diffusion import sae_files
from unlearn_techniques.diffusion.sae import (
    Recipe,
    SparseAutoencoder,
    geometric_median,
    largest,
    objective,
    trained,
)  # fmt: skip
from unlearn_techniques.diffusion.sae_files import NAMES, cached, kept_at, load, save


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))


def numbers(seed, n=48, d=12, m=40, k=5):
    """Return an autoencoder and activations that NumPy draws, as the recorded runs of the official codes had them."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    encoder, latent_bias, pre_bias, x = drawn(n, d) / d**0.5, 0.1 * drawn(n), 0.3 * drawn(d), drawn(m, d)
    decoder = drawn(n, d)
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    return SparseAutoencoder(
        encoder=encoder, latent_bias=latent_bias, decoder=decoder, pre_bias=pre_bias, k=k
    ), x


def recipe(**settings):
    return Recipe(**{"expansion": 4, "k": 5, "rows": 40, "batch": 40, **settings})


def gradients(sae, x, how, dead):
    for p in sae.tensors:
        p.requires_grad_()
    value, kept = objective(sae, x, how, dead)
    return value.item(), kept, [g.double().norm().item() for g in torch.autograd.grad(value, sae.tensors)]


def dead(*places):
    mask = torch.zeros(48, dtype=torch.bool)
    mask[list(places)] = True
    return mask


# ---- the autoencoder -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 48))
def test_at_most_k_latents(seed, k):
    """Facts sheet B, section 3, invariant e; the latents kept are those that sorting puts first."""
    sae, x = numbers(seed, k=k)
    dense, kept = sae.dense(x), sae.encode(x)
    assert ((kept > 0).sum(1) <= k).all()
    order = np.sort(dense.numpy(), axis=1)[:, ::-1]
    np.testing.assert_array_equal(np.sort(kept.numpy(), axis=1)[:, ::-1][:, :k], order[:, :k])
    assert torch.equal(kept[kept > 0], dense[kept > 0])


def test_decoding_is_linear_in_the_latents():
    sae, x = numbers(0)
    z = sae.encode(x)
    expected = sum(float(v) * sae.decoder[i] for i, v in enumerate(z[3])) + sae.pre_bias
    torch.testing.assert_close(sae.decode(z)[3], expected, atol=1e-5, rtol=1e-5)


def test_of_a_whole_batch():
    """BatchTopK keeps k x batch latents, more of one row and fewer of another."""
    sae, x = numbers(0)
    _, kept = objective(sae, x, recipe(per_batch=True), dead())
    counts = (kept > 0).sum(1)
    assert counts.sum() == 5 * 40
    assert counts.min() < 5 < counts.max()
    assert kept[kept > 0].min() >= sae.dense(x)[kept == 0].max()


@given(seed=st.integers(0, 2**32 - 1))
def test_the_median_point_has_the_least_distances(seed):
    points = torch.tensor(np.random.default_rng(seed).normal(size=(9, 3)))
    found = geometric_median(points, iterations=2000, tolerance=1e-9)
    total = (points - found).norm(dim=1).sum()
    for nudge in 1e-3 * torch.cat([torch.eye(3), -torch.eye(3)]).double():
        assert (points - found - nudge).norm(dim=1).sum() >= total - 1e-7


def test_the_median_point_in_closed_form():
    """The centre of a square, also with a point on it (1/0 in the official code); a corner of more than 120 degrees."""
    square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert geometric_median(square).norm() < 1e-6
    assert geometric_median(torch.cat([square, torch.zeros(1, 2)])).norm() < 1e-6
    obtuse = torch.tensor([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]])
    assert geometric_median(obtuse, iterations=5000, tolerance=1e-9).norm() < 1e-2


# ---- parity ----------------------------------------------------------------------------------------------------


def test_the_code_of_concept_steerers():
    """kim-dahye/steerers 82326cf, training/k_sparse_autoencoder.py, torch 2.13.0, CPU.

    auxk 6, mse_scale 1 / variance of x, one latent dead for long; recorded with the numbers of `numbers(0)`.
    """
    sae, x = numbers(0)
    assert sae.encode(x).double().sum().item() == pytest.approx(321.9009777903557, rel=1e-6)
    assert (sae.encode(x) > 0).sum() == 200
    assert sae.dense(x).double().sum().item() == pytest.approx(758.2898187173996, rel=1e-6)
    assert sae.decode(sae.encode(x)).double().sum().item() == pytest.approx(3.985296566039324, rel=1e-4)
    how = recipe(target="official", auxiliary="biased")
    assert objective(sae, x, how, dead())[0].item() == pytest.approx(2.2164220809936523, rel=1e-5)
    value, _, norms = gradients(sae, x, how, dead(2))
    assert value == pytest.approx(2.2528769969940186, rel=1e-5)
    # Not that of the pre-bias: there the official code lets the auxiliary target, too, pass a gradient on.
    recorded = [0.5992629288997523, 0.24340063053682487, 0.9396029649457642]
    assert norms[:3] == pytest.approx(recorded, rel=1e-4)


RECORDED = {  # loss, norms of the gradients of encoder, its bias, decoder and its bias
    False: (
        2.8189332485198975,
        [1.148013277725871, 0.4583288070854253, 1.3806738859341803, 0.9434521376674149],
    ),
    True: (
        2.9526522159576416,
        [1.2545325806317142, 0.4754673812646707, 1.4573220856903775, 0.9653517074402607],
    ),
}


@pytest.mark.parametrize("per_batch", [False, True])
def test_the_code_of_saeuron(per_batch):
    """cywinski/SAeUron 1a4302a, SAE/sae.py, torch 2.13.0, CPU: fvu + auxk / 32 with eight dead latents."""
    sae, x = numbers(1)
    value, _, norms = gradients(sae, x, recipe(per_batch=per_batch, auxiliary="negated"), dead(*range(8)))
    loss, recorded = RECORDED[per_batch]
    assert value == pytest.approx(loss, rel=1e-5)
    assert norms == pytest.approx(recorded, rel=1e-4)


def test_what_dead_latents_learn():
    """By default what is left over, without the bias, weighed by how many of d / 2 latents are dead."""
    sae, x = numbers(0)
    plain, _, _ = gradients(sae, x, recipe(), dead())
    value, _, norms = gradients(sae, x, recipe(), dead(2, 7))
    left = (x - sae.decode(sae.encode(x))).detach().double().numpy()
    z = np.maximum(
        (x - sae.pre_bias).detach().numpy() @ sae.encoder.detach().numpy().T
        + sae.latent_bias.detach().numpy(),
        0,
    )
    guess = z[:, [2, 7]] @ sae.decoder[[2, 7]].detach().numpy()
    auxiliary = ((guess - left) ** 2).sum() / ((left - left.mean(0)) ** 2).sum()
    assert value - plain == pytest.approx(auxiliary * 2 / 6 / 32, rel=1e-4)
    assert all(np.isfinite(norms))


# ---- training --------------------------------------------------------------------------------------------------


def planted(seed=0, m=4000, n=24, d=16, k=3, offset=2.0):
    """Return rows (m, d) made of k of n directions each, about a point that is not 0, and the directions."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    z = np.zeros((m, n))
    for row in z:
        row[rng.choice(n, k, replace=False)] = rng.uniform(1, 2, k)
    return torch.tensor(z @ directions + offset, dtype=torch.float32), directions


PLANTED = Recipe(expansion=4, k=3, rows=300_000, batch=256, lr=3e-3, decay=True, dead_after=20_000)


def test_it_finds_the_directions_that_were_planted():
    x, directions = planted()
    fresh, _ = planted(seed=0, m=4200)
    sae = trained(x, PLANTED, seed=0)
    assert sae.unexplained(fresh[4000:]) < 0.15
    cosines = np.abs(directions @ sae.decoder.numpy().T).max(1)
    assert np.median(cosines) > 0.95
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(64), atol=1e-6, rtol=0)
    assert not sae.decoder.requires_grad


def test_the_target_of_the_official_code_is_another():
    """It compares the output with x - b_pre: what comes out is x less the pre-bias."""
    x, _ = planted(m=500)
    short = {"expansion": 4, "k": 8, "rows": 60_000, "batch": 256, "lr": 3e-3}
    ours, theirs = (trained(x, Recipe(**short, target=target), seed=0) for target in ("input", "official"))
    output = theirs.decode(theirs.encode(x))
    of_input, of_other = ((y - output).square().sum() for y in (x, x - theirs.pre_bias))
    assert ours.unexplained(x) < 0.1
    assert 10 * of_other < of_input


def test_training_repeats_and_tells_how_far_it_is():
    x, _ = planted(m=200)
    short = Recipe(expansion=2, k=3, rows=1000, batch=100, max_norm=1.0, per_batch=True)
    seen = []
    first, again, other = (
        trained(x, short, seed=seed, progress=lambda *at: seen.append(at)) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert seen == 3 * [(i, 10) for i in range(1, 11)]


def test_settings_that_make_no_sense():
    for name in ("expansion", "k", "rows", "batch", "dead_after", "lr"):
        with pytest.raises(InvalidInput, match=name):
            recipe(**{name: 0})
    with pytest.raises(InvalidInput, match="number of latents, 4 x 12, got 49"):
        trained(torch.randn(5, 12), recipe(k=49), seed=0)
    with pytest.raises(UnlearnError, match="lower its lr"):
        trained(torch.full((5, 12), float("inf")), recipe(), seed=0)


# ---- files -----------------------------------------------------------------------------------------------------


def test_it_is_trained_once():
    sae, x = numbers(0)
    made = []

    def make():
        made.append(1)
        return sae

    key = {"model": "abc", "texts": ["ä dog"], "seed": 0}
    first, again, other = cached(key, make), cached(key, make), cached({**key, "seed": 1}, make)
    assert len(made) == 2
    assert first.fingerprint == again.fingerprint == other.fingerprint == sae.fingerprint
    assert torch.equal(again.encode(x), sae.encode(x))
    kept_at(key).write_bytes(kept_at(key).read_bytes()[:-5])
    with pytest.warns(UnlearnWarning, match="trained again"):
        cached(key, make)
    assert len(made) == 3
    assert cached(key, make).fingerprint == sae.fingerprint


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="cannot write"):
        cached("key", lambda: pytest.fail("known before the work"))


def published(folder, sae, config={"k": 5, "d_in": 12}):  # noqa: B006
    folder.mkdir(parents=True)
    save_file(dict(zip(NAMES, sae.tensors, strict=True)), folder / "sae.safetensors")
    if config is not None:
        (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_what_others_published(tmp_path):
    sae, _ = numbers(0)
    published(tmp_path / "hub" / "unet.up.1", sae)
    save(sae, tmp_path / "ours.safetensors")
    steerers = {
        "encoder.weight": sae.encoder, "latent_bias": sae.latent_bias, "pre_bias": sae.pre_bias,
        "decoder.weight": sae.decoder.T.contiguous(), "stats_last_nonzero": torch.zeros(48),
    }  # fmt: skip
    save_file(steerers, tmp_path / "theirs.safetensors", {"k": "5"})
    for source in ("hub", "hub/unet.up.1", "ours.safetensors", "theirs.safetensors"):
        assert load(str(tmp_path / source), "unet.up.1", 12).fingerprint == sae.fingerprint


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    sae, _ = numbers(0)
    folder = published(tmp_path / "a", sae, None)
    with pytest.raises(InvalidInput, match="k is not stated"):
        load(str(folder), "m", 12)
    with pytest.raises(InvalidInput, match="width 12, and m of this model has 13"):
        load(str(published(tmp_path / "b", sae)), "m", 13)
    with pytest.raises(Unavailable, match=r"no m/sae\.safetensors"):
        load(str(tmp_path), "m", 12)
    (folder / "cfg.json").write_text("[")
    with pytest.raises(InvalidInput, match="configuration"):
        load(str(folder), "m", 12)
    (folder / "cfg.json").write_text('{"k": 500}')
    with pytest.raises(InvalidInput, match="k is 500"):
        load(str(folder), "m", 12)
    save_file({"W_dec": sae.decoder}, tmp_path / "half.safetensors")
    with pytest.raises(InvalidInput, match=r"no 'encoder\.weight'"):
        load(str(tmp_path / "half.safetensors"), "m", 12)
    (tmp_path / "state_dict.pth").write_bytes(b"pickle")
    with pytest.raises(InvalidInput, match="in safetensors"):
        load(str(tmp_path / "state_dict.pth"), "m", 12)


def test_the_hub(tmp_path, monkeypatch):
    sae, _ = numbers(0)
    folder, asked = published(tmp_path / "unet.m", sae), []

    def hf_hub_download(repo, file, revision):
        asked.append((repo, file, revision))
        if repo == "no/body":
            raise OSError("no such repository\nlong text")
        return str(folder.parent / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    assert load("some/body@v1", "unet.m", 12).fingerprint == sae.fingerprint
    assert asked == [("some/body", f"unet.m/{file}", "v1") for file in (sae_files.SETTINGS, sae_files.FILE)]
    with pytest.raises(
        Unavailable, match="cannot fetch unet.m/sae.safetensors of 'no/body'.*no such repository"
    ):
        load("no/body", "unet.m", 12)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 6))
def test_the_largest(seed, k):
    z = torch.tensor(np.random.default_rng(seed).random((3, 6)))
    assert (largest(z, k) > 0).sum() == 3 * k
