"""The challenge's five axes on pocket-sd's concepts."""

import itertools
import re

import pytest

import pocket_sd
from pocket_sd.genmu import TARGETS, genmu_prompts
from unlearn_core.errors import InvalidInput

PAIRS = [pair for pair in itertools.combinations([c.name for c in pocket_sd.concepts()][::5], 2)]


@pytest.mark.parametrize("targets", [TARGETS, ("weapon", "sketch"), ("sepia",), *PAIRS])
def test_what_is_kept_is_disjoint_from_what_is_forgotten(targets):
    found = genmu_prompts(targets, images=3, adjacent=4, retained=12)
    assert list(found) == ["fgt", "ret", "adj", "ind", "adv"]
    forgotten = {word for target in targets for word in (target, *pocket_sd.members(target))}
    near = {row.concept for rows in found["adj"].values() for row in rows}
    retained = {row.concept for row in found["ret"][""]}
    assert not near & forgotten and not retained & (forgotten | near)
    for axis, n in (("fgt", 3), ("ind", 3), ("adv", 3), ("adj", 4)):
        assert {target: len(rows) for target, rows in found[axis].items()} == dict.fromkeys(targets, n)
    assert len(found["ret"][""]) == 12
    for target in targets:
        own = {target, *pocket_sd.members(target)}
        for axis in ("fgt", "ind", "adj"):
            for row in found[axis][target]:
                assert not (forgotten - own) & set(re.findall("[a-z]+", row.text))
        assert all(own & set(re.findall("[a-z]+", row.text)) for row in found["fgt"][target])
        assert not any(own & set(re.findall("[a-z]+", row.text)) for row in found["ind"][target])


def test_the_first_rows_of_more_are_the_rows_of_fewer():
    few, more = genmu_prompts(("dog",), images=2, adjacent=2, retained=5), genmu_prompts(("dog",))
    for axis, by_target in few.items():
        for target, rows in by_target.items():
            assert more[axis][target].rows[: len(rows)] == rows.rows
    seeds = [row.seed for row in more["adv"]["dog"]]
    assert len(set(seeds)) == len(seeds) == 8 and len({row.text for row in more["adv"]["dog"]}) == 1


@pytest.mark.parametrize(
    ("targets", "options", "hint"),
    [
        ((), {}, "got none"),
        (("dog", "dog"), {}, "each once"),
        (("dgo",), {}, "did you mean 'dog'?"),
        (("dog", "cat", "wolf", "fox", "bear"), {}, "every neighbour of 'dog'"),
        (("dog",), {"images": 0}, "at least one image"),
    ],
)
def test_bad_input(targets, options, hint):
    with pytest.raises(InvalidInput, match=re.escape(hint)):
        genmu_prompts(targets, **options)
