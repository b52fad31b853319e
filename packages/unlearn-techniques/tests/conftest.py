"""Tiny real models, one thread, no network."""

import dataclasses

import pytest
import torch
from hypothesis import settings

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt
from unlearn_techniques.testing import filled, tiny_sd

torch.set_num_threads(1)
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def tiny():
    return tiny_sd()


@pytest.fixture(scope="session")
def fixed(tiny):
    """The tiny model with weights that no version of torch changes, for numbers recorded from official code."""
    return dataclasses.replace(tiny, unet=filled(tiny.unet, 0), text_encoder=filled(tiny.text_encoder, 1))


@pytest.fixture
def dog():
    return Concept(name="dog", anchor="cat", adjacent=("wolf",))


@pytest.fixture
def rows():
    texts = ["a dog", "a cat", "a photo of a car", "blue", "a wolf, sketch style"]
    return [Prompt(id=str(i), text=text, seed=10 + i, group="target") for i, text in enumerate(texts)]
