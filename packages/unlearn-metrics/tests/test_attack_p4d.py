"""P4D: its two variants, the projection against brute force, the choice by likeness, and what a search may never do."""

import numpy as np
import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, NotRegistered
from unlearn_core.spec import build
from unlearn_metrics.attacks.drawing import Candidates
from unlearn_metrics.attacks.p4d import P4D, likeness, nearest
from unlearn_metrics.attacks.testing import Colours, Redness, check_attack, rows, tiny_drawer
from unlearn_metrics.attacks.vocabulary import Vocabulary

SMALL = {"tokens": 3, "steps": 6, "look": 2, "samples": 1, "extractor": "colours", "extractor_settings": {}}


@pytest.fixture(autouse=True)
def plugged(plugs, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path))
    plugs["colours"], plugs["red"] = Colours, Redness


@pytest.mark.parametrize("variant", ["n", "k"])
def test_does_what_every_attack_does(variant):
    check_attack(P4D(**SMALL, variant=variant), tiny_drawer(), rows("a dog", "a blue dog"))


def test_the_papers_numbers_are_the_defaults():
    paper = P4D()
    assert (paper.tokens, paper.every, paper.steps, paper.lr, paper.weight_decay) == (16, 3, 3000, 0.1, 0.1)
    assert (paper.look, paper.samples, paper.guidance_scale) == (50, 3, 7.5)
    assert (paper.variant, P4D.presets["k"]) == ("n", {"variant": "k"})
    assert (paper.extractor, paper.extractor_settings["model"], paper.detector) == (
        "clip",
        "ViT-H-14",
        "nudenet",
    )


def test_the_projection_is_the_nearest_by_cosine():
    generator = torch.Generator().manual_seed(0)
    vectors, table = (torch.randn((n, 8), generator=generator) for n in (5, 40))
    cosines = [
        [np.dot(v, w) / np.linalg.norm(v) / np.linalg.norm(w) for w in table.numpy()] for v in vectors.numpy()
    ]
    assert nearest(vectors, table).tolist() == np.argmax(cosines, axis=1).tolist()
    assert nearest(3 * table, table).tolist() == list(range(40))


@pytest.mark.parametrize("length", range(9))
def test_one_token_before_every_third_and_one_behind(length):
    prompt = list(range(100, 100 + length))
    slots = P4D(variant="k").slots(prompt, 75)
    assert slots.count == length // 3 + 1
    assert [i for i in slots.tokens if i is not None] == prompt
    assert all((i % 4 == 0) == (token is None) for i, token in enumerate(slots.tokens))
    assert P4D(variant="k").slots(prompt, 4).tokens == slots.tokens[:4]
    assert P4D(tokens=7).slots(prompt, 75).tokens == (None,) * 7


def test_the_tokens_of_the_prompt_stay():
    made = P4D(**SMALL, variant="k").craft(
        tiny_drawer(1), rows("a blue dog in the park"), seed=0, original=tiny_drawer()
    )
    (found,) = made.found.values()
    prompt = tiny_drawer().tokenizer("a blue dog in the park", add_special_tokens=False).input_ids
    slots = P4D(variant="k").slots(prompt, 14)
    kept = [i for i, place in zip(found.ids, slots.tokens, strict=True) if place is not None]
    assert kept == prompt


def test_vectors_move_against_the_gradient_of_the_nearest_tokens(monkeypatch):
    """Whatever is drawn, the gradient is the same: the vectors end up against it."""
    model = tiny_drawer()
    directions = torch.randn((3, 32), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Candidates, "gradient", lambda self, *_: (0.0, directions.clone()))
    attack = P4D(**{**SMALL, "steps": 300, "look": 300})
    (found,) = attack.craft(model, rows("a dog"), seed=0).found.values()
    words = Vocabulary.of(model, Concept(name="dog"))
    table = model.token_vectors(words.ids[None])[0]
    # Adam takes the sign of a gradient that never changes.
    assert list(found.ids) == words.ids[nearest(-directions.sign(), table)].tolist()


def test_the_prompt_with_the_most_alike_picture_is_returned():
    model, original = tiny_drawer(1), tiny_drawer()
    attack = P4D(**{**SMALL, "steps": 12, "look": 1})
    found = []
    for steps in range(1, 12, 2):
        made = P4D(**{**SMALL, "steps": steps, "look": 1}).craft(
            model, rows("a dog"), seed=0, original=original
        )
        found.append(next(iter(made.found.values())))
    losses = [one.loss for one in found]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    made = attack.craft(model, rows("a dog"), seed=0, original=original)
    (one,), (picture,) = made.found.values(), model.generate(made.rows)
    (target,) = original.generate(rows("a dog").rows)
    assert one.loss == pytest.approx(1 - likeness(Colours(), picture, target))
    assert one.evaluations == 12 and 1 <= one.pictures <= 12


def test_the_target_is_the_sample_that_the_detector_is_surest_of(monkeypatch):
    original, drawn = tiny_drawer(), []
    attack = P4D(**{**SMALL, "samples": 3}, detector="red")
    (row,) = rows("a dog")
    picture = attack._target(original, row, Concept(name="dog"), 0)
    monkeypatch.setattr(
        type(original), "generate", lambda self, some: [drawn.extend(some) or picture for _ in some]
    )
    attack._target(original, row, Concept(name="dog"), 0)
    monkeypatch.undo()
    assert len({one.seed for one in drawn}) == 3 and drawn[0] == row
    red = Redness().presence(list(original.generate(drawn)))
    assert picture[..., 0].mean() / 255 == pytest.approx(max(red))


def test_a_defence_that_acts_while_drawing_is_attacked_with_guidance(monkeypatch):
    scales = []
    noise = type(tiny_drawer()).noise

    def spied(self, x, t, trajectory, *, guidance_scale):
        if torch.is_grad_enabled():
            scales.append(guidance_scale)
        return noise(self, x, t, trajectory, guidance_scale=guidance_scale)

    monkeypatch.setattr(type(tiny_drawer()), "noise", spied)
    for hooks in ((), (lambda states: states * 0.5,)):
        model = tiny_drawer(1, hooks=hooks, fingerprint=f"{len(hooks)} hooks")
        P4D(**SMALL).craft(model, rows("a dog"), seed=0, original=tiny_drawer())
    assert scales == [1.0] * 6 + [7.5] * 6


def test_nothing_that_the_guard_refuses_is_drawn_or_kept(monkeypatch):
    drawn = []
    monkeypatch.setattr("unlearn_metrics.attacks.drawing.refused", lambda text, row, about: True)
    monkeypatch.setattr(
        "unlearn_metrics.attacks.drawing.Candidates.draw", lambda self, text: drawn.append(text)
    )
    made = P4D(**SMALL).craft(tiny_drawer(), rows("a dog"), seed=0)
    assert drawn == [] and len(made) == 0 and made.dropped == 1


def test_bad_settings_and_input_are_one_message():
    for wrong in ({"tokens": 0}, {"look": 0}, {"samples": 0}, {"guidance_scale": 0.5}):
        with pytest.raises(InvalidInput, match="at least 1"):
            build(P4D, wrong)
    with pytest.raises(InvalidInput, match="above 0"):
        build(P4D, {"lr": 0})
    with pytest.raises(InvalidInput, match="at least 0"):
        build(P4D, {"weight_decay": -1})
    with pytest.raises(InvalidInput, match="at most 14 tokens, not 16"):
        P4D().craft(tiny_drawer(), rows("a dog"), seed=0)
    with pytest.raises(NotRegistered, match="colors"):
        P4D(**{**SMALL, "extractor": "colors"}).check(Concept(name="dog"))
