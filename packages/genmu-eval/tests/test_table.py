"""The table of judgements: there and back, and every way to get it wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval.table import AXES, Judgement, read_table, write_table
from unlearn_core.errors import InvalidInput, Unavailable

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)
rows = st.builds(Judgement, concept=names, axis=st.sampled_from(AXES), image=names, present=st.booleans())


@given(st.lists(rows, min_size=1, max_size=6, unique_by=lambda r: r.key))
def test_there_and_back(tmp_path, rows):
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == tuple(rows)


HEAD = "concept,axis,image,present\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept,axis,img,present\na,fgt,1,1\n", "'image' is not among 'concept', 'axis', 'img'"),
        (HEAD + "a,fgt,1,1\na,forget,2,1\n", "line 3: unknown axis 'forget'"),
        (HEAD + "a,fgt,1,0.5\n", "line 2: present is 1"),
        (HEAD + "a,fgt,1,\n", "line 2: present is 1"),
        (HEAD + "a,fgt, ,1\n", "line 2: the image of a judgement is not blank"),
        (HEAD + "a,fgt,1,1\n\na,fgt,1,0\n", "line 4: 'a fgt 1' was judged already at"),
        (HEAD + "a,fgt,1\n", "line 2: 3 cells under 4 columns"),
        (HEAD, "holds no rows"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_table(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Unavailable):
        read_table(tmp_path / "none.csv")


def test_success_is_absence_or_presence():
    kept = {axis: Judgement(concept="a", axis=axis, image="1", present=True).success for axis in AXES}
    assert kept == {"fgt": False, "ret": True, "adj": True, "ind": False, "adv": False}
    with pytest.raises(InvalidInput):
        Judgement(concept="a", axis="fgt", image="1", present=0.5)
