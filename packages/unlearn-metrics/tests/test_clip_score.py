"""The CLIP score against torchmetrics, and the loader against the silent mistakes of open_clip."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnWarning
from unlearn_core.protocols import Metric
from unlearn_core.spec import build
from unlearn_metrics.clip_score import ClipScore
from unlearn_metrics.open_clip_model import load

TEXTS = ["a red ball", "two blue cats", "a red ball", "the sea", "a house"]


@pytest.fixture
def metric(tiny_clip):
    return ClipScore(model=tiny_clip, device="cpu")


@pytest.fixture
def clip(tiny_clip):
    return load(tiny_clip, device="cpu")


def cosines(clip, images, texts):
    """Return the cosines from open_clip's own forward pass, one image at a time."""
    found = []
    with torch.no_grad():
        for image, text in zip(images, texts, strict=True):
            from PIL import Image

            x = clip.preprocess(Image.fromarray(image))[None]
            a, b, _ = clip.model(x, clip.tokenizer([text]))
            found.append(torch.cosine_similarity(a, b).item())
    return np.array(found)


def test_it_is_a_metric(metric):
    assert isinstance(metric, Metric) and metric.prompts == ("quality",) and metric.direction == "up"
    assert build(ClipScore, {"scale": "cos"}).scale == "cos"
    with pytest.raises(InvalidInput, match="scale"):
        build(ClipScore, {"scale": "x100"})


def test_parity_with_torchmetrics(metric, clip, sample_set, pictures):
    from torchmetrics.functional.multimodal import clip_score

    class Shim(torch.nn.Module):
        """What torchmetrics expects of a transformers CLIP, around our open_clip model."""

        device = torch.device("cpu")
        config = type("", (), {"text_config": type("", (), {"max_position_embeddings": 77})})

        def get_image_features(self, pixels):
            return clip.model.encode_image(pixels)

        def get_text_features(self, ids, mask):
            return clip.model.encode_text(ids)

    def processor(text=None, images=None, **_):
        from PIL import Image

        if images is not None:
            rows = [clip.preprocess(Image.fromarray(i.permute(1, 2, 0).numpy())) for i in images]
            return {"pixel_values": torch.stack(rows)}
        ids = clip.tokenizer(text)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    images = pictures(5)
    expected = clip_score(
        list(torch.from_numpy(images).permute(0, 3, 1, 2)), TEXTS, lambda: (Shim(), processor)
    ).item()
    ours = metric.measure(sample_set(images, TEXTS))
    assert max(ours.value, 0) == pytest.approx(expected, abs=1e-4)  # torchmetrics clamps the mean


@pytest.mark.parametrize("scale", ["100cos", "cos", "hessel"])
def test_scales(tiny_clip, clip, sample_set, pictures, scale):
    images = pictures(5, size=48)
    score = ClipScore(model=tiny_clip, device="cpu", scale=scale).measure(sample_set(images, TEXTS))
    plain, prefixed = (
        cosines(clip, images, TEXTS),
        cosines(clip, images, ["A photo depicts " + t for t in TEXTS]),
    )
    expected = {"100cos": 100 * plain, "cos": plain, "hessel": 2.5 * np.maximum(prefixed, 0)}[scale]
    assert list(score.per_sample.values()) == pytest.approx(expected, abs=1e-4)
    assert score.value == pytest.approx(expected.mean(), abs=1e-4)
    assert (score.n_scored, score.n_unscored, score.parts) == (5, 0, {"captions cut off": 0})
    assert score.interval.how == "bootstrap by prompt"


def test_each_image_is_rated_against_its_own_text(metric, sample_set, pictures, tmp_path):
    images = pictures(5)
    one = metric.measure(sample_set(images, TEXTS))
    together = metric.measure(sample_set(images[::-1], TEXTS[::-1]))
    assert together.value == pytest.approx(one.value, abs=1e-4)
    apart = metric.measure(sample_set(images, TEXTS[1:] + TEXTS[:1]))
    assert abs(apart.value - one.value) > 1e-3


def test_only_its_group_is_rated(metric, sample_set, pictures, tmp_path):
    sample_set(pictures(2, seed=1), group="target", folder=tmp_path / "both")
    both = sample_set(pictures(3), folder=tmp_path / "both")
    score = metric.measure(both)
    assert set(score.per_sample) == {"quality-0", "quality-1", "quality-2"}
    with pytest.raises(InvalidInput, match="clip_score rates images of the group 'quality'.*: target"):
        metric.measure(both.select(group="target"))
    with pytest.raises(InvalidInput, match="no images at all"):
        metric.measure(both.select(group="none"))


def test_images_without_text_or_that_cannot_be_read_are_no_zero(metric, sample_set, pictures, damage):
    samples = damage(sample_set(pictures(4), ["a", "", "c", "d"]), 2)
    with pytest.warns(UnlearnWarning, match="left out"):
        score = metric.measure(samples)
    assert (score.n_scored, score.n_unscored) == (2, 2)
    assert score.reasons == {"the row has no text": 1, "the image cannot be read": 1}
    assert score.per_sample["quality-1"] is None and score.per_sample["quality-2"] is None
    assert score.value == pytest.approx(
        np.mean([score.per_sample["quality-0"], score.per_sample["quality-3"]])
    )
    with pytest.raises(InvalidInput, match=r"no sample could be judged: the row has no text \(2\)"):
        metric.measure(sample_set(pictures(2), ["", " "]))


def test_long_captions_are_counted(metric, clip, sample_set, pictures):
    texts = ["word " * 75, "word " * 76, "word " * 200]  # a start and an end token come on top
    with pytest.warns(UnlearnWarning, match="2 of 3 captions are longer"):
        score = metric.measure(sample_set(pictures(3), texts))
    assert score.parts == {"captions cut off": 2}
    np.testing.assert_allclose(*clip.encode_texts(["word " * 76, "word " * 75]), atol=1e-6)  # the end is kept


# ---- the loader ---------------------------------------------------------------------------------------------


@given(st.integers(1, 8))
def test_embeddings_do_not_depend_on_the_batch(clip, pictures, batch):
    images, texts = [*pictures(7), np.ones((9, 50, 3), np.uint8)], [*TEXTS, "x", "", "long " * 90]
    np.testing.assert_allclose(clip.encode_images(images, batch), clip.encode_images(images), atol=1e-5)
    np.testing.assert_allclose(clip.encode_texts(texts, batch), clip.encode_texts(texts), atol=1e-5)


def test_nothing_to_encode(clip):
    assert clip.encode_images([]).shape == clip.encode_texts([]).shape == (0, 24)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), 1]
)
def test_only_uint8_rgb_is_taken(clip, image):
    with pytest.raises(InvalidInput, match="uint8 RGB"):
        clip.encode_images([image])


def test_the_revision_is_of_the_content(tiny_clip, tmp_path):
    folder = Path(tiny_clip.removeprefix("local-dir:"))
    moved = shutil.copytree(folder, tmp_path / "moved")
    first = load(tiny_clip, device="cpu")
    assert load(f"local-dir:{moved}", device="cpu").revision == first.revision
    assert load(tiny_clip, device="cpu") is first
    config = json.loads((moved / "open_clip_config.json").read_text())
    for change in (
        {"preprocess_cfg": {"mean": [0, 0, 0]}},
        {"model_cfg": config["model_cfg"] | {"quick_gelu": False}},
    ):
        other = shutil.copytree(folder, tmp_path / next(iter(change)))
        (other / "open_clip_config.json").write_text(json.dumps(config | change))
        assert load(f"local-dir:{other}", device="cpu").revision != first.revision


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-L-14", "openai", "write model=ViT-L-14-quickgelu"),
        ("ViT-B-32", "metaclip_400m", "write model=ViT-B-32-quickgelu"),
        ("ViT-L14", "openai", "the nearest are: ViT-L-14"),
        ("ViT-L-14-quickgelu", "opnai", "did you mean 'openai'"),
        ("ViT-L-14-quickgelu", "", "needs weights: pretrained="),
        ("local-dir:/nowhere", "", "holds no open_clip_config.json"),
    ],
)
def test_names_are_checked_before_anything_loads(monkeypatch, model, pretrained, message):
    monkeypatch.setattr("open_clip.create_model_from_pretrained", lambda *_, **__: pytest.fail("it loads"))
    with pytest.raises(InvalidInput, match=message):
        load(model, pretrained, "cpu")


def test_missing_weights_are_no_random_ones(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip.removeprefix("local-dir:"), tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Unavailable, match="cannot load the CLIP local-dir:"):
        load(f"local-dir:{folder}", device="cpu")
    weights.unlink()
    with pytest.raises(Unavailable, match="could not be loaded"):
        load(f"local-dir:{folder}", device="cpu")


def test_without_a_network_the_message_says_what_to_write(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("open_clip.factory.download_pretrained", unreachable)
    with pytest.raises(
        Unavailable, match="Name or service not known; without a network write model=local-dir:/path"
    ):
        load("ViT-B-32-quickgelu", "openai", "cpu")


def test_devices(tiny_clip):
    with pytest.raises(InvalidInput, match="'gpu' is no device"):
        load(tiny_clip, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(Unavailable, match="no device 'cuda:7'"):
            load(tiny_clip, device="cuda:7")
