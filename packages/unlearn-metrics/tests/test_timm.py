"""Trained classifiers, on tiny models with random weights, against the libraries called by hand."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_core.protocols import Classifier
from unlearn_core.testing.hub_server import HubServer
from unlearn_metrics.classifiers.timm import TimmClassifier
from unlearn_metrics.detectors.classifier import ClassifierDetector

timm = pytest.importorskip("timm")
ARCHITECTURE = "test_vit"  # timm's own tiny model: 160 pixels, 0.37 M parameters
LABELS = ("dog", "cat", "car", "dog", "tree")


def spread(model, head, x):
    """Give a random network a last layer whose answers differ from image to image."""
    with torch.no_grad():
        torch.nn.init.normal_(head.weight)
        out = model(x)
        head.bias.copy_(-getattr(out, "logits", out).mean(0))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(ARCHITECTURE, num_classes=len(LABELS)).eval()
        spread(model, model.head, torch.randn(20, 3, 160, 160))
        return model


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """Return the settings of the tiny model as a safetensors file with its label file."""
    folder = tmp_path_factory.mktemp("timm")
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return {
        "model": ARCHITECTURE,
        "weights": folder / "model.safetensors",
        "label_file": folder / "labels.txt",
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    """Return the folder that timm itself writes for the Hub, with the names of the labels."""
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm-folder")
    named = ["dog, Canis familiaris", "cat", "car", "bus", "tree"]
    save_for_hf(net, folder, model_config={"label_names": named}, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory):
    """Return the folder of a tiny ViT of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label=dict(enumerate(["dog", "cat, Felis catus", "car"])), label2id={"dog": 0, "cat": 1, "car": 2},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vit")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config).eval()
        spread(model, model.classifier, torch.randn(20, 3, 32, 32))
        model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def logits_by_hand(net, images, **changes):
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(net, args=changes))
    with torch.no_grad():
        return net(torch.stack([transform(Image.fromarray(image)) for image in images]))


def by_hand(net, images, **changes):
    return logits_by_hand(net, images, **changes).argmax(1).tolist()


def test_it_is_found_by_name_and_is_a_classifier(files):
    assert registry.load("unlearn.classifiers", "timm") is TimmClassifier
    assert isinstance(spec.build(TimmClassifier, {**files, "weights": str(files["weights"])}), Classifier)


def test_a_local_checkpoint_answers_as_timm_does(files, net, pictures):
    images = list(pictures(12, size=64))
    found = TimmClassifier(**files).classify(images, "object")
    assert found == [LABELS[i] for i in by_hand(net, images)]
    assert len(set(found)) > 1


def test_outputs_may_share_a_label(files):
    assert TimmClassifier(**files, domain="things").domains == {"things": ("dog", "cat", "car", "tree")}


def test_probabilities_of_outputs_that_share_a_label_add_up(files, net, pictures):
    classifier, images = TimmClassifier(**files), list(pictures(5, size=64))
    each = logits_by_hand(net, images).softmax(-1).numpy()
    expected = np.stack([each[:, 0] + each[:, 3], each[:, 1], each[:, 2], each[:, 4]], 1)
    np.testing.assert_allclose(classifier.probabilities(images, "object"), expected, atol=1e-5)
    assert classifier.probabilities([], "object").shape == (0, 4)


def test_preprocessing_can_be_that_of_a_paper(files, net, pictures):
    images = list(pictures(12, size=64, seed=3))
    changes = {"crop_pct": 0.4, "interpolation": "bilinear", "mean": (0.2, 0.2, 0.2)}
    classifier = TimmClassifier(**files, preprocessing=changes)
    assert classifier.classify(images, "object") == [LABELS[i] for i in by_hand(net, images, **changes)]
    assert by_hand(net, images, **changes) != by_hand(net, images)
    assert classifier.revision != TimmClassifier(**files).revision


def test_a_folder_of_timm_has_its_own_labels(saved, net, pictures):
    images = list(pictures(8, size=64))
    classifier = TimmClassifier(model=f"local-dir:{saved}", device="cpu")
    own = ("dog", "cat", "car", "bus", "tree")
    assert classifier.domains == {"object": own}
    assert classifier.classify(images, "object") == [own[i] for i in by_hand(net, images)]


def test_a_folder_of_transformers_answers_as_transformers_does(of_transformers, pictures):
    import transformers

    images = list(pictures(12))
    classifier = TimmClassifier(library="transformers", model=str(of_transformers), device="cpu")
    assert classifier.domains == {"object": ("dog", "cat", "car")}
    model = transformers.AutoModelForImageClassification.from_pretrained(of_transformers)
    x = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # the processor's defaults
    with torch.no_grad():
        expected = model(x).logits.argmax(1).tolist()
    found = classifier.classify(images, "object")
    assert found == [("dog", "cat", "car")[i] for i in expected]
    assert len(set(found)) > 1


@pytest.fixture
def hub(saved, of_transformers, tmp_path, monkeypatch):
    """A Hub with both folders."""
    with HubServer({"owner/of-timm": saved, "owner/of-transformers": of_transformers}) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_models_by_their_hub_ids(hub, saved, of_transformers, pictures, tmp_path):
    for settings, folder in (
        ({"model": "hf-hub:owner/of-timm"}, f"local-dir:{saved}"),
        ({"model": "owner/of-transformers", "library": "transformers"}, str(of_transformers)),
    ):
        there = ClassifierDetector(concept="dog", classifier_settings={**settings, "device": "cpu"})
        here = ClassifierDetector(
            concept="dog", classifier_settings={**settings, "model": folder, "device": "cpu"}
        )
        assert there.presence(pictures(5)) == here.presence(pictures(5))
    assert any("safetensors" in name for name in hub.files())


@pytest.mark.parametrize("batch", [1, 5])
def test_batches_change_nothing(files, pictures, batch):
    images = [*pictures(6, size=64), *pictures(3, size=32)]
    classifier = TimmClassifier(**files)
    assert TimmClassifier(**files, batch=batch).classify(images, "object") == classifier.classify(
        images, "object"
    )
    assert TimmClassifier(**files, batch=batch).revision == classifier.revision
    assert classifier.classify([], "object") == []


def test_what_is_not_finite_is_not_judged(files, pictures, monkeypatch):
    classifier = TimmClassifier(**files)
    monkeypatch.setattr(
        classifier._loaded.net,
        "forward",
        lambda x: x.mean((1, 2, 3))[:, None] * torch.tensor([1.0, torch.nan]),
    )
    assert classifier.classify(list(pictures(2)), "object") == [None, None]


def test_revisions_tell_weights_and_labels_apart(files, tmp_path, net):
    other = tmp_path / "other.safetensors"
    save_file({k: v + 0.01 if v.is_floating_point() else v for k, v in net.state_dict().items()}, other)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(files["weights"].read_bytes())
    found = [
        TimmClassifier(**{**files, **change}).revision
        for change in ({}, {"weights": other}, {"label_file": labels})
    ]
    assert len(set(found)) == 3
    assert TimmClassifier(**{**files, "weights": copied}).revision == found[0]


def test_a_model_without_a_trained_head_is_refused(of_transformers, tmp_path, pictures):
    """transformers makes up the missing head and only warns."""
    import transformers

    transformers.ViTModel.from_pretrained(of_transformers).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        (of_transformers / "preprocessor_config.json").read_text()
    )
    with pytest.raises(InvalidInput, match=r"no trained classifier: it lacks classifier\.bias"):
        TimmClassifier(library="transformers", model=str(tmp_path)).classify(list(pictures(1)), "object")


def test_pickles_are_refused(files, tmp_path, of_transformers, pictures):
    pickle = tmp_path / "model.pth"
    pickle.write_bytes(b"")
    with pytest.raises(InvalidInput, match="no safetensors file, and pickles may run code: convert it with"):
        TimmClassifier(**{**files, "weights": pickle})
    (tmp_path / "config.json").write_text((of_transformers / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(Unavailable, match="safetensors"):
        TimmClassifier(library="transformers", model=str(tmp_path)).classify(list(pictures(1)), "object")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "test_vitt", "weights": None}, InvalidInput, "no model 'test_vitt'; the nearest are: test_vit"),
        ({"model": "resnet10t"}, Unavailable, r"classifier 'resnet10t' with the weights .*model\.safetensors"),
        ({"model": "local-dir:/nowhere", "weights": None}, Unavailable, "classifier 'local-dir:/nowhere'"),
        ({"model": "/nowhere", "library": "transformers", "weights": None}, Unavailable, "'/nowhere' of transformers"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_loaded_are_said(files, pictures, change, error, message):
    with pytest.raises(error, match=message):
        TimmClassifier(**{**files, **change}).classify(list(pictures(1)), "object")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"a\nb\n", InvalidInput, "has 5 outputs, the label file 2 lines"),
        (b"", InvalidInput, "it is empty"),
        (b"a\n\nb\n", InvalidInput, "line 2 is blank"),
        (b"\xff\n", InvalidInput, "not UTF-8"),
        (None, Unavailable, "cannot read the label file"),
    ],
)
def test_label_files_that_do_not_fit_are_said(saved, tmp_path, pictures, content, error, message):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        TimmClassifier(model=f"local-dir:{saved}", label_file=path).classify(list(pictures(1)), "object")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "at least one image"),
        ({"library": "tim"}, "timm"),
        ({"library": "transformers"}, "settings of timm"),
        ({"preprocessing": {"crop": 1}}, "unknown setting 'crop'; did you mean 'crop_pct'"),
        ({"label_file": None}, "need a label_file"),
    ],
)
def test_settings_that_make_no_sense_are_refused(files, settings, message):
    with pytest.raises(InvalidInput, match=message):
        spec.build(TimmClassifier, {**files, **settings})


def test_another_domain_is_refused(files, pictures):
    with pytest.raises(InvalidInput, match="unknown domain 'style'"):
        TimmClassifier(**files).classify(list(pictures(1)), "style")


def test_without_transformers_the_command_is_named(monkeypatch, pictures):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unlearn-metrics\[transformers\]'"):
        TimmClassifier(library="transformers", model="x").classify(list(pictures(1)), "object")


def test_imagenets_names_are_known_without_a_file():
    from unlearn_metrics.classifiers.timm import _timm_names

    names = _timm_names(timm.create_model(ARCHITECTURE, num_classes=1000))
    assert (len(names), names[0], names[281]) == (1000, "tench", "tabby")
