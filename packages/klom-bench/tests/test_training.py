"""The pieces of a training: orders, losses, clipping, noise, schedule, each kept apart per model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from klom_bench.ensemble import initialise, per_model
from klom_bench.mlp import MLP
from klom_bench.resnet9 import ResNet9
from klom_bench.split import Split
from klom_bench.training import (
    SGD,
    add_gradient_noise,
    backward,
    clip_gradients,
    cross_entropy,
    last,
    outputs,
    shuffled,
    snapshot,
    step,
    streams,
    student_of,
    teacher_of,
    triangle,
)
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive


@pytest.fixture
def model():
    return initialise(MLP(3, sizes=(6, 8, 4)), [0, 1, 2])


def batch_of(split, size, m=3):
    return torch.stack(
        [
            torch.randperm(len(split.images), generator=torch.Generator().manual_seed(i))[:size]
            for i in range(m)
        ]
    )


# ---- randomness ---------------------------------------------------------------------------------------------


def test_a_stream_belongs_to_seed_purpose_and_id(model):
    def first(*arguments):
        return [torch.rand(1, generator=g).item() for g in streams(model, *arguments)]

    assert first(0, "order", None) == first(0, "order", [0, 1, 2])
    assert first(0, "order", [2, 7, 0])[0] == first(0, "order", [1, 0, 2])[2]
    assert (
        len({*first(0, "order", [0, 1, 2]), *first(1, "order", [0, 1, 2]), *first(0, "noise", [0, 1, 2])})
        == 9
    )
    generator = torch.Generator().manual_seed(derive(5, "order", 7))
    assert first(5, "order", [7, 8, 9])[0] == torch.rand(1, generator=generator).item()


def test_one_id_per_model(model):
    with pytest.raises(InvalidInput, match="2 ids for an ensemble of 3 models"):
        streams(model, 0, "order", [0, 1])


def test_an_epoch_is_one_pass_in_an_order_per_model(model):
    indices = torch.tensor([3, 1, 4, 15, 9, 2, 6])
    randomness = streams(model, 0, "order", None)
    batches = list(shuffled(indices, 3, randomness))
    assert [tuple(b.shape) for b in batches] == [(3, 3), (3, 3), (3, 1)]
    epoch = torch.cat(batches, dim=1)
    assert all(sorted(row) == sorted(indices.tolist()) for row in epoch.tolist())
    following = torch.cat(list(shuffled(indices, 3, randomness)), dim=1)
    orders = [tuple(row) for row in [*epoch.tolist(), *following.tolist()]]
    assert len(set(orders)) == 6 and tuple(indices.tolist()) not in orders
    again = torch.cat(list(shuffled(indices, 7, streams(model, 0, "order", None))), dim=1)
    assert torch.equal(again, epoch)  # the size of batches does not enter
    for m in range(3):  # nor does the company
        alone = torch.cat(list(shuffled(indices, 3, streams(model, 0, "order", None)[m : m + 1])), dim=1)
        assert torch.equal(alone[0], epoch[m])


# ---- losses and steps ---------------------------------------------------------------------------------------


def test_cross_entropy_is_the_mean_of_each_model_on_its_own_batch(model, vectors):
    batch = batch_of(vectors, 5)
    losses = cross_entropy(model, vectors, batch)
    z = outputs(model, vectors, batch)
    assert losses.shape == (3,) and z.shape == (3, 5, 4)
    for m in range(3):
        expected = F.cross_entropy(z[m], vectors.labels[batch[m]])
        torch.testing.assert_close(losses[m], expected)
        torch.testing.assert_close(z[m], model(vectors.images[batch])[m])
    single = nn.Sequential(nn.Linear(6, 4))
    torch.testing.assert_close(
        cross_entropy(single, vectors, batch[:1])[0],
        F.cross_entropy(single(vectors.images[batch[0]]), vectors.labels[batch[0]]),
    )


def test_a_step_goes_down_every_loss_at_its_own_rate(model, vectors):
    before = copy.deepcopy(model)
    batch = batch_of(vectors, 8)
    step(SGD(model, 0.5), cross_entropy(model, vectors, batch))
    for m in range(3):
        loss = cross_entropy(before, vectors, batch)[m]
        gradients = torch.autograd.grad(loss, list(before.parameters()))
        for p, old, g in zip(model.parameters(), before.parameters(), gradients, strict=True):
            torch.testing.assert_close(per_model(p, 3)[m], per_model(old - 0.5 * g, 3)[m])


def test_a_step_forgets_the_gradient_before_and_takes_the_rate_it_is_given(model, vectors):
    start = copy.deepcopy(model.state_dict())
    batch = batch_of(vectors, 8)
    moved = []
    for lr in (None, 0.05):
        model.load_state_dict(start)
        optimizer = SGD(model, 0.1)
        backward(optimizer, 7 * cross_entropy(model, vectors, batch))  # left behind
        step(optimizer, cross_entropy(model, vectors, batch), lr=lr)
        moved.append(start["0.weight"] - model.state_dict()["0.weight"])
    torch.testing.assert_close(moved[0], 2 * moved[1], atol=1e-7, rtol=1e-4)


def test_sgd_is_torchs(vectors):
    """Fused or not, three steps with momentum and weight decay on every parameter."""
    ours = initialise(MLP(sizes=(6, 8, 4)), [0])
    theirs = copy.deepcopy(ours)
    batch = batch_of(vectors, 8, 1)
    mine, plain = SGD(ours, 0.1, 0.9, 0.01), torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01)
    for _ in range(3):
        step(mine, cross_entropy(ours, vectors, batch))
        plain.zero_grad()
        F.cross_entropy(theirs(vectors.images[batch[0]]), vectors.labels[batch[0]]).backward()
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


# ---- clipping and noise -------------------------------------------------------------------------------------


def gradients_of(model, m, n):
    return [per_model(p.grad, n)[m].clone() for p in model.parameters()]


@pytest.mark.parametrize("max_norm", [1e-3, 0.3, 1.0, 1e3])
def test_each_model_is_clipped_as_if_alone(model, vectors, max_norm):
    batch = batch_of(vectors, 8)
    losses = cross_entropy(model, vectors, batch) * torch.tensor([0.01, 1.0, 100.0])
    backward(SGD(model, 0.1), losses)
    expected = []
    for m in range(3):
        parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients_of(model, m, 3)]
        for p, g in zip(parameters, gradients_of(model, m, 3), strict=True):
            p.grad = g
        nn.utils.clip_grad_norm_(parameters, max_norm)
        expected.append([p.grad for p in parameters])
    clip_gradients(model, max_norm)
    for m in range(3):
        for got, want in zip(gradients_of(model, m, 3), expected[m], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-9)  # torch adds 1e-6 to the norm
        norm = torch.cat(gradients_of(model, m, 3)).norm().item()
        assert norm <= max_norm * 1.0001


def test_a_vanishing_gradient_is_not_blown_up(model):
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    clip_gradients(model, 1.0)
    assert all((p.grad == 0).all() for p in model.parameters())


def test_noise_has_the_given_spread_and_is_independent(model):
    big = MLP(3, sizes=(100, 100, 10))
    for p in big.parameters():
        p.grad = torch.full_like(p, 5.0)
    add_gradient_noise(big, 0.02, streams(big, 0, "noise", None))
    noise = torch.stack([torch.cat(gradients_of(big, m, 3)) for m in range(3)]) - 5
    assert noise.shape == (3, 100 * 100 + 100 + 100 * 10 + 10)
    assert noise.std(1).tolist() == pytest.approx([0.02] * 3, rel=0.03)
    assert noise.mean(1).tolist() == pytest.approx([0] * 3, abs=0.02 * 4 / 11_110**0.5)
    kurtosis = ((noise / 0.02) ** 4).mean().item()
    assert kurtosis == pytest.approx(3, abs=0.2)  # normal, not uniform
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05
    for p in big.parameters():  # every parameter has noise of its own
        assert len(torch.unique(per_model(p.grad, 3)[0])) > 0.9 * p.numel() / 3


def test_noise_follows_the_stream_and_goes_on_with_it(model):
    def noise(ids, times):
        randomness = streams(model, 3, "noise", ids)
        for _ in range(times):
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            add_gradient_noise(model, 1.0, randomness)
        return torch.stack([torch.cat(gradients_of(model, m, 3)) for m in range(3)])

    torch.testing.assert_close(noise([4, 5, 6], 1), noise([4, 5, 6], 1))
    torch.testing.assert_close(noise([4, 5, 6], 1)[2], noise([6, 5, 4], 1)[0])
    assert not torch.isclose(noise([4, 5, 6], 1), noise([4, 5, 6], 2)).any()


def test_a_parameter_without_a_gradient_is_left_out(vectors):
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    backward(SGD(model, 0.1), cross_entropy(model, vectors, batch_of(vectors, 5, 1)))
    clip_gradients(model, 0.01)
    add_gradient_noise(model, 1.0, streams(model, 0, "noise", None))
    assert model[0].weight.grad is None and model[1].weight.grad.std() > 0.5


# ---- copies -------------------------------------------------------------------------------------------------


def test_student_teacher_and_snapshot():
    model = ResNet9(2, width=4).eval()
    student, frozen, teacher = student_of(model, "train"), student_of(model, "frozen"), teacher_of(model)
    assert all(part.training for part in student.modules())
    norms = [part for part in frozen.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 8 and not any(part.training for part in norms) and frozen.training
    assert not any(part.training for part in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in [*model.parameters(), *student.parameters()])
    taken = snapshot(student)
    assert student.training and not any(part.training for part in taken.modules())
    for copied in (student, frozen, teacher, taken):
        with torch.no_grad():
            next(copied.parameters()).add_(1)
    values = [next(m.parameters())[0, 0, 0, 0].item() for m in (model, student, frozen, teacher, taken)]
    assert values[1:] == [pytest.approx(values[0] + 1)] * 4 and not model.training


def test_last_is_the_last():
    models = [nn.Linear(1, 1) for _ in range(3)]
    assert last(iter(models)) is models[-1]


# ---- schedule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [0.0, 0.2, 5 / 24, 0.5, 1.0])
def test_the_triangle_is_that_of_np_interp(peak):
    for progress in np.linspace(0, 1, 97)[:-1]:
        corners = ([0, peak, 1], [0, 1, 0]) if peak else ([0, 1], [1, 0])
        assert triangle(progress, peak) == pytest.approx(np.interp(progress, *corners), abs=1e-12)
    if peak < 1:
        assert triangle(1.0, peak) == 0


# ---- split --------------------------------------------------------------------------------------------------


def test_a_split_is_forget_and_the_rest():
    images, labels = torch.arange(6.0)[:, None], torch.arange(6)
    split = Split.of(images, labels, torch.tensor([4, 1], dtype=torch.int16), images[:2], labels[:2])
    assert split.forget.tolist() == [4, 1] and split.forget.dtype == torch.int64
    assert split.retain.tolist() == [0, 2, 3, 5]
    assert Split.of(images, labels, np.array([], np.int64), images, labels).retain.tolist() == list(range(6))
    moved = split.to("cpu")
    assert moved is not split and torch.equal(moved.retain, split.retain)


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ([6], "index 6 is outside the train set of 6"),
        ([-1], "index -1 is outside"),
        ([2, 3, 2], "is repeated"),
    ],
)
def test_impossible_forget_indices_are_errors(forget, message):
    images = torch.zeros(6, 1)
    with pytest.raises(InvalidInput, match=message):
        Split.of(images, torch.zeros(6), torch.tensor(forget), images, torch.zeros(6))
