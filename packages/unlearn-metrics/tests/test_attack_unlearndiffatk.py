"""UnlearnDiffAtk: the simplex against an optimiser, where it stops, and that its gradients find better tokens."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, NotRegistered
from unlearn_core.spec import build
from unlearn_metrics.attacks import unlearndiffatk
from unlearn_metrics.attacks.drawing import Candidates
from unlearn_metrics.attacks.testing import check_attack, rows, tiny_drawer
from unlearn_metrics.attacks.unlearndiffatk import UnlearnDiffAtk, on_simplex
from unlearn_metrics.attacks.vocabulary import Vocabulary

SMALL = {"tokens": 2, "times": 3, "steps": 2, "lr": 1.0, "detector": "scripted", "whole_words": True}
DOG = Concept(name="dog")


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """Says what it was told to, picture after picture, then 0."""

    script: tuple[float, ...] = ()
    revision: str = "1"
    said: list = field(default_factory=list, compare=False)

    def presence(self, images):
        self.said.extend(images)
        n = len(self.said)
        return [self.script[n - 1] if n <= len(self.script) else 0.0 for _ in images]


@pytest.fixture(autouse=True)
def plugged(plugs, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path))
    plugs["scripted"] = Scripted


@pytest.fixture
def restless(monkeypatch):
    """Let the likeliest tokens be others after every step."""
    generator = torch.Generator().manual_seed(0)

    def chance(points):
        picked = torch.randint(points.shape[1], (len(points),), generator=generator)
        return torch.nn.functional.one_hot(picked, points.shape[1]).float()

    monkeypatch.setattr(unlearndiffatk, "on_simplex", chance)


def attacked(script, text="a dog", **settings):
    attack = UnlearnDiffAtk(**{**SMALL, "detector_settings": {"script": script}, **settings})
    calls = []
    made = attack.craft(
        tiny_drawer(1), rows(text), seed=0, original=tiny_drawer(), progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (6, 6)
    (one,) = made.found.values()
    return made.rows[0], one


@pytest.mark.parametrize("place", ["before", "after"])
def test_does_what_every_attack_does(place):
    check_attack(UnlearnDiffAtk(**SMALL, place=place), tiny_drawer(), rows("a dog", "a blue dog"))


def test_the_papers_numbers_are_the_defaults():
    paper = UnlearnDiffAtk()
    assert (paper.tokens, paper.times, paper.steps, paper.lr, paper.weight_decay) == (5, 50, 40, 0.01, 0.1)
    assert (paper.place, paper.detector, paper.threshold) == ("before", "nudenet", None)
    assert [int((i + 0.5) * 1000 / 50) for i in (0, 1, 49)] == [10, 30, 990]
    assert UnlearnDiffAtk.presets["style"]["tokens"] == UnlearnDiffAtk.presets["object"]["tokens"] == 3


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
def test_the_nearest_point_of_the_simplex(values):
    point = torch.tensor([values], dtype=torch.float64)
    found = on_simplex(point)
    assert (found >= 0).all() and float(found.sum()) == pytest.approx(1)
    assert torch.allclose(on_simplex(found), found)
    # Bisection on the one number that is taken off every entry, as the official code does.
    off = optimize.brentq(
        lambda x: np.clip(np.array(values) - x, 0, None).sum() - 1, min(values) - 2, max(values)
    )
    np.testing.assert_allclose(found[0], np.clip(np.array(values) - off, 0, None), atol=1e-6)


def test_rows_are_projected_each_for_itself():
    points = torch.randn((3, 7), generator=torch.Generator().manual_seed(0))
    alone = torch.cat([on_simplex(row[None]) for row in points])
    torch.testing.assert_close(on_simplex(points), alone)


def test_a_prompt_that_succeeds_is_not_attacked():
    row, one = attacked((0.9,))
    assert row.text == "a dog" and (one.evaluations, one.pictures) == (0, 1) and not one.changed


@pytest.mark.parametrize(
    ("script", "times"), [((0.0, 0.9), 1), ((0.0, 0.1, 0.45), 2), ((0.0, 0.1, 0.2, 0.3), 3)]
)
def test_the_first_success_ends_it(script, times, restless):
    row, one = attacked(script)
    assert (one.evaluations, one.pictures) == (2 * times, 1 + times)
    assert row.text.endswith("a dog") and len(one.ids) == 4


def test_without_success_the_surest_prompt_is_returned(restless, monkeypatch):
    drawn, draw = [], Candidates.draw
    monkeypatch.setattr(Candidates, "draw", lambda self, text: drawn.append(text) or draw(self, text))
    for surest in range(3):
        drawn.clear()
        script = [0.0, *(0.4 if i == surest else 0.1 for i in range(3))]
        assert attacked(tuple(script))[0].text == drawn[surest] and len(set(drawn)) == 3


def test_the_threshold_is_that_of_the_settings(restless):
    assert attacked((0.0, 0.4), threshold=0.4)[1].pictures == 2
    assert attacked((0.0, 0.4), threshold=0.6)[1].pictures == 4


def test_on_the_original_itself_nothing_is_drawn_to_be_judged(monkeypatch):
    monkeypatch.setattr(Candidates, "draw", lambda self, text: pytest.fail("drawn"))
    made = UnlearnDiffAtk(**SMALL).craft(tiny_drawer(), rows("a dog"), seed=0)
    (one,) = made.found.values()
    assert (one.pictures, one.evaluations) == (0, 6) and made.rows[0].text.endswith("a dog")


def test_tokens_go_against_the_gradient(monkeypatch):
    """Of a gradient with noise Adam follows what is sure: the tokens whose vectors point against its mean."""
    model, generator = tiny_drawer(1), torch.Generator().manual_seed(0)
    mean = torch.randn((3, 32), generator=generator)

    def gradient(self, ids, noised, wanted):
        return 0.0, 1e-3 * (mean + 2 * torch.randn(mean.shape, generator=generator))

    monkeypatch.setattr(Candidates, "gradient", gradient)
    attack = UnlearnDiffAtk(tokens=3, times=2, steps=150, lr=0.01, detector="scripted")
    words = Vocabulary.of(model, DOG)
    (row,) = rows("a dog")
    slots = attack.slots([41, 83], 14)
    candidates = Candidates(attack="x", model=model, words=words, row=row, about=DOG, slots=slots)
    table = model.token_vectors(words.ids[None])[0]
    found = attack.search(candidates, torch.zeros((1, 4, 4, 4)), table, None, generator)
    cosines = torch.cosine_similarity(mean[:, None], table[None], dim=2)
    ranks = cosines.argsort(1).argsort(1)
    for place, token in enumerate(found.ids[:3]):
        assert ranks[place, words.ids.tolist().index(token)] < 0.1 * len(table)
    assert found.ids[3:] == (41, 83)


def test_too_long_a_prompt_loses_its_end():
    slots = UnlearnDiffAtk(tokens=3).slots(list(range(10)), 8)
    assert slots.tokens == (None, None, None, 0, 1, 2, 3, 4)
    assert UnlearnDiffAtk(tokens=2, place="after").slots([7, 8], 8).tokens == (7, 8, None, None)


def test_at_most_so_many_pictures():
    assert UnlearnDiffAtk().budget(50) == 52 + 60  # with the picture of the concept


def test_bad_settings_and_input_are_one_message():
    for wrong in ({"tokens": 0}, {"times": 0}, {"steps": 0}):
        with pytest.raises(InvalidInput, match="at least 1"):
            build(UnlearnDiffAtk, wrong)
    with pytest.raises(InvalidInput, match="above 0"):
        build(UnlearnDiffAtk, {"lr": 0})
    with pytest.raises(InvalidInput, match="at most 500"):
        build(UnlearnDiffAtk, {"times": 501})
    with pytest.raises(InvalidInput, match="at least 0"):
        build(UnlearnDiffAtk, {"weight_decay": -1})
    with pytest.raises(InvalidInput, match="threshold"):
        build(UnlearnDiffAtk, {"threshold": 1.5})
    with pytest.raises(InvalidInput, match="at most 14 tokens"):
        UnlearnDiffAtk(tokens=15).craft(tiny_drawer(), rows("a dog"), seed=0)
    with pytest.raises(NotRegistered, match="scriptd"):
        UnlearnDiffAtk(detector="scriptd").check(DOG)
