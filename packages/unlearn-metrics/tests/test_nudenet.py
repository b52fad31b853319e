"""NudeNet against its own package, on a photograph, a drawing and a made-up network output."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, MissingExtra
from unlearn_core.protocols import Detector
from unlearn_metrics.detectors.nudenet import CORE6, LABELS, PRESETS, STRICT5, WIDE9, NudeNet

package = pytest.importorskip("nudenet").nudenet
FACE = ("FACE_FEMALE", "FACE_MALE")


@pytest.fixture(scope="module")
def official():
    return package.NudeDetector()


@pytest.fixture(scope="module")
def discs():
    """Return a drawing of two discs, which the network mistakes for something of core6."""
    image = Image.new("RGB", (128, 128), (201, 223, 49))
    for box in ((7, 24, 73, 104), (55, 24, 121, 104)):
        ImageDraw.Draw(image).ellipse(box, fill=(203, 174, 147))
    return np.asarray(image)


@pytest.fixture(scope="module")
def photograph():
    """Return the path of matplotlib's photograph of Grace Hopper in uniform."""
    matplotlib = pytest.importorskip("matplotlib")
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def highest(detections, classes):
    return max((d["score"] for d in detections if d["class"] in classes), default=0.0)


def test_it_is_found_by_name_and_is_a_detector():
    assert registry.load("unlearn.detectors", "nudenet") is NudeNet
    assert isinstance(NudeNet(), Detector)


def test_bgr_is_what_the_package_sees_in_a_file_and_rgb_is_not(official, photograph, discs, tmp_path):
    """The package swaps red and blue of files (3.4.2): faces of one photograph at 0.615, and at 0.760 as RGB."""
    drawing = tmp_path / "discs.png"
    Image.fromarray(discs).save(drawing)
    for path, classes in ((photograph, FACE), (drawing, CORE6)):
        image = np.asarray(Image.open(path).convert("RGB"))
        by_path = highest(official.detect(str(path)), classes)
        by_array = highest(official.detect(image), classes)
        assert NudeNet(classes=classes, channel_order="bgr").presence([image])[0] == pytest.approx(
            by_path, abs=1e-5
        )
        assert NudeNet(classes=classes).presence([image])[0] == pytest.approx(by_array, abs=1e-5)
        assert abs(by_path - by_array) > 0.05
    image = np.asarray(Image.open(photograph).convert("RGB"))
    # Recorded with nudenet 3.4.2 and onnxruntime 1.31 on this picture.
    assert NudeNet(classes=FACE).presence([image]) == pytest.approx([0.7605], abs=2e-3)
    assert NudeNet().presence([image]) == [0.0]


def test_a_red_picture_reaches_the_network_red(tmp_path):
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 255
    seen = []

    def spy(detector):
        run = detector._network.onnx_session.run

        class Session:
            def run(self, outputs, inputs):
                (blob,) = inputs.values()
                seen.append(blob.mean((0, 2, 3)).round(3).tolist())
                return run(outputs, inputs)

        detector._network.onnx_session = Session()
        return detector

    spy(NudeNet()).presence([red])
    bgr = spy(NudeNet(channel_order="bgr"))
    bgr.presence([red])
    Image.fromarray(red).save(tmp_path / "red.png")
    bgr._network.detect(str(tmp_path / "red.png"))
    # The last one pins the bug of 3.4.2: it fails when the package reads files as RGB again.
    assert seen == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_a_batch_is_what_its_images_are_alone(photograph, discs):
    images = [
        np.asarray(Image.open(photograph)),
        discs,
        discs[:50],
        np.zeros((9, 90, 3), np.uint8),
        discs[:, ::-1],
    ]
    classes = (*FACE, *CORE6)
    alone = [NudeNet(classes=classes).presence([image])[0] for image in images]
    for batch in (1, 2, 16):
        assert NudeNet(classes=classes, batch=batch).presence(images) == pytest.approx(alone, abs=1e-5)
    assert alone[0] > 0.7 and alone[1] > 0.5 and alone[3] == 0.0


def test_black_shows_nothing_and_no_images_give_no_answers():
    assert NudeNet(classes=LABELS).presence([np.zeros((320, 320, 3), np.uint8)]) == [0.0]
    assert NudeNet().presence([]) == []


class Session:
    """A network that sees (label, score) at given places, one box each."""

    def __init__(self, *boxes):
        names = getattr(package, "__labels")
        self.output = np.zeros((1, 22, len(boxes) + 1), np.float32)  # never one alone: the package squeezes
        for i, (label, score, x) in enumerate(boxes):
            self.output[0, :4, i] = x, 100, 50, 50
            self.output[0, 4 + names.index(label), i] = score

    def run(self, outputs, inputs):
        return [self.output]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([("BUTTOCKS_EXPOSED", 0.26, 50)], 0.26),
        ([("BUTTOCKS_EXPOSED", 0.24, 50)], 0.0),  # the package's floor
        ([("FACE_FEMALE", 0.9, 50)], 0.0),
        ([("FACE_FEMALE", 0.9, 50), ("ANUS_EXPOSED", 0.5, 200)], 0.5),
        ([("FEET_EXPOSED", 0.9, 50)], 0.0),
        ([("MALE_BREAST_EXPOSED", 0.7, 50), ("ANUS_EXPOSED", 0.5, 200)], 0.7),
        # Its suppression knows no classes: what is covered hides what is bared at the same place.
        ([("FEMALE_BREAST_COVERED", 0.9, 50), ("FEMALE_BREAST_EXPOSED", 0.8, 52)], 0.0),
    ],
)
def test_the_highest_counted_score_is_taken(boxes, expected):
    detector = NudeNet()
    detector._network.onnx_session = Session(*boxes)
    assert detector.presence([np.zeros((320, 320, 3), np.uint8)]) == pytest.approx([expected])


@pytest.mark.parametrize("scores", [("strict5", 0.5), ("core6", 0.7), ("wide9", 0.9), (("FACE_MALE",), 0.3)])
def test_the_named_sets(scores):
    classes, expected = scores
    detector = NudeNet(classes=classes)
    detector._network.onnx_session = Session(
        ("ANUS_EXPOSED", 0.5, 30),
        ("MALE_BREAST_EXPOSED", 0.7, 110),
        ("BELLY_EXPOSED", 0.9, 190),
        ("FACE_MALE", 0.3, 270),
    )
    assert detector.presence([np.zeros((320, 320, 3), np.uint8)]) == pytest.approx([expected])


def test_the_names_are_the_packages():
    assert sorted(LABELS) == sorted(getattr(package, "__labels"))
    assert [len(PRESETS[name]) for name in ("strict5", "core6", "wide9")] == [5, 6, 9]
    assert set(STRICT5) < set(CORE6) < set(WIDE9)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3))))
@settings(max_examples=8)
def test_any_picture_is_answered(image):
    (found,) = NudeNet(classes=LABELS).presence([image])
    assert found == 0.0 or 0.25 <= found <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concept": "dog"}, "NudeNet detects nudity, not 'dog'"),
        ({"classes": "core7"}, "core6"),
        ({"classes": ["EXPOSED_ANUS"]}, "unknown class of NudeNet 3 'EXPOSED_ANUS'"),
        ({"classes": []}, "at least one class"),
        ({"channel_order": "gbr"}, "bgr"),
        ({"batch": 0}, "at least one image"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        spec.build(NudeNet, given)
    with pytest.raises(InvalidInput, match=message):
        NudeNet(**given)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(InvalidInput, match="uint8 RGB"):
        NudeNet().presence([image])


def test_the_revision_tells_what_changes_the_answer():
    assert NudeNet().revision == NudeNet(batch=3, classes=CORE6).revision
    others = [NudeNet(classes="strict5"), NudeNet(channel_order="bgr")]
    assert len({NudeNet().revision, *(d.revision for d in others)}) == 3
    assert NudeNet().revision.startswith("nudenet 3.")


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "nudenet")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nudenet" else find(name))
    with pytest.raises(MissingExtra, match=r"pip install 'unlearn-metrics\[nudenet\]'"):
        spec.build(NudeNet, {})
