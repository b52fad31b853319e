"""Ties, what breaks them, and the trivial baselines."""

import math
import random

import pytest

from genmu_eval.rank import Entry, difference, rank
from genmu_eval.table import AXES
from genmu_eval.testing import table_of
from unlearn_core.errors import InvalidInput

IMAGES = dict.fromkeys(AXES, 10)
CONCEPTS = "abcdefgh"


def entry(name, rate, change=None):
    """Return a submission with one success rate everywhere."""
    return Entry(name=name, rows=rows(rate), weight_change=change)


def rows(rate, **other):
    return tuple(table_of({c: dict.fromkeys(AXES, rate) | other for c in CONCEPTS}, IMAGES))


BASE = rows(1.0, fgt=0.1, ind=0.2, adv=0.3)


def test_err_decides_where_it_tells_them_apart():
    places = rank([entry("weak", 0.5, 0.0), entry("strong", 0.9, 5.0)], identity=BASE)
    assert [p.entry.name for p in places] == ["strong", "weak", "identity", "noise"]
    assert [p.rank for p in places] == [1, 2, 3, 4]
    assert {p.decided_by for p in places} == {"ERR"} and all(p.lead is None for p in places)
    assert [p.entry.baseline for p in places] == [False, False, True, True]
    assert places[-1].estimate.value == 0


def test_weight_change_decides_within_a_tie_and_only_there():
    a, b = entry("a", 0.9, 3.0), entry("b", 0.9, 1.0)
    # A hair better than a and b, but not beyond the interval.
    lucky = [*rows(0.9)]
    flip = next(i for i, row in enumerate(lucky) if not row.success)
    lucky[flip] = type(lucky[flip])(**{**vars(lucky[flip]), "present": not lucky[flip].present})
    c = Entry(name="c", rows=tuple(lucky), weight_change=2.0)
    places = rank([a, b, c, entry("d", 0.5, 0.1)], identity=BASE)
    assert [p.entry.name for p in places] == ["b", "c", "a", "d", "identity", "noise"]
    assert [p.rank for p in places] == [1, 2, 3, 4, 5, 6]
    assert places[1].lead is None and places[0].lead.low <= 0 <= places[0].lead.high
    assert places[0].decided_by == places[2].decided_by == "weight change within a tie"
    shuffled = [a, b, c, entry("d", 0.5, 0.1)]
    random.Random(1).shuffle(shuffled)
    assert rank(shuffled, identity=BASE) == places


def test_what_nothing_tells_apart_shares_a_rank_and_an_unknown_change_comes_last():
    places = rank([entry("a", 0.9, 1.0), entry("b", 0.9, 1.0), entry("x", 0.9)], identity=BASE)
    assert [(p.entry.name, p.rank) for p in places[:3]] == [("a", 1), ("b", 1), ("x", 3)]
    assert "same weight change" in places[1].decided_by and "not known" in places[2].decided_by


def test_a_submission_that_changes_nothing_does_not_beat_the_identity():
    places = rank([Entry(name="lazy", rows=BASE, weight_change=0.0)], identity=BASE)
    assert {(p.entry.name, p.rank) for p in places} == {("identity", 1), ("lazy", 1), ("noise", 3)}


def test_the_difference_is_paired():
    a, b = entry("a", 0.9), entry("b", 0.8)
    found = difference(a, b)
    assert found.value == pytest.approx(0.1)
    # The successes of b are among those of a, so a is at least as good on every draw.
    assert 0 <= found.low <= found.value <= found.high
    back = difference(b, a)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.01)
    same = difference(a, entry("c", 0.9))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert difference(a, b, by="err_macro").value == pytest.approx(0.1)


def test_the_interval_of_the_difference_is_normal_theorys():
    """One concept, images alone, unpaired by construction: the two succeed on unrelated images."""
    n = {axis: 400 for axis in AXES}
    a = table_of({"a": dict.fromkeys(AXES, 0.5)}, n)
    b = [type(r)(**{**vars(r), "present": r.present if int(r.image) % 2 else not r.present}) for r in a]
    found = difference(Entry(name="a", rows=a), Entry(name="b", rows=b), over="images")
    # Each component is 0.5 with weight (H / a)² / 5 = 0.2 in the mean; the halves of b are independent of a's.
    sd = 0.2 * math.sqrt(5 * 2 * 0.25 / 400)
    assert found.value == pytest.approx(0, abs=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * sd, rel=0.1)


def test_bad_rankings():
    with pytest.raises(InvalidInput, match="at least one submission"):
        rank([], identity=BASE)
    with pytest.raises(InvalidInput, match="two submissions are named 'identity'"):
        rank([entry("identity", 0.5)], identity=BASE)
    with pytest.raises(InvalidInput, match="did you mean 'err_macro'"):
        rank([entry("a", 0.5)], identity=BASE, by="err_micro")
    with pytest.raises(InvalidInput, match="a: the component adv is missing"):
        rank([Entry(name="a", rows=[r for r in BASE if r.axis != "adv"])], identity=BASE)
    with pytest.raises(InvalidInput, match="same images"):
        rank([Entry(name="a", rows=BASE[:-1])], identity=BASE)
    for wrong in ({"name": " "}, {"weight_change": -1.0}, {"weight_change": math.nan}):
        with pytest.raises(InvalidInput):
            Entry(**{"name": "a", "rows": BASE} | wrong)
