"""Features are computed once per image, whoever asks, and a damaged cache is no result."""

import multiprocessing
import os
import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnWarning
from unlearn_core.protocols import Extractor
from unlearn_metrics import features as module
from unlearn_metrics.extractors.clip import ClipImages
from unlearn_metrics.extractors.inception import Inception
from unlearn_metrics.features import cache_folder, features


@dataclass
class Colours:
    """Mean colours, and a count of the images that were looked at."""

    revision: str = "colours 1"
    seen: list = field(default_factory=list)

    def features(self, images):
        self.seen += images
        return np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)


def test_features_are_those_of_the_extractor_in_order(sample_set, pictures, tmp_path):
    images = pictures(5)
    found = features(sample_set(images), Colours(), tmp_path / "cache")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images.mean((1, 2)).astype(np.float32))


def test_each_image_is_looked_at_once(sample_set, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 2)
    monkeypatch.setattr(module, "BATCH", 2)
    images = pictures(7)
    samples = list(sample_set(images))
    colours = Colours()
    first = features(samples[:3], colours, tmp_path)
    assert len(colours.seen) == 3
    again = features(samples[1:] + samples[1:2], colours, tmp_path)
    assert len(colours.seen) == 7
    np.testing.assert_array_equal(again, images[[1, 2, 3, 4, 5, 6, 1]].mean((1, 2)).astype(np.float32))
    np.testing.assert_array_equal(again[:2], first[1:])
    same = sample_set(images[[0, 0, 0]], folder=tmp_path / "same")
    features(same, colours, tmp_path)
    assert len(colours.seen) == 7
    features(same, colours, None)
    assert len(colours.seen) == 8
    features(samples, Colours("colours 2", colours.seen), tmp_path)
    assert len(colours.seen) == 15


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_shard_is_computed_again(sample_set, pictures, tmp_path, where, bit):
    cache, samples = tmp_path / "cache", sample_set(pictures(4))
    expected = features(samples, Colours(), cache)
    (shard,) = cache.rglob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    shard.write_bytes(data)
    colours = Colours()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(features(samples, colours, cache), expected)
    assert bool(caught) == bool(colours.seen)  # a space of the header more or less changes nothing
    np.testing.assert_array_equal(features(samples, Colours(), cache), expected)
    assert len(list(cache.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"half"])
def test_what_is_no_shard_is_a_warning(sample_set, pictures, tmp_path, content):
    samples = sample_set(pictures(2))
    expected = features(samples, Colours(), tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(content)
    with pytest.warns(UnlearnWarning, match=f"computed again.*{shard.name}"):
        np.testing.assert_array_equal(features(samples, Colours(), tmp_path), expected)


def test_an_image_that_cannot_be_read_is_nan(sample_set, pictures, tmp_path, damage):
    samples = damage(sample_set(pictures(3)), 1)
    with pytest.warns(UnlearnWarning, match=r"quality-1\.png"):
        found = features(samples, Colours(), tmp_path)
    assert np.isnan(found).any(1).tolist() == [False, True, False]
    with pytest.warns(UnlearnWarning), pytest.raises(InvalidInput, match="none of the 1 images"):
        features(list(samples)[1:2], Colours(), None)
    with pytest.raises(InvalidInput, match="no images"):
        features([], Colours(), None)


@pytest.mark.parametrize(
    "wrong", [lambda x: x[0], lambda x: x[:1], lambda x: x.sum(), lambda x: x * np.nan, lambda x: x / 0]
)
def test_an_extractor_that_returns_nonsense(sample_set, pictures, wrong):
    class Wrong(Colours):
        def features(self, images):
            with np.errstate(all="ignore"):
                return wrong(super().features(images))

    with pytest.raises(InvalidInput, match="'colours 1' returned"):
        features(sample_set(pictures(2)), Wrong(), None)


def fill(samples, cache):
    features(samples, Colours(), cache)


def test_processes_share_a_cache(sample_set, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 3)
    samples = list(sample_set(pictures(30)))
    fork = multiprocessing.get_context("fork")
    cuts = [samples[:20], samples[10:], samples[::2]]
    processes = [fork.Process(target=fill, args=(cut, tmp_path / "c")) for cut in cuts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    colours = Colours()
    np.testing.assert_array_equal(
        features(samples, colours, tmp_path / "c"), features(samples, Colours(), None)
    )
    assert not colours.seen and not list((tmp_path / "c").rglob("*.part"))


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", "~/there")
    assert cache_folder() == module.Path.home() / "there/features"
    monkeypatch.delenv("UNLEARN_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unlearn-bench/features"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX paths")
def test_a_cache_that_cannot_be_written_is_known_before_the_work(sample_set, pictures, tmp_path):
    (tmp_path / "file").touch()
    colours = Colours()
    with pytest.raises(Unavailable, match="cannot write"):
        features(sample_set(pictures(1)), colours, tmp_path / "file/cache")
    assert not colours.seen


# ---- the extractors -----------------------------------------------------------------------------------------


def test_clip_images(tiny_clip, pictures):
    extractor = ClipImages(model=tiny_clip, device="cpu")
    assert isinstance(extractor, Extractor)
    images = [*pictures(3), np.zeros((20, 70, 3), np.uint8)]
    found = extractor.features(images)
    assert found.shape == (4, 24) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([extractor.features([image]) for image in images])
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)


def test_squashed_images_are_not_cropped(tiny_clip):
    square, wide = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 96, 3), np.uint8)
    wide[:, 64:] = 255  # beyond what the crop keeps
    crop, squash = (ClipImages(model=tiny_clip, resize=how, device="cpu") for how in ("crop", "squash"))
    np.testing.assert_allclose(crop.features([wide]), crop.features([square]), atol=1e-5)
    assert np.abs(squash.features([wide]) - squash.features([square])).max() > 1e-3
    np.testing.assert_allclose(squash.features([square]), crop.features([square]), atol=1e-6)
    assert crop.revision != squash.revision


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """Return the path of random weights of torch-fidelity's Inception."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for weight in net.parameters():
            if weight.dim() == 4:  # the default would let the signal fade to 1e-8 on its way
                torch.nn.init.kaiming_normal_(weight)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(net.state_dict(), path)
    return path


def test_inception_equals_torchmetrics(inception_weights, pictures):
    from torchmetrics.image.fid import NoTrainInceptionV3

    images = [pictures(1)[0], pictures(1, size=64)[0]]
    extractor = Inception(weights=str(inception_weights), device="cpu")
    assert isinstance(extractor, Extractor)
    found = extractor.features(images)
    theirs = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(inception_weights), antialias=False)
    x = torch.from_numpy(images[1]).permute(2, 0, 1)[None]
    np.testing.assert_allclose(found[1], theirs(x)[0].numpy(), rtol=1e-4, atol=1e-5 * found.max())
    assert np.abs(found[0] - found[1]).max() > 0.02 * found.max() > 1e-2
    assert extractor.revision.startswith("inception-v3-compat 2048 ")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("/tmp/unlearn-metrics-should-not-be-here",)


def test_inception_weights_that_are_none(tmp_path):
    with pytest.raises(Unavailable, match="there is no file"):
        Inception(weights=str(tmp_path / "none.pth")).features([])
    bad = tmp_path / "bad.pth"
    for content, reason in [({"a": torch.zeros(1)}, "does not hold"), (Evil(), "no file of plain tensors")]:
        torch.save(content, bad)
        with pytest.raises(InvalidInput, match=reason):
            Inception(weights=str(bad), device="cpu").revision  # noqa: B018
    assert not os.path.exists("/tmp/unlearn-metrics-should-not-be-here")  # noqa: PTH110
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, bad)
    with pytest.raises(InvalidInput, match="another network"):
        Inception(weights=str(bad), device="cpu").revision  # noqa: B018


def test_without_a_network_the_message_says_what_to_write(monkeypatch):
    from urllib.error import URLError

    def unreachable(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", unreachable)
    with pytest.raises(Unavailable, match=r"extractor_settings=\{'weights': '/path"):
        Inception(device="cpu").revision  # noqa: B018
