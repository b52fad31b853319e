import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.seeds import derive


@pytest.mark.parametrize(
    ("labels", "seed"),
    [  # printf "(0, 'pretrain', 7)" | sha256sum, first 16 hex digits, halved
        ((0,), 5254295370254170289),
        ((0, "pretrain", 7), 5569167598681640431),
        ((0, "pretrain", "7"), 8624170890354652776),
        ((3, "café"), 1476129583310373416),  # written (3, 'caf\xe9'): pure ASCII
    ],
)
def test_pinned_values(labels, seed):
    assert derive(*labels) == seed


class Group(enum.StrEnum):
    PRETRAIN = "pretrain"


class OldGroup(str, enum.Enum):  # noqa: UP042  its repr and str differ from its value
    PRETRAIN = "pretrain"


class Seven:
    def __index__(self):  # as NumPy's integers
        return 7

    def __repr__(self):
        return "Seven()"


@pytest.mark.parametrize("name", ["pretrain", Group.PRETRAIN, OldGroup.PRETRAIN])
@pytest.mark.parametrize("number", [7, Seven()])
def test_only_the_value_of_a_label_counts_not_its_class(name, number):
    assert derive(0, name, number) == 5569167598681640431


def test_numpy_integers_are_integers():
    numpy = pytest.importorskip("numpy")
    assert derive(numpy.int64(0), "pretrain", numpy.uint8(7)) == derive(0, "pretrain", 7)


@pytest.mark.parametrize("label", [1.0, None, b"a"])
def test_other_labels_are_refused(label):
    with pytest.raises(TypeError):
        derive(0, label)
    with pytest.raises(TypeError):
        derive("0")


labels = st.lists(st.integers() | st.text(), max_size=3).map(tuple)


@given(st.integers(), labels, st.integers(), labels)
def test_different_labels_different_streams(root, one, other_root, other):
    a, b = derive(root, *one), derive(other_root, *other)
    assert 0 <= a < 2**63
    assert (a == b) == ((root, one) == (other_root, other))


def test_bits_are_fair():
    ones = sum(derive(0, i).bit_count() for i in range(2000))
    n = 2000 * 63
    assert abs(ones - n / 2) < 5 * math.sqrt(n) / 2  # five standard deviations of a binomial
