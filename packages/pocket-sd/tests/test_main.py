import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pocket_sd import drawing
from pocket_sd.__main__ import main


def test_it_draws_one_picture(tmp_path, capsys):
    target = tmp_path / "dog.png"
    assert main(["a dog, sketch style, blue background", "--out", str(target), "--steps", "3"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    with Image.open(target) as image:
        assert image.size == (256, 256)


def test_the_same_command_draws_the_same_picture(tmp_path):
    for name in ("one.png", "other.png"):
        main(["a cat", "--out", str(tmp_path / name), "--seed", "7", "--steps", "3"])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_it_draws_a_sheet(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        drawing,
        "draw",
        lambda texts, seeds, **_: asked.extend(texts) or np.zeros((len(texts), 64, 64, 3), np.uint8),
    )
    assert main(["--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "a dog, sketch style, yellow background" in asked
    assert "a dog, neon style" in asked
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 640


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--sheet FILE"),
        (["a dog"], "--out dog.png"),
        (["a dog", "--out", "dog.jpg"], ".png"),
        (["a dog", "--out", "nowhere/dog.png"], "no folder"),
        (["a dog", "--out", "dog.png", "--steps", "0"], "--steps"),
        (["a dog", "--out", "dog.png", "--size", "9"], "--size"),
        (["a dog", "--out", "dog.png", "--seed", "-1"], "--seed"),
        (["a dog", "--out", "dog.png", "--guidance", "-1"], "--guidance"),
        (["a dog", "--sheet", "sheet.png"], "--sheet FILE"),
        (["a dog", "--out", "dog.png", "--without", "cat"], "without 'cat'"),
    ],
)
def test_mistakes_cost_one_line_and_exit_code_2(arguments, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert hint in captured.err
    assert not list(tmp_path.iterdir())


def test_importing_it_loads_nothing_heavy():
    heavy = ("torch", "diffusers", "transformers", "PIL")
    code = f"import sys, pocket_sd; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
