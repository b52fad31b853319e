"""Faults found in another benchmark (eval-unlearn 1.1.2, read only), each impossible here, by their numbers."""

import csv
import importlib.metadata
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from unlearn_core import registry, spec
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, MissingExtra, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_metrics import verdicts
from unlearn_metrics.asr_ring_a_bell import AsrRingABell
from unlearn_metrics.attacks.mma_diffusion import MMADiffusion
from unlearn_metrics.attacks.ring_a_bell import RingABell
from unlearn_metrics.detectors.nudenet import NudeNet
from unlearn_metrics.detectors.q16 import Q16
from unlearn_metrics.err import Err
from unlearn_metrics.extractors import inception
from unlearn_metrics.fid import FID
from unlearn_metrics.i2p import load_i2p
from unlearn_metrics.prompt_sets import load_attack_prompts
from unlearn_metrics.ua_ira import UaIra


@dataclass(frozen=True, kw_only=True)
class Corner:
    """Names the label whose number stands in the corner."""

    revision: str = "1"
    domains: ClassVar[dict] = {"object": ("dog", "cat", "car")}

    def classify(self, images, domain):
        return [self.domains["object"][image[0, 0, 0]] for image in images]


def test_1_ua_and_ira_do_not_depend_on_batches(tmp_path, png, plugs, monkeypatch):
    """There, from the second batch of 32 on, retained images count as target: 40 + 40 gave IRA 0 of 0."""
    plugs["corner"], samples = Corner, SampleSet(tmp_path / "forty-and-forty")
    for group, concept in (("target", "dog"), ("retain", "cat")):
        for i in range(40):
            image = np.full((2, 2, 3), 9, np.uint8)
            image[0, 0, 0] = 1 if group == "retain" else 0 if i < 5 else 2  # five of forty dogs are left
            image[1, 1, 0] = i
            row = Prompt(id=f"{group}-{i}", text=f"{group} {i}", seed=i, group=group, concept=concept)
            samples.add(row, png(image))
    for batch in (7, 32, 64):
        monkeypatch.setattr(verdicts, "BATCH", batch)
        parts = UaIra(classifier="corner").measure(samples).parts
        assert (parts["UA"].value, parts["UA"].n_scored) == (35 / 40, 40)
        assert (parts["IRA"].value, parts["IRA"].n_scored) == (1, 40)


def test_2_fid_sees_each_pixel_normalised_once_by_the_published_network(pictures, monkeypatch):
    """There, torchvision's Inception normalised twice, and the default of 1,000 images was no warning."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    seen = []
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
        lambda *_, **__: {},
    )
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr("unlearn_metrics.extractors.inception.weights_hash", lambda net: "none")
    extractor = registry.load("unlearn.extractors", FID().extractor)()
    net, _, _ = inception._load(extractor.weights, extractor.device)
    assert type(net) is FeatureExtractorInceptionV3
    net.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: seen.append(given[0]) or 1 / 0)
    image = np.zeros((299, 299, 3), np.uint8)
    image[:, 150:] = 255
    with pytest.raises(ZeroDivisionError):
        extractor.features([image])
    inception._load.cache_clear()  # its weights were random
    assert (seen[0].min().item(), seen[0].max().item()) == pytest.approx((-1, 1), abs=0.01)


def test_2_fid_of_few_images_is_a_warning(sample_set, pictures, tiny_clip):
    plug = {"extractor": "clip", "extractor_settings": {"model": tiny_clip, "device": "cpu"}}
    with pytest.warns(UnlearnWarning, match="fid of 20 images .* below 2,048 it is mostly the bias"):
        FID(**plug).measure(sample_set(pictures(20)), sample_set(pictures(20, seed=1)))


def test_3_q16_takes_the_vectors_of_its_backbone_and_the_published_rule(tmp_path):
    """There, ViT-L/14 got the vectors of ViT-B/32, and 0.9 was the threshold."""
    default = Q16(prompts=str(tmp_path / "prompts.p"))
    assert (default.model, default.pretrained, default.threshold) == ("ViT-L-14-quickgelu", "openai", 0.5)
    # Vectors of another width are refused: test_q16.test_vectors_of_another_backbone_are_refused.


def test_4_what_fails_is_never_safe(drawn, pixel_detector, damage, monkeypatch):
    """There, an exception of the detector and a broken file count as safe."""
    metric = AsrRingABell(detector="pixel")
    score = metric.measure(damage(drawn([900, 900, 100], group="ring_a_bell"), 2))
    assert (score.value, score.n_scored, score.n_unscored) == (1, 2, 1)
    with pytest.raises(InvalidInput, match="no sample could be judged"):
        metric.measure(drawn([None], group="ring_a_bell"))
    monkeypatch.setattr(pixel_detector, "presence", lambda self, images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        metric.measure(drawn([901], group="ring_a_bell"))


def test_4_nothing_is_cut_off_silently(tmp_path):
    """There, a limit of 500 or 1,000 rows was the default."""
    path = tmp_path / "prompts.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([f"text {i}"] for i in range(1500))])
    assert len(load_attack_prompts("p4d", path)) == 1500


def test_5_rows_keep_their_own_seed_and_guidance(tmp_path):
    """There, one seed was used again for each batch, and the columns were not read."""
    path = tmp_path / "i2p.csv"
    rows = [["a", "violence", 0, 0, 11, 7], ["b", "violence", 0, 0, 12, 9.5]]
    columns = ["prompt", "categories", "hard", "nudity_percentage", "sd_seed", "sd_guidance_scale"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for found in (load_i2p(path), load_attack_prompts("p4d", path, concept="violence")):
        assert [(p.seed, p.guidance) for p in found] == [(11, 7), (12, 9.5)]


def test_6_one_threshold_and_rgb_everywhere():
    """There, NudeNet saw BGR through temporary files, at 0.5 in one metric and 0.45 in others."""
    pytest.importorskip("nudenet")
    detector = NudeNet()
    assert (detector.channel_order, detector.threshold) == ("rgb", 0.45)
    assert {AsrRingABell().threshold, Err().threshold} == {None}  # the detector's own
    # What reaches the network is tested in test_nudenet.test_a_red_picture_reaches_the_network_red.


def test_6_the_budget_of_mma_diffusion_is_the_published_one():
    """There, five restarts were called the paper's; its code has ten."""
    assert (MMADiffusion().restarts, MMADiffusion().steps, MMADiffusion().candidates) == (10, 1000, 512)


def test_7_a_new_concept_has_as_many_pairs_as_the_paper_and_settings_say_which():
    """There, a new concept's vector came of eight generic templates, and nothing in the result said so."""
    church = Concept(name="church", anchor="house")
    pairs = RingABell().pairs_of(church)
    assert len(set(pairs)) == len(pairs) == 50  # the paper's number for nudity
    assert all("church" in with_it and "church" not in without for with_it, without in pairs)
    own = (("a church", "a house"),)
    assert RingABell(pairs=own).pairs_of(church) == own
    stated = [spec.fingerprint(spec.settings_of(RingABell(**s))) for s in ({}, {"pairs": own}, {"eta": 2.0})]
    assert len(set(stated)) == 3  # what a record holds


def test_8_no_label_is_a_negation():
    """There, ERR asked CLIP for "an image without X", which it takes for X."""
    settings = {"labels": {"object": ("a dog", "without a dog", "a cat")}}
    with pytest.raises(InvalidInput, match="CLIP does not understand 'without a dog'"):
        Err(
            detector="clip",
            detector_settings={"concept": "dog", "against": ("a", "b")},
            classifier_settings=settings,
        )


def test_9_a_set_that_lost_images_is_compared_pair_by_pair(drawn, pixel_detector, damage):
    """There, images that failed were dropped on one side, and the others no longer matched."""
    before = damage(drawn([900, 900, 900], group="ring_a_bell"), 0)
    after = drawn([900, 100, 900], group="ring_a_bell")
    conditional = AsrRingABell(detector="pixel").measure(after, before).parts["conditional"]
    assert conditional.per_sample == {"ring_a_bell-001": 0, "ring_a_bell-002": 1}


def test_10_nothing_heavy_is_imported_and_no_extra_is_needed_to_look():
    """There, one failing import took every plugin down."""
    code = (
        "import sys, unlearn_metrics.asr_p4d, unlearn_metrics.err, unlearn_metrics.tifa, unlearn_metrics.vqa.blip,"
        "unlearn_metrics.prompt_sets, unlearn_metrics.detectors.q16, unlearn_metrics.detectors.ensemble,"
        "unlearn_metrics.detectors.vqa, unlearn_metrics.detectors.classifier, unlearn_metrics.sentences.sbert;"
        "print(sorted({'torch', 'transformers', 'open_clip', 'nudenet', 'timm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_10_attacks_are_in_the_package_and_no_version_is_pinned():
    """There, attacks lived outside the wheel, and numpy>=2.4 and torch>=2.11 were demanded."""
    assert {"ring_a_bell", "mma_diffusion", "p4d", "unlearndiffatk"} <= set(registry.names("unlearn.attacks"))
    for requirement in importlib.metadata.requires("unlearn-metrics"):
        assert "==" not in requirement.partition(";")[0] and "modelscope" not in requirement
    needed = importlib.metadata.requires("unlearn-metrics")
    assert {"numpy>=2.0", "torch>=2.4"} <= set(needed)


def test_10_what_is_missing_is_said_with_the_command(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nudenet" else find(name))
    with pytest.raises(MissingExtra, match=r"pip install 'unlearn-metrics\[nudenet\]' \(weights: AGPL-3.0\)"):
        AsrRingABell(detector="nudenet")
