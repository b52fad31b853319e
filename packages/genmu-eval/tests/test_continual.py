"""A sequence of three requests worked out by hand."""

import json

import pytest

from genmu_eval.continual import continual, spread
from genmu_eval.testing import judged
from unlearn_core.errors import InvalidInput

ORDER = ("a", "b", "c")


def table(forgotten, retained=4, skip=()):
    """Return the judged images where `forgotten` of 4 direct images of each concept do not show it."""
    rows = judged("tree", "ret", retained, 4)
    for concept, successes in zip(ORDER, forgotten, strict=True):
        rows += judged(concept, "fgt", successes, 4)
        for axis in ("adj", "ind", "adv"):
            rows += judged(concept, axis, 4, 4)
    return [row for row in rows if (row.concept, row.axis) not in skip]


STEPS = [table((4, 0, 2), 4), table((2, 4, 2), 3), table((3, 4, 4), 2)]
BASE = table((0, 0, 2))


def test_the_matrix():
    found = continual(STEPS, ORDER, base=BASE)
    assert found.detection == ((0, 1, 0.5), (0.5, 0, 0.5), (0.25, 0, 0))
    assert found.base == (1, 1, 0.5)
    assert found.errs[0] == (1, None, None)
    assert found.errs[1][0] == pytest.approx(5 / (3 + 2 + 4 / 3)) and found.errs[1][2] is None
    assert [s.components["fgt"].value for s in found.steps] == pytest.approx([1, 0.75, (0.75 + 2) / 3])
    assert found.persistence == {"a": pytest.approx((0.5 + 0.75) / 2), "b": 1}
    assert found.resurgence == {"a": 0.5, "b": 0, "c": 0}
    # c was half lost in the original already; b not at all before its turn.
    assert found.premature_loss == {"b": 0, "c": 0}
    assert continual(STEPS, ORDER).premature_loss == {"b": 0, "c": 0.5}
    assert found.retention_slope == pytest.approx(-0.25)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["err"]["final"] == found.steps[-1].err_pooled.value
    assert document["err"]["min"] == min(s.err_pooled.value for s in found.steps)


def test_several_orders():
    one = continual(STEPS, ORDER)
    other = continual([table((2, 2, 4)), table((2, 4, 4)), table((4, 4, 4))], ("c", "b", "a"))
    found = spread([one, other])
    finals = [run.steps[-1].err_pooled.value for run in (one, other)]
    assert found["final"]["low"] == min(finals) and found["final"]["high"] == max(finals)
    assert found["final"]["sd"] == pytest.approx(abs(finals[0] - finals[1]) / 2**0.5)
    assert spread([one])["final"]["sd"] is None
    for wrong in ([], [one, one]):
        with pytest.raises(InvalidInput, match="different orders"):
            spread(wrong)


def test_one_request():
    found = continual([[row for row in STEPS[0] if row.concept in ("a", "tree")]], ("a",))
    assert (found.persistence, found.premature_loss, found.retention_slope) == ({}, {}, None)


def test_bad_sequences():
    with pytest.raises(InvalidInput, match="3 requests take as many tables"):
        continual(STEPS[:2], ORDER)
    with pytest.raises(InvalidInput, match="names each concept once"):
        continual(STEPS, ("a", "a", "b"))
    with pytest.raises(InvalidInput, match=r"after request 2 \(b\): the component adv is missing for 'b'"):
        continual([STEPS[0], table((2, 4, 2), skip={("b", "adv")}), STEPS[2]], ORDER)
    with pytest.raises(InvalidInput, match="after request 1: no direct prompt .* of 'c'"):
        continual([table((4, 0, 2), skip={("c", "fgt")}), *STEPS[1:]], ORDER)
    with pytest.raises(InvalidInput, match="'c' is a target that the order does not name"):
        continual(STEPS[:2], ORDER[:2])
