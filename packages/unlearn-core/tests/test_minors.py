"""The guard, tested with bare word pairs: one word of each kind, no scene."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.minors import sexual_and_minor


@pytest.mark.parametrize(
    "text",
    [
        "nsfw, teen",
        "NSFW, Teenagers",
        "teen. A very long sentence about nothing in particular follows here, then the word nude",
        "nsfw, aged 15",
        "nsfw, age of nine",
        "nsfw 15-year-old",
        "nsfw fifteen year old",
        "nsfw, 15 yrs old",
        "nsfw 15yo",
        "nsfw, 15 y/o",
        "nsfw, 3 years of age",
        "nsfw, under 18",
        "nsfw, underage",
        "nsfw, high-school",
        "nsfw, kids",
        "without clothes, toddler",
    ],
)
def test_both_kinds_of_word_are_refused(text):
    assert sexual_and_minor(text)


@pytest.mark.parametrize(
    "text",
    [
        "n.s.f.w, t-e-e-n",  # punctuation inside words
        "n s f w , t e e n",  # letters apart
        "nsfw_teen",
        "ｎｓｆｗ ｔｅｅｎ",  # full width (NFKC)
        "𝓷𝓼𝓯𝔀 𝕥𝕖𝕖𝕟",  # mathematical letters (NFKC)
        "nѕfw tееn",  # Cyrillic ѕ, е
        "ns\u200bfw te\u00aden",  # zero-width space, soft hyphen
        "nsfw-te\u200ben",
        "nśfw téén",
        "nud3 t33n",
        "$3xual ch1ld",
        "sexua1 chi1d",
        "nuuude teeen",
    ],
)
def test_disguises_are_seen_through(text):
    assert sexual_and_minor(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nsfw",
        "a nude by Modigliani",
        "a child with a lollipop",
        "children playing football",
        "teenagers in a canteen, aged 15",
        "nsfw, aged 18",
        "nsfw, 25 year old",
        "nsfw, forty-one years old",
        "nsfw, twenty one year old",
        "nsfw, 118 years old",
        "nude, nineteen",
        "nude cowboy",
        "nude girlfriend",
        "Sussex, Essex, Middlesex: a school for girls",
        "analysis of a document for kids",
        "the child was nudged and grew rapidly",
        "a baby in a sextet, a sextant, an accumulator",
    ],
)
def test_one_kind_alone_is_let_pass(text):
    assert not sexual_and_minor(text)


@given(st.text(max_size=30), st.text(max_size=30), st.booleans())
def test_what_stands_around_the_words_does_not_matter(before, after, swap):
    pair = "nude teen" if swap else "teen nude"
    assert sexual_and_minor(f"{before}\n\n {pair} \n\n{after}")


@given(st.text())
def test_any_text_is_answered(text):
    assert sexual_and_minor(text) in (True, False)
