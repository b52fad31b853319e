"""What every attack that searches has to do: prompts that are texts, kept on disk, gone on with, and guarded."""

import dataclasses

import pytest

from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.spec import build
from unlearn_metrics.attacks.crafting import Found, cache_folder, refused
from unlearn_metrics.attacks.testing import Colours, Redness, rows, tiny_drawer, tiny_reader
from unlearn_metrics.attacks.vocabulary import is_sexual

SMALL = {
    "ring_a_bell": {"length": 4, "population": 12, "generations": 6},
    "mma_diffusion": {"tokens": 4, "steps": 6, "candidates": 12, "topk": 16, "restarts": 1},
    "p4d": {
        "tokens": 3,
        "steps": 6,
        "look": 2,
        "samples": 1,
        "extractor": "colours",
        "extractor_settings": {},
    },
    "unlearndiffatk": {"tokens": 2, "times": 3, "steps": 2, "detector": "red", "threshold": 1.0},
}
COUNTS = ("generations", "population", "steps", "candidates", "restarts", "samples", "times", "tries")
DOG = Concept(name="dog", phrases=("puppy",))
NUDITY = Concept(name="nudity", kind="unsafe")
ABOUT_NUDITY = Prompt(id="a", text="a car", seed=0, group="target", concept="nudity")

every = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def plugged(plugs, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path))
    plugs["colours"], plugs["red"] = Colours, Redness


@pytest.fixture
def searched(monkeypatch):
    """Return a list that grows with every search."""
    made = []
    for name in SMALL:
        cls = class_of(name)
        monkeypatch.setattr(
            cls, "search", lambda self, *a, search=cls.search: made.append(1) or search(self, *a)
        )
    return made


def class_of(name):
    return registry.load("unlearn.attacks", name)


def attack(name, **settings):
    return build(class_of(name), {**SMALL[name], **settings})


@pytest.mark.parametrize("name", registry.names("unlearn.attacks"))
def test_the_preset_for_pocket_is_no_slower_than_the_published_search(name):
    cls = class_of(name)
    quick, published = build(cls, cls.presets["pocket"]), cls()
    found = [field for field in COUNTS if hasattr(published, field)]
    assert found and all(getattr(quick, field) <= getattr(published, field) for field in found)


@every
def test_a_prompt_is_a_text_and_the_tokens_that_were_found_are_kept(name):
    model = tiny_drawer()
    made = attack(name).craft(model, rows("a car", "a house", "a cat"), seed=0)
    assert len(made) == 3
    for row in made:
        found = made.found[row.id]
        assert row.text == found.text and found.ids
        assert list(found.read) == model.tokenizer([row.text], add_special_tokens=False).input_ids[0]
        assert found.changed == (found.read != found.ids)
    assert made.changed == sum(found.changed for found in made.found.values())


@every
def test_a_killed_run_goes_on_where_it_was(name, searched):
    one, model, prompts, calls = attack(name), tiny_drawer(), rows("a car", "a cat", "a house"), []

    def killed(done, total):
        assert total == 18
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.craft(model, prompts, seed=0, progress=killed)
    assert len(searched) == 3
    resumed = one.craft(model, prompts, seed=0, progress=lambda *call: calls.append(call))
    assert len(searched) == 4 and calls == [(6, 18), (12, 18), *((i, 18) for i in range(13, 19))]
    again = one.craft(model, prompts, seed=0)
    assert len(searched) == 4 and again == resumed and again.found == resumed.found


@every
def test_what_was_found_is_found_again_by_all_that_the_search_depends_on(name, searched):
    """Those that read alone share it between models with one text encoder, and between noises."""

    def searches(model=None, prompts=None, seed=0, settings=None, **also):
        before = len(searched)
        attack(name, **settings or {}).craft(
            model or tiny_drawer(), prompts or rows("a dog"), seed=seed, **also
        )
        return len(searched) - before

    noise = dataclasses.replace(rows("a dog").rows[0], seed=7)
    depends = [
        {},
        {"seed": 1},
        {"concept": DOG},
        {"prompts": rows("a cat")},
        {"settings": {"sensitive": ("q",)}},
    ]
    whole = [{"model": tiny_drawer(1)}, {"prompts": PromptSet(name="other", rows=(noise,))}]
    if getattr(class_of(name), "white_box", False):
        depends, same = [*depends, *whole, {"original": tiny_drawer(1)}], []
    else:
        depends, same = [*depends, {"model": tiny_reader(1)}], [*whole, {"settings": {"batch": 3}}]
    assert [searches(**one) for one in depends] == [1] * len(depends)
    assert not any(searches(**one) for one in [*depends, *same])


@every
def test_a_damaged_file_is_searched_for_again(name):
    made = attack(name).craft(tiny_drawer(), rows("a car"), seed=0)
    (path,) = (cache_folder() / name).iterdir()
    path.write_text(path.read_text()[:40])
    with pytest.warns(UnlearnWarning, match="damaged"):
        assert attack(name).craft(tiny_drawer(), rows("a car"), seed=0) == made


@every
def test_the_guard_stands_behind_the_attack(name, monkeypatch):
    monkeypatch.setattr(
        class_of(name), "search", lambda *a: Found(text="a kid in a car", ids=(1,), read=(1,))
    )
    # Where the row itself does not say so, no set of prompts would refuse what is made of it.
    prompts = PromptSet(name="p", rows=(dataclasses.replace(ABOUT_NUDITY, concept=None),), dropped=2)
    for _ in range(2):  # searched for, and found on disk
        made = attack(name).craft(tiny_drawer(), prompts, seed=0, concept=NUDITY)
        assert len(made) == 0 and made.dropped == 3
    (path,) = (cache_folder() / name).iterdir()
    assert "kid" not in path.read_text()
    path.write_text(path.read_text().replace('"text":""', '"text":"a kid"'))  # kept by a guard of fewer words
    assert len(attack(name).craft(tiny_drawer(), prompts, seed=0, concept=NUDITY)) == 0
    # No harm where the concept is a dog.
    assert len(attack(name).craft(tiny_drawer(), rows("a car"), seed=0)) == 1


@every
def test_a_row_that_is_refused_is_not_searched_for(name, searched):
    prompts = PromptSet(name="p", rows=(dataclasses.replace(ABOUT_NUDITY, text="a kid", concept=None),))
    made = attack(name).craft(tiny_drawer(), prompts, seed=0, concept=NUDITY)
    assert len(made) == 0 and made.dropped == 1 and not searched


def test_what_a_prompt_aims_at_counts_as_said():
    assert refused("a kid", ABOUT_NUDITY, NUDITY) and not refused("a house", ABOUT_NUDITY, NUDITY)
    assert refused("a kid", dataclasses.replace(ABOUT_NUDITY, concept=None), None)


@pytest.mark.parametrize(
    ("about", "sexual"),
    [
        (None, True),
        (DOG, False),
        (NUDITY, True),
        (Concept(name="Nudity"), True),
        (Concept(name="violence", kind="unsafe"), False),
        (Concept(name="unknown", kind="unsafe"), True),
    ],
)
def test_a_concept_is_taken_for_sexual_unless_it_is_known_to_be_none(about, sexual):
    assert is_sexual(about) == sexual


@every
def test_a_row_without_a_concept_is_one_message(name):
    with pytest.raises(InvalidInput, match="states no concept"):
        attack(name).craft(tiny_drawer(), rows("a dog", concept=None), seed=0)
