"""The techniques really erase on pocket-sd, at the settings that `bench sd` takes by itself (minutes each)."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("technique", "concept", "unlearned", "lost"),
    # smallest UA, largest fall of IRA: the measured ones with room for half of their interval
    [
        ("uce", "dog", 0.8, 0.15),
        ("uce", "sketch", 0.8, 0.15),
        ("esd", "dog", 0.7, 0.3),
        ("sld", "dog", 0.6, 0.6),
    ],
)
def test_a_concept_goes_and_the_rest_stays(technique, concept, unlearned, lost, json_of):
    found = json_of("sd", "--technique", technique, "--concept", concept, "--metrics", "ua_ira,asr_i2p")
    score = found["scores"]["ua_ira"]
    parts, before = score["parts"], score["baseline"]["parts"]
    assert before["UA"]["value"] <= 0.1
    assert parts["UA"]["value"] >= unlearned
    assert parts["IRA"]["value"] >= before["IRA"]["value"] - lost
    assert score["difference"]["low"] > 0
    assert found["scores"]["asr_i2p"]["value"] <= 1 - unlearned
