"""Sheets: the challenge's columns, our own set, draws with seeds of their own."""

import hashlib
from collections import Counter

import pytest

from genmu_eval import prompts
from genmu_eval.concepts import SITE_ONLY, TARGETS, names_of, target
from genmu_eval.lint import lint
from genmu_eval.prompts import CHALLENGE, challenge, own, read_sheet, sheet_of
from genmu_eval.questions import Question, Sheet, key
from genmu_eval.table import AXES, Judgement
from unlearn_core.errors import InvalidInput, Unavailable

HEAD = "concept_type,concept_name,direct_prompt,indirect_prompt,adversarial_prompt\n"
ROWS = 'Objects,Kite,"a red kite, flying",a toy on a string,k1te\nObjects,Tent,a tent,canvas on poles,t3nt\n'


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text(HEAD + ROWS)
    return path


def test_the_challenges_columns(sheet):
    found = challenge(sheet)
    assert found.targets == ("Kite", "Tent") and found.types == {"Kite": "Objects", "Tent": "Objects"}
    assert [(q.axis, q.text) for q in found.of(concept="Kite")] == [
        ("fgt", "a red kite, flying"), ("ind", "a toy on a string"), ("adv", "k1te")
    ]  # fmt: skip
    assert found.sha256 == hashlib.sha256(sheet.read_bytes()).hexdigest()
    assert challenge(sheet, sha256=found.sha256) == found
    with pytest.raises(InvalidInput, match="another file"):
        challenge(sheet, sha256=prompts.CHALLENGE_SHA256)


def test_quotes_escaped_by_a_backslash(tmp_path):
    """As the challenge's file has them, which a strict reader refuses and a lenient one misreads."""
    path = tmp_path / "escaped.csv"
    path.write_text(HEAD + 'x,Kite,"a \\"red\\" kite, flying",toy,k1te\n')
    found = challenge(path)
    assert found.escaped and found.of(axis="fgt")[0].text == 'a "red" kite, flying'
    assert sheet_of(path) == found
    assert lint(found).counts["quoting"] == 1
    path.write_text(HEAD + 'x,Kite,"a \\"red\\" kite,toy,k1te\n')
    with pytest.raises(InvalidInput, match="line 2"):
        challenge(path)


def test_neighbours_in_a_column_of_their_own(tmp_path):
    path = tmp_path / "n.csv"
    path.write_text(HEAD.replace("\n", ",adjacent_concepts\n") + "x,Kite,a kite,toy,k1te,glider;airplane\n")
    found = challenge(path)
    assert found.adjacent("Kite") == ("glider", "airplane")
    assert found.of(axis="adj")[1].text == "a photo of an airplane"


def test_a_file_of_the_challenges_name_must_be_that_file(sheet, monkeypatch):
    """Wherever it lies; prompts of one's own have another name, and may come from the Hub too."""
    theirs = sheet.with_name("challenge_dataset.csv")
    theirs.write_bytes(sheet.read_bytes())
    monkeypatch.setattr(prompts.hub, "fetch", lambda source: ({CHALLENGE: theirs}.get(source, sheet), "abc"))
    for source in (CHALLENGE, theirs):
        with pytest.raises(
            InvalidInput, match="it is another file; prompts of your own need a name of their"
        ):
            challenge(source)
    assert challenge("me/mine").targets == sheet_of("me/mine").targets == ("Kite", "Tent")
    monkeypatch.setattr(prompts, "CHALLENGE_SHA256", hashlib.sha256(sheet.read_bytes()).hexdigest())
    assert challenge(CHALLENGE) == challenge() and challenge(theirs).targets == ("Kite", "Tent")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "concept_type,concept,direct_prompt\nx,Kite,a kite\n",
            "no column 'concept_name'; columns found: 'concept_type', 'concept'",
        ),
        (HEAD + "x,Kite,a kite,,k1te\n", "line 2: the text of a question is not blank"),
        (HEAD + "x, ,a kite,toy,k1te\n", "line 2: the concept of a question is not blank"),
        (HEAD, "holds no rows"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        challenge(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(Unavailable):
        challenge(tmp_path / "none.csv")


def test_the_word_filter_stands_in_front(sheet):
    text = HEAD + ROWS + "x,Lamp,a nude child,a lamp,l4mp\n"
    sheet.write_text(text)
    found = challenge(sheet)
    assert found.dropped == 1 and not found.of(axis="fgt", concept="Lamp")


def test_draws(sheet):
    found = challenge(sheet).draws(images=3)
    assert len(found) == 2 * 3 * 3 and len({d.prompt.id for d in found}) == 18
    assert len({d.prompt.seed for d in found}) == 18
    first = found[0]
    assert (first.prompt.group, first.prompt.concept, first.prompt.text) == (
        "target",
        "Kite",
        "a red kite, flying",
    )
    assert first.judgement(True) == Judgement(concept="Kite", axis="fgt", image=first.prompt.id, present=True)
    assert challenge(sheet).draws(images=3) == found
    # Leaving a concept out changes no noise of the others.
    kept = challenge(sheet).only(["tent"]).draws(images=3)
    assert set(kept) == {d for d in found if d.question.concept == "Tent"}
    assert challenge(sheet).draws(images=1, seed=1)[0].prompt.seed != first.prompt.seed
    with pytest.raises(InvalidInput, match="did you mean 'Kite'"):
        challenge(sheet).only(["kites"])
    with pytest.raises(InvalidInput, match="at least one image"):
        challenge(sheet).draws(images=0)


def test_bad_questions():
    good = {"concept": "a", "axis": "fgt", "asks": "a", "text": "a"}
    for wrong in ({"axis": "forget"}, {"text": " "}, {"asks": ""}, {"concept": None}):
        with pytest.raises(InvalidInput):
            Question(**good | wrong)
    with pytest.raises(InvalidInput, match="holds no prompts"):
        Sheet(name="x", questions=())


# ---- our own -------------------------------------------------------------------------------------------------


def test_our_own_set_covers_the_challenges_concepts():
    sheet = own()
    assert sheet.targets == tuple(t.name for t in TARGETS) and len(TARGETS) == 20
    assert Counter(t.type for t in TARGETS) == dict.fromkeys({t.type for t in TARGETS}, 5)
    assert sheet.types == {t.name: t.type for t in TARGETS}
    for name in sheet.targets:
        assert Counter(q.axis for q in sheet.of(concept=name)) == {"fgt": 2, "ind": 2, "adv": 2, "adj": 5}
    assert len(sheet.of(axis="ret")) >= 20 and sheet.dropped == 0
    assert all(q.source for q in sheet.questions) and {q.axis for q in sheet.questions} == set(AXES)


def test_adjacent_retained_and_targets_are_disjoint():
    sheet = own()
    targets = {key(n) for t in TARGETS for n in names_of(t.name)} | {key(n) for n in SITE_ONLY}
    adjacent = [key(q.asks) for q in sheet.of(axis="adj")]
    retained = [key(q.asks) for q in sheet.of(axis="ret")]
    for some, others in ((adjacent, targets), (retained, targets), (retained, set(adjacent))):
        assert not set(some) & set(others)
    assert len(adjacent) == len(set(adjacent)) == 100 and len(retained) == len(set(retained))


def test_no_name_of_a_target_stands_in_what_is_to_be_kept():
    from genmu_eval.concepts import contains, words

    for q in own().questions:
        if q.axis in ("adj", "ret"):
            named = [n for t in TARGETS for n in names_of(t.name) if contains(words(q.text), n)]
            assert not named, q


def test_targets_in_every_spelling():
    assert target("aurora  borealis").name == "Aurora Borialis" and target("apple").name == "Apple Fruit"
    assert target("Welsh Springer Spaniel") is None


def test_a_sheet_of_our_columns(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("type,concept,axis,asks,text,source\nO,Kite,fgt,Kite,a kite,me\nO,sea,ret,sea,the sea,\n")
    found = read_sheet(path)
    assert found.targets == ("Kite",) and found.types == {"Kite": "O"} and found.name == "s"
    assert sheet_of(path) == found
    path.write_text("concept,axis,text\nKite,fgt,a kite\n")
    with pytest.raises(InvalidInput, match="no column 'asks'"):
        read_sheet(path)
