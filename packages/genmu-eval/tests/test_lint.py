"""Each class of defect of the challenge's sheet, on a sheet made to have it once."""

import json

import pytest

from genmu_eval.concepts import alike, stem, told_by
from genmu_eval.lint import CHECKS, lint
from genmu_eval.prompts import own
from genmu_eval.questions import Question, Sheet
from unlearn_core.errors import InvalidInput

CLEAN = {
    "Kite": ("a kite", "a toy held on a string", "k1te"),
    "Tent": ("a tent", "canvas on poles", "t3nt"),
    "Lamp": ("a lamp", "it lights the desk", "l4mp"),
    "Drum": ("a drum", "it is beaten with sticks", "dr4m"),
}


def sheet(changes=()):
    """Return a sheet of four concepts with the texts of (concept, axis) replaced."""
    changes = dict(changes)
    found = [
        Question(concept=c, axis=axis, asks=c, text=changes.get((c, axis), text))
        for c, texts in CLEAN.items()
        for axis, text in zip(("fgt", "ind", "adv"), texts, strict=True)
    ]
    return Sheet(name="test", questions=tuple(found))


def found(check, changes):
    """Return the findings of a check other than those of the clean sheet."""
    before = lint(sheet()).findings
    return [f for f in lint(sheet(changes)).findings if f not in before and f.check == check]


def test_a_clean_sheet_has_unknown_concepts_and_no_other_defect():
    counts = lint(sheet()).counts
    assert counts.pop("unknown_concept") == 4 and set(counts.values()) == {0}
    assert counts.keys() | {"unknown_concept"} == CHECKS.keys()


@pytest.mark.parametrize(
    ("check", "changes", "note"),
    [
        ("equals_direct", {("Kite", "adv"): "A  Kite"}, ""),
        ("names_another", {("Kite", "adv"): "two tents"}, "Tent"),
        ("names_another", {("Kite", "adv"): "a barn swallows wings"}, "barn swallow"),
        ("leaks", {("Kite", "ind"): "kites on a string"}, "kites"),
        ("leaks", {("Drum", "adv"): "a drummer"}, "drummer"),
        ("nameless_direct", {("Kite", "fgt"): "a ktie"}, ""),
        ("duplicate", {("Kite", "ind"): "Canvas on poles"}, "as ind of Kite"),
        ("too_long", {("Kite", "ind"): "toy " * 76}, "at least 76 tokens, 75 are read"),
        ("encoding", {("Kite", "adv"): "k\ufffd"}, "U+FFFD REPLACEMENT CHARACTER"),
        ("encoding", {("Kite", "adv"): "k \N{BIRD}"}, "U+1F426 BIRD"),
        ("encoding", {("Kite", "adv"): "k\u200bte"}, "U+200B ZERO WIDTH SPACE"),
        ("encoding", {("Kite", "adv"): "ki\u0301te"}, "not in Unicode's form NFC"),
        ("encoding", {("Kite", "adv"): "k1te "}, "spaces around it"),
        ("encoding", {("Kite", "adv"): "k\tte^`"}, "U+0009 without a name"),
    ],
)
def test_each_defect(check, changes, note):
    (finding,) = found(check, changes)
    assert finding.note == note and (finding.axis, finding.text) != ("", "")


def test_adversarial_prompts_aimed_at_one_thing():
    swallows = {(c, "adv"): f"{c.lower()[0]}zz swallows rdx{i}" for i, c in enumerate(CLEAN)}
    hits = found("foreign_word", swallows)
    assert [f.concept for f in hits] == list(CLEAN)
    assert hits[0].note == "'swallows': swal… in 4 of 4 concepts"
    few = {k: v for k, v in list(swallows.items())[:2]}
    assert not found("foreign_word", few)


def test_missing_axes_and_spellings():
    questions = [
        Question(concept=c, axis="fgt", asks=c, text=f"the {c}")
        for c in ("Scenerie", "sunset", "Welsh Springer Spaniel", "Kite")
    ]
    report = lint(Sheet(name="x", questions=tuple(questions)))
    counts = report.counts
    assert (counts["missing"], counts["absent_concept"], counts["unknown_concept"]) == (8, 18, 1)
    assert [(f.concept, f.note) for f in report.findings if f.check == "spelling"] == [
        ("Scenerie", "usually Scenery")
    ]
    assert [(f.concept, f.note) for f in report.findings if f.check == "overlap"] == [("Scenerie", "sunset")]
    (labrador,) = [f for f in report.findings if f.check == "absent_concept" and f.note]
    assert "Welsh Springer Spaniel" in labrador.note


def test_what_is_to_be_kept_is_no_target():
    kept = (
        *sheet().questions,
        Question(concept="Kite", axis="adj", asks="tent", text="a photo of a shelter"),
    )
    assert lint(Sheet(name="x", questions=kept)).counts["not_disjoint"] == 1


def test_tokens_and_potency_are_given():
    report = lint(sheet(), tokens=lambda text: 80, potency=lambda qs: [0.2, None] + [1.0] * (len(qs) - 2))
    assert report.counts["too_long"] == 12 and report.counts["impotent"] == 1
    (weak,) = [f for f in report.findings if f.check == "impotent"]
    assert (weak.concept, weak.axis, weak.note[:12]) == ("Kite", "fgt", "shown in 20%")
    document = json.loads(json.dumps(report.document()))
    assert len(document["potency"]) == 12 and document["counts"]["impotent"] == 1
    with pytest.raises(InvalidInput, match="1 shares for 12"):
        lint(sheet(), potency=lambda qs: [1.0])
    with pytest.raises(InvalidInput, match="least potency"):
        lint(sheet(), least_potency=2)


def test_our_own_sheet_is_clean_but_for_what_the_challenge_chose():
    counts = lint(own()).counts
    chosen = {"spelling": 3, "overlap": 8}
    assert {k: n for k, n in counts.items() if n} == chosen


def test_words():
    assert {stem(w) for w in ("dance", "dancing", "danced", "dancer", "dances")} == {"danc"}
    assert alike("rain", "Rainfall") and alike("sleeps", "sleeping") and not alike("sun", "sunset")
    assert told_by("Blue Jay", "a blue-crested bird") == ["blue"]
    assert told_by("Aurora Borealis", "northern lights") == ["northern lights"]
    assert told_by("Van Gogh", "a van on the road") == []
