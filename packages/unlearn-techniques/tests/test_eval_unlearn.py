"""Plugins written for eval-unlearn, installed as their users install them: what they are told and what they draw."""

import subprocess
import sys

import numpy as np
import pytest

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, NotRegistered, UnlearnError, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.spec import build, settings_of
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.eval_unlearn import EvalUnlearn, find

# As eval-unlearn's contributors are told to write one: a class of ``**config`` and a generate of prompts and a seed.
SOURCE = '''
"""Their module."""
import random

from PIL import Image


class Noisy:
    """Draw noise in place of everything."""

    made = []

    def __init__(self, **config):
        self.config = config
        Noisy.made.append(self)

    def generate(self, prompts, seed=None, **kwargs):
        random.seed(f"{prompts[0]} {seed} {sorted(kwargs.items())}")
        size = (12, 8)
        return [Image.frombytes("RGB", size, random.randbytes(3 * 96)).convert("RGBA") for _ in prompts]


class Strict:
    """Take two settings."""

    def __init__(self, strength: float = 1.0, device="cuda"):
        import torch

        self.strength, self.device, self.drawn = strength, device, float(torch.rand(()))

    def generate(self, prompts, seed=None):
        if seed == 13:
            raise RuntimeError("no luck")
        return {7: [], 8: ["a text"]}.get(seed) if seed in (7, 8) else [Image.new("L", (4, 4), seed)]


class Silent:
    pass
'''


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    info = tmp_path / "their_pack-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pack\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(
        "[eval_unlearn.techniques]\nNoisy = their_pack:Noisy\nstrict = their_pack:Strict\n"
        "silent = their_pack:Silent\nbroken = their_pack_that_is_not_there:X\n"
    )
    (tmp_path / "their_pack.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "their_pack.py"
    sys.modules.pop("their_pack", None)


@pytest.fixture
def box(theirs, tiny):
    """Return a function that applies a technique of theirs to forget dogs; its notes are expected."""

    def make(name, concept="dog", seed=0, **config):
        with pytest.warns(
            UnlearnWarning, match="a model and noise of its own: the pictures before are of tiny"
        ):
            return EvalUnlearn.of(name, config).apply(tiny, [Concept(name=concept)], seed=seed)

    return make


def draw(box, rows, **sampler):
    with pytest.warns(UnlearnWarning, match="loading and unlearning took"):
        return list(box.generate(rows, Sampler(**sampler)))


def test_names(theirs):
    assert find("noisy") == find("eval_unlearn_noisy") == find("NOISY") == "Noisy"
    assert find("uce") is None
    with pytest.raises(
        NotRegistered, match="unknown technique of eval-unlearn 'noise'; did you mean 'Noisy'"
    ):
        EvalUnlearn.of("eval_unlearn_noise", {})


def test_a_picture_depends_on_its_row_alone(box, rows):
    whole = draw(box("noisy"), rows)
    assert all(p.shape == (8, 12, 3) and p.dtype == np.uint8 for p in whole)
    assert len({p.tobytes() for p in whole}) == len(rows)
    again = draw(box("noisy"), rows[::-1])[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    other = draw(box("noisy"), [Prompt(id="0", text=rows[0].text, seed=rows[0].seed + 2**32, group="target")])
    assert np.array_equal(other[0], whole[0])  # NumPy's generators, which theirs may use, end at 32 bits


def test_steps_and_guidance_are_theirs(box, rows):
    (one,) = draw(box("noisy"), rows[:1], steps=3)
    (other,) = draw(box("noisy"), rows[:1], steps=4)
    assert (one != other).any()
    guided = Prompt(id="0", text=rows[0].text, seed=rows[0].seed, group="target", guidance=2.0)
    (own,) = draw(box("noisy"), [guided], steps=3)
    assert (own != one).any()


def test_it_is_told_what_to_forget(box, rows):
    import their_pack

    made = box("noisy", strength="2e-1", words="a, b", flag="False")
    assert not their_pack.Noisy.made  # nothing is loaded before a picture is asked for
    draw(made, rows[:1])
    (noisy,) = their_pack.Noisy.made
    assert noisy.config == {
        "erase_concept": "dog", "device": "cpu", "use_fp16": False, "strength": 0.2, "words": "a, b", "flag": False,
    }  # fmt: skip
    assert box("noisy", erase_concept="puppy").config["erase_concept"] == "puppy"


def test_what_it_does_not_take_is_not_given(theirs, tiny):
    with pytest.warns(UnlearnWarning, match="takes no erase_concept, so what it forgets is its own choice"):
        made = EvalUnlearn.of("strict", {"strength": "3"}).apply(tiny, [Concept(name="dog")], seed=0)
    assert made.config == {"strength": 3, "device": "cpu"}
    (picture,) = draw(made, [Prompt(id="x", text="a", seed=200, group="target")])
    assert picture.shape == (4, 4, 3) and (picture == 200).all()


def test_the_seed_reaches_their_training_and_nobody_elses(box):
    import torch

    state = torch.random.get_rng_state()
    row = [Prompt(id="x", text="a", seed=1, group="target")]
    found = []
    for seed in (0, 0, 1):
        made = box("strict", seed=seed)
        draw(made, row)
        found.append(made._theirs.drawn)
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fingerprints(box, theirs):
    same = {box("noisy").fingerprint, box("eval_unlearn_noisy").fingerprint}
    assert len(same) == 1
    others = {box("noisy", seed=1).fingerprint, box("noisy", concept="cat").fingerprint}
    others |= {box("noisy", strength=1).fingerprint, box("strict").fingerprint}
    theirs.write_text(SOURCE + "\n# another version\n")
    others.add(box("noisy").fingerprint)
    assert len(others | same) == 6


def test_settings_survive_a_record(theirs):
    technique = EvalUnlearn.of("noisy", {"strength": 0.5})
    assert technique.revision.startswith("their-pack 2.1 ")
    assert build(EvalUnlearn, settings_of(technique)) == technique


@pytest.mark.parametrize(
    ("name", "config", "error", "hint"),
    [
        (
            "strict",
            {"strenght": 1},
            InvalidInput,
            "strict: unknown setting 'strenght'; did you mean 'strength'",
        ),
        ("silent", {}, InvalidInput, "silent: a technique of eval-unlearn has generate"),
        (
            "broken",
            {},
            UnlearnError,
            "plugin 'broken' of their-pack .* cannot be loaded: ModuleNotFoundError",
        ),
    ],
)
def test_what_cannot_be_used_is_said_at_once(theirs, name, config, error, hint):
    with pytest.raises(error, match=hint):
        EvalUnlearn.of(name, config)


@pytest.mark.parametrize(
    ("seed", "hint"),
    [(13, "strict failed while drawing: RuntimeError: no luck"), (7, "got 0 of them"), (8, "got str")],
)
def test_failures_of_theirs_are_one_message(box, seed, hint):
    with pytest.raises(UnlearnError, match=hint):
        draw(box("strict"), [Prompt(id="x", text="a", seed=seed, group="target")])


def test_a_constructor_that_fails(theirs, box):
    theirs.write_text(SOURCE.replace("self.config = config", "raise ValueError('no weights')"))
    with pytest.raises(
        UnlearnError, match="Noisy failed while loading and unlearning: ValueError: no weights"
    ):
        list(box("noisy").generate([Prompt(id="x", text="a", seed=1, group="target")]))


def test_refused_prompts_are_not_drawn(box):
    refused = Prompt(id="x", text="nude child", seed=1, group="target")
    assert refused.refused
    with pytest.raises(InvalidInput, match="it is not drawn"):
        list(box("noisy").generate([refused]))


def test_one_concept(theirs, tiny):
    with pytest.raises(InvalidInput, match="told one concept to forget, got 2"):
        EvalUnlearn.of("noisy", {}).apply(tiny, [Concept(name="dog"), Concept(name="cat")], seed=0)


def test_to_ask_for_a_name_is_cheap():
    code = "import sys, unlearn_techniques.eval_unlearn as e; e.find('x'); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
