"""The training scripts run from drawing to pipeline on a few tiny drawings, offline; nothing is learnt in two steps."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TRAIN = Path(__file__).parents[1] / "train"
pytest.importorskip("resvg_py")


@pytest.fixture
def scripts(monkeypatch):
    """Import a script of the training by its name."""
    monkeypatch.syspath_prepend(str(TRAIN))
    yield importlib.import_module
    for name in [p.stem for p in TRAIN.glob("*.py")]:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def icons(tmp_path_factory):
    """Icon sets in Iconify's form: every object a circle of its own colour, and twenty squares."""
    folder = tmp_path_factory.mktemp("icons")
    sys.path.insert(0, str(TRAIN))
    try:
        looks, packages = (getattr(importlib.import_module("drawings"), n) for n in ("LOOKS", "PACKAGES"))
    finally:
        sys.path.remove(str(TRAIN))
    for s, name in enumerate(packages):
        bodies = {}
        for i, names in enumerate(n for pair in looks.values() for n in pair):
            for word in names.split():
                icon = word.partition("@")[0].partition("!")[0]
                bodies[icon] = {
                    "body": f'<circle cx="8" cy="8" r="{4 + s / 3}" fill="hsl({i * 8}, 90%, 50%)"/>'
                }
        for k in range(20):
            bodies[f"zz{k}"] = {"body": f'<rect x="2" y="3" width="{5 + k / 4}" height="8" fill="#345"/>'}
        aliases = {"chained": {"parent": "again"}, "again": {"parent": "zz1", "left": 1}}
        (folder / f"{name}.json").write_text(
            json.dumps({"icons": bodies, "aliases": aliases, "width": 16, "height": 16})
        )
    return folder


def run(name, *arguments):
    paths = os.pathsep.join([str(TRAIN.parent / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, TRAIN / f"{name}.py", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_aliases_are_followed_and_their_changes_kept(scripts, icons):
    found = scripts("drawings").IconSet(icons, "noto").icon("chained")
    assert found["left"] == 1
    assert "rect" in found["body"]
    assert scripts("drawings").IconSet(icons, "noto").icon("nothing") is None


def test_a_drawing_fills_its_square(scripts, icons):
    picture = scripts("drawings").IconSet(icons, "noto").render("koala")
    assert picture.shape == (128, 128, 4)
    assert (picture[64, :, 3] > 200).mean() > 0.97


def test_strangers_are_none_of_the_objects(scripts, icons):
    import numpy as np

    drawings = scripts("drawings")
    assert (
        len(drawings.others(icons, ["noto"], 50, np.random.default_rng(0))) == 22
    )  # 20 squares and two aliases


def test_styles_do_the_same_to_every_drawing(scripts):
    styles = scripts("styles").STYLES
    rgba = torch.rand(3, 4, 64, 64)
    rgba[:, :3] *= rgba[:, 3:]
    background = torch.rand(3, 3, 1, 1)
    for style in styles.values():
        together = style(rgba, background)
        assert together.shape == (3, 3, 64, 64)
        assert together.min() >= -1e-5
        assert together.max() <= 1 + 1e-5
        torch.testing.assert_close(style(rgba[1:2], background[1:2]), together[1:2])


def test_leaving_a_concept_out_drops_its_pictures_and_no_other(scripts, icons, tmp_path):
    pictures = scripts("pictures")
    full = pictures.bank(icons, tmp_path / "bank.pt", 300, seed=0)
    for without, column, index in (
        ("dog", "object", 0),
        ("sketch", "style", pictures.STYLE_NAMES.index("sketch")),
    ):
        left = pictures.bank(icons, tmp_path / "bank.pt", 300, seed=0, without=without)
        expected = (getattr(full, column) != index).nonzero()[:, 0]
        assert 0 < len(expected) < 300
        assert torch.equal(left.rows, expected)
        assert torch.equal(left.images, full.images[expected])
    with pytest.raises(SystemExit, match="dog"):
        pictures.bank(icons, tmp_path / "bank.pt", 300, seed=0, without="unicorn")


def test_captions_say_what_is_on_the_picture(scripts, icons):
    import numpy as np

    from pocket_sd.words import OBJECTS, STYLES, WORDS

    pictures = scripts("pictures")
    batch = pictures.pictures(pictures.load(icons), 200, torch.Generator().manual_seed(0))
    texts = pictures.captions(batch, torch.arange(200), np.random.default_rng(0), empty=0.1)
    assert 8 <= texts.count("") <= 40
    for i, text in enumerate(texts):
        if not text:
            continue
        words = WORDS[OBJECTS[batch.object[i]]]
        assert any(
            w in text for w in (OBJECTS[batch.object[i]], *words.same, *words.other, words.description)
        )
        for style, synonym in STYLES.items():
            if f"{style} style" in text or f"{synonym} style" in text:
                assert pictures.STYLE_NAMES[batch.style[i]] == style


@pytest.mark.slow
def test_from_drawings_to_a_pipeline(icons, tmp_path):
    """Every script in its order, two steps each, and again: what is done is not done twice."""
    bank = tmp_path / "bank.pt"
    run("autoencoder", "--icons", icons, "--out", tmp_path, "--steps", 2)
    for name in ("clip", "unet", "judge"):
        run(name, "--icons", icons, "--bank", bank, "--out", tmp_path, "--steps", 2, "--pictures", 1500)
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert pipe("a dog", num_inference_steps=2).images[0].size == (64, 64)
