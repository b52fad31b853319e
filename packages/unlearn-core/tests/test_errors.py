import pickle

import pytest

from unlearn_core.errors import InvalidInput, MissingExtra, NotRegistered, Unavailable, UnlearnError, one_of


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidInput, ValueError),
        (NotRegistered, LookupError),
        (Unavailable, OSError),
        (MissingExtra, ImportError),
    ],
)
def test_every_error_is_ours_and_the_usual_one_and_prints_its_message(kind, builtin):
    error = kind("the disk is full")
    assert isinstance(error, UnlearnError)
    assert isinstance(error, builtin)
    assert str(error) == "the disk is full"
    assert str(pickle.loads(pickle.dumps(error))) == "the disk is full"  # workers send errors home


def test_one_of_names_the_nearest_and_all():
    text = one_of("method", "scrubb", ["scrub", "ascent"])
    assert text == "unknown method 'scrubb'; did you mean 'scrub'? Known: ascent, scrub"


def test_one_of_guesses_nothing_when_nothing_is_near():
    assert one_of("method", "zzz", ["scrub"]) == "unknown method 'zzz'. Known: scrub"
    assert one_of("method", "zzz", []) == "unknown method 'zzz'. Known: none"
