from unlearn_core.concept import Concept
from unlearn_techniques.none import NoTechnique


def test_it_returns_its_argument(tiny):
    assert NoTechnique().apply(tiny, [Concept(name="dog")], seed=0) is tiny
