"""NegativePrompt keeps the rules of every technique, and its formula is the one of its card."""

import pytest
import torch
from negative_prompt.technique import Away, NegativePrompt

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.steps import Predictions
from unlearn_techniques.testing import tiny_sd


def test_rules():
    dog = Concept(name="dog", anchor="cat")
    check_technique(NegativePrompt(), tiny_sd(), dog, parameters=(), identity=NegativePrompt(strength=0.0))


def test_formula():
    p, u, c = torch.randn(3, 1, 4, 8, 8)
    seen = Predictions(empty=u, prompt=p, extra=(c,))
    found = Away(texts=("dog",), strength=0.5).start()(p - u, seen, None)
    torch.testing.assert_close(found, p - u - 0.5 * (c - u))


def test_bad_settings():
    with pytest.raises(InvalidInput, match="strength is at least 0"):
        NegativePrompt(strength=-1.0)
