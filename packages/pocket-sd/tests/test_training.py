"""The training scripts run from drawing to pipeline on a few tiny drawings, offline; nothing is learnt in two steps."""

import importlib
import json
import os
import shutil
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


@pytest.fixture
def descend(scripts, tmp_path):
    """Train a line for six steps of one cycle, stopping after `until`; return the training and the line."""
    training = scripts("training")

    def train(name, until=6):
        torch.manual_seed(0)
        line = torch.nn.Linear(2, 1)
        descent = training.one_cycle(line, 6, rate=0.1, rise=0.5, weight_decay=0.01)
        run = training.Training(tmp_path / f"{name}.state.pt", 6, *descent, line=line)
        for step in run:
            x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
            run.descend((line(x) - x.sum(1, keepdim=True)).square().mean(), largest=0.5)
            if run.due(2):
                run.save(loss=float(run.done))
            if run.done == until:
                break
        return run, line

    return train


def test_a_stopped_training_goes_on_as_if_it_had_not_been(descend, scripts):
    _, straight = descend("straight")
    descend("stopped", until=5)  # saved after four
    run, resumed = descend("stopped")
    assert run.numbers == {"loss": 4.0}
    assert run.done == 6
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)
    run, again = descend("stopped")
    assert list(run) == []
    assert torch.equal(again.weight, resumed.weight)
    state = scripts("progress").load_state(run.path)
    assert set(state) == {"line", "optimizer", "schedule", "step", "loss"}


def test_the_gradient_is_cut_off(scripts, tmp_path):
    line = torch.nn.Linear(3, 1, bias=False)
    start = line.weight.detach().clone()
    run = scripts("training").Training(
        tmp_path / "state.pt", 1, torch.optim.SGD(line.parameters(), lr=1.0), line=line
    )
    run.descend(1000 * line(torch.ones(1, 3)).sum(), largest=0.5)
    assert torch.linalg.norm(line.weight - start).item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("without", "steps"), [(None, None), ("dog", "6400")])
def test_only_a_gold_standard_is_trained_for_less(without, steps, scripts, tmp_path, monkeypatch):
    run, asked = scripts("run"), {}
    (tmp_path / "vae").mkdir()
    monkeypatch.setattr(run, "script", lambda name, *args: asked.update({name: [str(a) for a in args]}))
    folder = run.model(tmp_path, ["--icons", tmp_path], without)
    assert folder.name == (f"without-{without}" if without else "full")
    assert ("--without" in asked["unet"]) == ("--without" in asked["clip"]) == bool(without)
    assert "--steps" not in asked["clip"]
    found = asked["unet"]
    assert (found[found.index("--steps") + 1] if "--steps" in found else None) == steps


def test_a_gold_standard_brings_its_logs_and_links_what_it_shares(scripts, tmp_path, monkeypatch):
    run = scripts("run")
    monkeypatch.setattr(run, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(run, "RECORDS", tmp_path / "records")
    for part in ("unet", "vae", "tokenizer", "scheduler", "text_encoder"):
        for pipeline in (tmp_path / "weights" / "pipeline", tmp_path / "gold" / "pipeline"):
            (pipeline / part).mkdir(parents=True)
            (pipeline / part / "config.json").write_text(f"{part} {pipeline.parent.name}")
    (tmp_path / "records" / "logs").mkdir(parents=True)
    (tmp_path / "gold" / "logs").mkdir()
    (tmp_path / "gold" / "logs" / "unet.jsonl").write_text("{}")
    run.install_gold("dog", tmp_path / "gold")
    assert (tmp_path / "records" / "logs" / "unet-without-dog.jsonl").read_text() == "{}"
    gold = tmp_path / "weights" / "without-dog"
    assert (gold / "unet" / "config.json").read_text() == "unet gold"
    assert (gold / "vae").is_symlink()
    assert (gold / "vae" / "config.json").read_text() == "vae weights"


def test_the_card_tells_of_every_edit_and_gold_standard(scripts, tmp_path):
    from pocket_sd.words import OBJECTS, STYLES

    card, root = scripts("card"), TRAIN.parent
    record = json.loads((root / "records" / "record.json").read_text())
    half, never = ({"rate": r, "low": r - 0.1, "high": r + 0.1, "n": 30} for r in (0.52, 0.13))
    shutil.copytree(root / "records" / "logs", tmp_path, dirs_exist_ok=True)
    for old in tmp_path.glob("*-without-*"):
        old.unlink()
    bare = card.card({**record, "gold": {}}, tmp_path, ())
    assert "None ships yet." in bare
    assert "\n| size | 30 MB |" in bare
    assert all(f"| {label} |" in bare for label in record["forgetting"] if "style" not in label)
    for style, synonym in STYLES.items():
        assert f"\n| {style} | " in bare
        assert f" | {synonym} | " in bare

    for name in ("dog", "sketch"):
        for part, row in (("clip", {"zero_shot": 0.5}), ("unet", {"images": 9000, "loss": 0.25})):
            line = {"seconds": 120.0, "step": 77, **row}
            (tmp_path / f"{part}-without-{name}.jsonl").write_text(json.dumps(line))
    words = [word for pair in STYLES.items() for word in pair]
    others = {"others before": half, "others after": never}
    gold = {
        "dog": {
            "before": {"dog": half, "hound": half}, "after": {"dog": never, "hound": never},
            "seen instead": {"cat": 15, "fox": 5}, **others,
        },
        "sketch": {"before": dict.fromkeys(words, half), "after": dict.fromkeys(words, never), **others},
    }  # fmt: skip
    text = card.card({**record, "gold": gold}, tmp_path, ("dog", "sketch"))
    was, now = "52 % (42-62)", "13 % (3-23)"
    for row in (
        f"dog | hound | {was} | {now}",
        f"dog | the other objects | {was} | {now}",
        "dog | seen for a dog, of 20 |  | cat 15, fox 5",
        f"sketch | the objects in other styles | {was} | {now}",
        f"sketch | {was} | {now} | pencil | {was} | {now}",
        "UNet without dog | 77 | 2 | 9 thousand pictures, loss 0.2500",
        "CLIP without sketch | 77 | 2 | zero-shot object 50.0 %",
    ):
        assert f"\n| {row} |\n" in text
    assert "size, with both gold standards" in text
    assert "trained for 77 steps, the full one for 10400" in text
    assert f"the {len(OBJECTS) - 1} others" in text


@pytest.mark.slow
def test_from_drawings_to_a_pipeline(scripts, icons, tmp_path, monkeypatch):
    """Every script in its order, two steps each, and again: what is done is not done twice."""
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    bank = ["--bank", tmp_path / "bank.pt", "--pictures", 1500]
    parts = {"autoencoder": [], "clip": bank, "unet": [*bank, "--batch", 4], "judge": bank}

    def in_this_process(name, *arguments):  # spares the imports
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        scripts(name).main()

    def everything(run):
        for name, extra in parts.items():
            run(name, "--icons", icons, "--out", tmp_path, "--steps", 2, *extra)
        return {path.relative_to(tmp_path): load_file(path) for path in tmp_path.rglob("*.safetensors")}

    def steps(name):
        lines = (tmp_path / "logs" / f"{name}.jsonl").read_text().splitlines()
        return [row["step"] for row in map(json.loads, lines) if "step" in row]

    first = everything(run)
    assert {path.parts[0] for path in first} == {"vae", "clip", "text_encoder", "early", "pipeline", "judge"}
    assert all(steps(name) == [2] for name in parts)
    again = everything(in_this_process)
    assert all(steps(name) == [2] for name in parts)
    assert first.keys() == again.keys()
    for path, weights in first.items():
        assert all(torch.equal(weights[key], again[path][key]) for key in weights), path
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert pipe("a dog", num_inference_steps=2).images[0].size == (64, 64)
