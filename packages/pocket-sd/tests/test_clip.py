import numpy as np
import pytest
import torch
from PIL import Image

import pocket_sd
from pocket_sd.words import OBJECTS, STYLES, caption


@pytest.fixture(scope="module")
def clip():
    return pocket_sd.clip()


@pytest.fixture(scope="module")
def embeddings(clip, cells, drawn):
    """(pictures, their captions), each (80, 96), normalised."""
    model, transform, tokenizer = clip
    with torch.no_grad():
        images = model.encode_image(
            torch.stack([transform(Image.fromarray(x)) for x in drawn]), normalize=True
        )
        texts = model.encode_text(tokenizer([caption(*cell) for cell in cells]), normalize=True)
    return images, texts


def test_its_text_tower_is_the_pipelines_text_encoder(clip, pipe):
    model, _, tokenizer = clip
    texts = ["a dog, sketch style", "", "an animal that purrs on a blue background"]
    ids = tokenizer(texts)
    ours = pipe.tokenizer(texts, padding="max_length", max_length=ids.shape[1], return_tensors="pt").input_ids
    assert torch.equal(ids, ours)
    with torch.no_grad():
        pooled = pipe.text_encoder(ids).pooler_output @ model.text_projection
        torch.testing.assert_close(pooled, model.encode_text(ids), atol=1e-4, rtol=1e-4)


def test_a_picture_is_nearest_to_its_caption(embeddings):
    images, texts = embeddings
    right = (images * texts).sum(1)
    wrong = (images * texts.roll(2, 0)).sum(1)
    assert (right > wrong).float().mean() >= 0.95
    assert right.mean() > wrong.mean() + 0.3


def test_zero_shot_objects(clip, cells, embeddings):
    model, _, tokenizer = clip
    with torch.no_grad():
        names = model.encode_text(tokenizer([caption(name) for name in OBJECTS]), normalize=True)
    found = (embeddings[0] @ names.T).argmax(1)
    assert np.mean([OBJECTS[i] == name for i, (name, _, _) in zip(found, cells, strict=True)]) >= 0.75


def test_synonyms_are_near_and_strangers_far(clip):
    model, _, tokenizer = clip
    with torch.no_grad():
        dog, puppy, hound, car = model.encode_text(
            tokenizer(["a dog", "a puppy", "a hound", "a car"]), normalize=True
        )
    assert dog @ puppy > dog @ hound > dog @ car


def test_styles_are_read(clip):
    model, _, tokenizer = clip
    with torch.no_grad():
        found = model.encode_text(tokenizer([caption("dog", s) for s in STYLES]), normalize=True)
    assert (found @ found.T - torch.eye(len(STYLES))).max() < 0.95
