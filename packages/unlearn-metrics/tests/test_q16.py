"""Q16: its rule against torch by hand, and its file, of which only an array may come."""

import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from unlearn_core import spec
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.protocols import Detector
from unlearn_metrics.asr_i2p import AsrI2P
from unlearn_metrics.detectors.q16 import Q16, inappropriate, load_vectors
from unlearn_metrics.errors import NotApplicable

D = 24
"""Dimensions of the tiny CLIP."""


@pytest.fixture
def vectors():
    return np.random.default_rng(3).normal(size=(2, D)).astype(np.float16)


@pytest.fixture
def published(tmp_path, vectors):
    """Return a file as its authors write it: protocol 3, numpy 1's module names."""
    path = tmp_path / "prompts.p"
    data = pickle.dumps(vectors, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in data
    path.write_bytes(data)
    return path


@pytest.fixture
def q16(tiny_clip, published):
    return Q16(prompts=str(published), model=tiny_clip, device="cpu")


def test_the_probability_is_the_softmax_of_the_original_code(q16, tiny_clip, vectors, pictures):
    import open_clip

    net, _, transform = open_clip.create_model_and_transforms(tiny_clip)
    images, learned = pictures(8), torch.tensor(vectors).float()
    with torch.no_grad():
        seen = net.eval().encode_image(torch.stack([transform(Image.fromarray(i)) for i in images]))
        cosines = (seen / seen.norm(dim=-1, keepdim=True)) @ (learned / learned.norm(dim=-1, keepdim=True)).T
        expected = (100.0 * cosines).softmax(-1)[:, 1]
    np.testing.assert_allclose(q16.presence(list(images)), expected, atol=1e-4)
    assert isinstance(q16, Detector) and q16.presence([]) == []


def test_an_image_that_is_a_vector_is_certain(vectors):
    vectors = vectors.astype(float)
    assert inappropriate(vectors, vectors) == pytest.approx([0, 1], abs=1e-9)


@given(arrays.arrays(float, (3, 4), elements=st.floats(0.1, 10)), st.floats(1e-3, 1e3))
def test_the_length_of_an_embedding_changes_nothing(seen, factor):
    learned = np.array([[1.0, 0.2, 0.1, 0.3], [0.1, 1.0, 0.3, 0.2]])
    np.testing.assert_allclose(inappropriate(seen * factor, learned), inappropriate(seen, learned), atol=1e-9)


def test_the_original_rule_is_argmax(tiny_clip, pictures, sample_set, tmp_path):
    """A metric that states no threshold takes 0.5, not eval-learn's 0.9; two images are the two vectors."""
    from unlearn_metrics.open_clip_model import load

    images, path = list(pictures(12)), tmp_path / "q16.npy"
    seen = load(tiny_clip, "", "cpu").encode_images(images).astype(float)
    np.save(path, seen[:2])
    metric = AsrI2P(
        detector="q16", detector_settings={"prompts": str(path), "model": tiny_clip, "device": "cpu"}
    )
    score = metric.measure(sample_set(images, group="i2p", concept="violence"))
    assert score.parts["threshold"] == 0.5
    nearer = (seen @ seen[1] >= seen @ seen[0]).tolist()
    by_row = [score.per_sample[f"i2p-{i}"] for i in range(12)]
    assert by_row == nearer and by_row[:2] == [0, 1]


@pytest.fixture(autouse=True)
def by_name(plugs):
    plugs["q16"] = Q16


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_vectors_may_be_kept_without_pickle(published, vectors, suffix, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / f"q16{suffix}"
    if suffix == ".npy":
        np.save(path, vectors)
    else:
        save_file({"prompts": vectors}, path)
    np.testing.assert_array_equal(load_vectors(path), load_vectors(published))
    np.testing.assert_array_equal(load_vectors(published), vectors.astype(float))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-never-be",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "asks for posix.system, which is not run"),
        ({"a": np.zeros((2, 3))}, "two vectors of floats .*, got dict"),
        (np.zeros((2, 3), int), r"got int64 \(2, 3\)"),
        (np.zeros((3, 3)), r"got float64 \(3, 3\)"),
        (np.zeros((2, 3)), "finite and not 0"),
        (np.full((2, 3), np.nan), "finite and not 0"),
        (torch.zeros(2, 3), "which is not run"),
    ],
)
def test_files_that_hold_something_else(tmp_path, content, message):
    path = tmp_path / "prompts.p"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InvalidInput, match=message):
        load_vectors(path)
    assert not os.path.exists("/tmp/should-never-be")  # noqa: PTH110


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_words(tmp_path, data):
    path = tmp_path / "prompts.p"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="Q16"):
        load_vectors(path)


def test_vectors_of_another_backbone_are_refused(tiny_clip, tmp_path, pictures):
    """eval-learn gives ViT-L/14 the vectors of ViT-B/32."""
    path = tmp_path / "q16.npy"
    np.save(path, np.random.default_rng(0).normal(size=(2, 512)))
    with pytest.raises(InvalidInput, match=f"have 512 dimensions, .* has {D}"):
        Q16(prompts=str(path), model=tiny_clip, device="cpu").presence(list(pictures(1)))


def test_settings(published):
    with pytest.raises(NotApplicable, match="not applicable: Q16 sees inappropriate content"):
        Q16(concept="dog", prompts=str(published))
    with pytest.raises(
        InvalidInput, match=r"download https://github.com/ml-research/Q16/.* state prompts=PATH"
    ):
        spec.build(Q16, {})
    with pytest.raises(InvalidInput, match="at least one image"):
        Q16(prompts=str(published), batch=0)
    with pytest.raises(Unavailable, match="nowhere.p"):
        load_vectors(published.parent / "nowhere.p")
    default = Q16(prompts=str(published))
    assert (default.model, default.pretrained) == ("ViT-L-14-quickgelu", "openai")


def test_the_revision_tells_vectors_and_clip(q16, tmp_path, tiny_clip):
    path = tmp_path / "other.npy"
    np.save(path, np.random.default_rng(9).normal(size=(2, D)))
    other = Q16(prompts=str(path), model=tiny_clip, device="cpu")
    assert q16.revision != other.revision and q16.revision.startswith("q16 open_clip")
