import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

import pocket_sd
from pocket_sd.judging import CLASSES
from pocket_sd.words import UNKNOWN
from unlearn_core.errors import InvalidInput


def test_it_takes_arrays_lists_and_pil_images_alike(judge, drawn):
    some = drawn[:6]
    expected = judge.objects(some)
    assert judge.objects(list(some)) == expected
    assert judge.objects([Image.fromarray(x) for x in some]) == expected
    larger = [Image.fromarray(x).resize((512, 512), Image.Resampling.NEAREST) for x in some]
    assert judge.objects(larger) == expected


def test_a_picture_is_judged_for_itself(judge, drawn):
    together = judge.probabilities("object", drawn)
    alone = np.concatenate([judge.probabilities("object", drawn[i : i + 1]) for i in range(0, 80, 9)])
    np.testing.assert_allclose(together[::9], alone, atol=1e-4)


@pytest.mark.parametrize("head", CLASSES)
def test_probabilities_are_those_of_the_classes(head, judge, drawn):
    found = judge.probabilities(head, drawn)
    assert found.shape == (80, len(CLASSES[head]))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert [CLASSES[head][i] for i in found.argmax(1)] == judge.names(head, drawn)


def test_it_is_calibrated_on_what_the_model_draws(judge, cells, drawn):
    """Among pictures it is sure of, as many are right as it says, within the noise of 80."""
    found = judge.probabilities("object", drawn)
    right = [CLASSES["object"][i] == name for i, (name, _, _) in zip(found.argmax(1), cells, strict=True)]
    assert abs(found.max(1).mean() - np.mean(right)) <= 0.15


def test_noise_blur_and_torn_pictures_are_none_of_the_objects(judge, drawn):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    blurred = [Image.fromarray(x).filter(ImageFilter.GaussianBlur(9)) for x in drawn[:20]]
    flat = np.broadcast_to(rng.integers(0, 256, (20, 1, 1, 3), dtype=np.uint8), (20, 64, 64, 3))
    tiles = drawn[:20].reshape(20, 4, 16, 4, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(20, 16, 16, 16, 3)
    tiles = tiles[:, rng.permutation(16)].reshape(20, 4, 4, 16, 16, 3)
    torn = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(20, 64, 64, 3)
    for name, spoiled in {"noise": noise, "blurred": blurred, "flat": flat, "torn": torn}.items():
        assert judge.objects(spoiled).count(UNKNOWN) >= 17, name


def test_features_tell_objects_apart(judge, cells, drawn):
    features = judge.features(drawn)
    assert features.shape == (80, 128)
    assert np.isfinite(features).all()


def test_real_features_are_near_the_drawn_ones(judge, drawn):
    real = pocket_sd.real_features()
    assert real.shape == (1280, 128)
    ours, noise = (
        judge.features(x).mean(0)
        for x in (drawn, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8))
    )
    assert np.linalg.norm(real.mean(0) - ours) < 0.5 * np.linalg.norm(real.mean(0) - noise)


def test_no_picture_has_no_object(judge):
    assert judge.objects([]) == []
    assert judge.features(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 128)


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90), st.just(3))))
@settings(max_examples=15, deadline=None)
def test_any_picture_gets_an_answer(images):
    assert all(name in CLASSES["object"] for name in pocket_sd.judge().objects(images))


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (np.zeros((64, 64, 3), np.uint8), "in a list"),
        (Image.new("RGB", (64, 64)), "in a list"),
        (np.zeros((1, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((1, 64, 64), np.uint8), "uint8"),
        (np.zeros((1, 3, 64, 64), np.uint8), "height, width, 3"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(images, hint, judge):
    with pytest.raises(InvalidInput, match=hint):
        judge.objects(images)


def test_an_unknown_head_is_refused(judge, drawn):
    with pytest.raises(InvalidInput, match="object"):
        judge.probabilities("objects", drawn)
