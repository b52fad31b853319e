"""What white-box attacks share: gradients through the defence, places among tokens, noise, and the budget."""

import copy
import dataclasses

import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_metrics.attacks import drawing
from unlearn_metrics.attacks.drawing import Candidates, Noised, Slots
from unlearn_metrics.attacks.testing import rows, tiny_drawer
from unlearn_metrics.attacks.vocabulary import Vocabulary

DOG = Concept(name="dog", phrases=("puppy",))


def candidates(model, *tokens, avoid="nothing", text="a dog"):
    words = Vocabulary.of(model, DOG, avoid=avoid)
    (row,) = rows(text)
    slots = Slots(tokens=tokens or (None, None, None))
    return Candidates(attack="p4d", model=model, words=words, row=row, about=DOG, slots=slots)


def noised(model, t=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((1, 4, 4, 4), generator=generator)
    return latents, Noised.of(model, latents, t, generator)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_is_added_as_the_schedule_says(kind):
    scheduler = dataclasses.replace(tiny_drawer()).scheduler
    config = type(scheduler.config)(prediction_type=kind)
    model = type(
        "M", (), {"scheduler": type(scheduler)(alphas_cumprod=scheduler.alphas_cumprod, config=config)}
    )
    latents, found = noised(model)
    share = float(scheduler.alphas_cumprod[400])
    truth = found.truth
    if kind == "v_prediction":  # x and v are z and the noise, turned by an angle
        truth = (found.truth + (1 - share) ** 0.5 * latents) / share**0.5
    torch.testing.assert_close(found.x, share**0.5 * latents + (1 - share) ** 0.5 * truth)


def test_the_gradient_is_that_of_finite_differences():
    single = tiny_drawer()
    model = dataclasses.replace(
        single, text_encoder=copy.deepcopy(single.text_encoder).double(),
        query=single.query.double(), answer=single.answer.double(),
    )  # fmt: skip
    found = candidates(model, None, 5, None)
    _, one = noised(model)
    ids, wanted = torch.tensor([9, 30]), torch.zeros((1, 4, 4, 4))
    _, gradient = found.gradient(ids, one, wanted)
    read = found.framed(ids)
    vectors = model.token_vectors(read).detach()

    def loss(moved):
        trajectory = model.trajectory([""], embeddings=model.encode_vectors(read, moved))
        return model.noise(one.x, one.t, trajectory, guidance_scale=1.0).square().mean().item()

    assert gradient.shape == (2, 32)
    for place, position in ((0, 1), (1, 3)):
        for i in range(3):
            step = torch.zeros_like(vectors)
            step[0, position] = torch.randn(32, generator=torch.Generator().manual_seed(i)) * 1e-5
            expected = loss(vectors + step) - loss(vectors - step)
            assert 2 * gradient[place].double() @ step[0, position] == pytest.approx(expected, rel=1e-2)


def test_gradients_go_through_the_defence():
    ids, wanted = torch.tensor([9, 30, 12]), torch.zeros((1, 4, 4, 4))
    plain = tiny_drawer()
    blind = tiny_drawer(hooks=(lambda states: states * 0 + 0.1,))
    weak = tiny_drawer(hooks=(lambda states: states * 0.5,))
    _, one = noised(plain)
    found = {m: candidates(m).gradient(ids, one, wanted) for m in (plain, blind, weak)}
    assert found[plain][1].abs().sum() > 0 and found[weak][1].abs().sum() > 0
    assert found[blind][1].abs().sum() == 0  # what a defence takes away no gradient brings back
    assert not torch.allclose(found[weak][1], found[plain][1])


def test_the_same_model_and_prompt_have_no_loss():
    model = tiny_drawer()
    ids = drawing.prompt_ids(model, "a blue dog")
    found = candidates(model, *[None] * len(ids))
    _, one = noised(model)
    wanted = one.seen_by(model, "a blue dog", model.encode(["a blue dog"]))
    loss, gradient = found.gradient(torch.tensor(ids), one, wanted)
    assert loss == 0 and gradient.abs().max() == 0
    assert found.text(torch.tensor(ids)) == "a blue dog"


def test_tokens_stand_in_their_places():
    slots = Slots(tokens=(None, 7, 8, None))
    assert slots.count == 2
    assert slots.filled(torch.tensor([1, 2])).tolist() == [1, 7, 8, 2]
    assert slots.at_places(torch.arange(12)).tolist() == [1, 4]


def test_only_what_is_new_is_forbidden():
    model = tiny_drawer()
    ids = drawing.prompt_ids(model, "a dog")
    found = candidates(model, None, *ids, avoid="words")
    assert found.allowed("blue a dog") and found.allowed("dog")
    assert not found.allowed("puppy a dog") and not found.allowed("dog a dog") and not found.allowed("")


def test_the_latents_are_those_of_a_picture_in_minus_one_to_one():
    model = tiny_drawer()
    white = torch.full((8, 8, 3), 255, dtype=torch.uint8).numpy()
    assert (drawing.latents_of(model, white) == 2).all()  # the toy's scaling factor
    assert (drawing.latents_of(model, white * 0) == -2).all()


def test_a_budget_in_pictures():
    # 51 pictures, and 2000 gradients of three predictions each, at 50 steps with guidance
    assert drawing.budget(predictions=6000, pictures=51, steps=50) == 51 + 60
