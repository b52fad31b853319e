"""Every method: the conformance kit, and its algorithm written out once more on a plain module."""

import copy
import dataclasses
import inspect
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from klom_bench.conformance import check_method, member
from klom_bench.ensemble import initialise, seeds_of
from klom_bench.methods.ascent_descent import AscentDescent
from klom_bench.methods.descent import Descent
from klom_bench.methods.do_nothing import DoNothing
from klom_bench.methods.gradient_ascent import GradientAscent
from klom_bench.methods.noisy_descent import NoisyDescent
from klom_bench.methods.retrain import Retrain
from klom_bench.methods.scrub import Scrub
from klom_bench.mlp import MLP
from klom_bench.resnet9 import ResNet9
from klom_bench.training import last, shuffled, snapshot, streams, student_of, teacher_of
from unlearn_core.errors import InvalidInput
from unlearn_core.registry import load, names
from unlearn_core.spec import build

SMALL = {
    "do_nothing": DoNothing(),
    "retrain": Retrain(epochs=3, batch_size=8, peak_epoch=1.0, lr=0.1),
    "noisy_descent": NoisyDescent(epochs=3, batch_size=8, lr=0.05),
    "gradient_ascent": GradientAscent(epochs=3, batch_size=3, lr=0.02),
    "descent": Descent(epochs=3, batch_size=8, lr=0.05),
    "ascent_descent": AscentDescent(
        epochs=3, ascent_epochs=2, forget_batch_size=4, retain_batch_size=8, lr=0.05
    ),
    "scrub": Scrub(epochs=3, max_epochs=2, forget_batch_size=4, retain_batch_size=8, lr_drops=(2,)),
}


def test_every_registered_method_is_here():
    assert names("unlearn.methods") == sorted(SMALL)
    for name, method in SMALL.items():
        assert load("unlearn.methods", name) is type(method)


def mlp(m=3):
    return initialise(MLP(m, sizes=(6, 8, 4)), range(m))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize("name", SMALL)
def test_conformance_on_an_ensemble(name, vectors):
    check_method(SMALL[name], mlp().train(), vectors, changes=name != "do_nothing")


@pytest.mark.parametrize("name", SMALL)
def test_conformance_on_a_plain_module(name, vectors):
    check_method(SMALL[name], plain().eval(), vectors, changes=name != "do_nothing")


@pytest.mark.parametrize("name", SMALL)
def test_conformance_on_resnet9(name, pictures):
    # Grouped convolutions add in another order; a max pool or ReLU that tips over sends another gradient, and
    # batch norm over batches of eight multiplies that: so few and small steps, and a hundred times the tolerance.
    settings = {"epochs": 1, "lr": 0.005} if name != "do_nothing" else {}
    if name == "retrain":
        settings["peak_epoch"] = 0.0
    method = dataclasses.replace(SMALL[name], **settings)
    model = initialise(ResNet9(2, width=4, classes=4), [0, 1])
    check_method(method, model, pictures, changes=name != "do_nothing", tolerance=1e-2)


@pytest.mark.parametrize("name", SMALL)
def test_published_defaults_move_something(name, vectors):
    if name == "do_nothing":
        return
    method = dataclasses.replace(
        type(SMALL[name])(), epochs=1, **({"peak_epoch": 0.0} if name == "retrain" else {})
    )
    model = mlp(2)
    result = last(method.steps(model, vectors))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), result.parameters(), strict=True))


def test_mistaken_settings_are_errors():
    for cls, settings, message in (
        (NoisyDescent, {"nois": 1}, "did you mean 'noise'"),
        (NoisyDescent, {"noise": -1}, "noise"),
        (NoisyDescent, {"epochs": 0}, "epochs"),
        (NoisyDescent, {"schedule": "cosine"}, "schedule"),
        (Scrub, {"batch_norm": "eval"}, "batch_norm"),
        (Scrub, {"temperature": 0}, "temperature"),
        (Retrain, {"lr": "fast"}, "lr"),
    ):
        with pytest.raises(InvalidInput, match=message):
            build(cls, settings)


# ---- the algorithms, once more, on whole sets as one batch: no order enters ---------------------------------


def whole(method, **settings):
    sizes = {f.name: 1000 for f in dataclasses.fields(method) if f.name.endswith("batch_size")}
    return dataclasses.replace(method, **{**sizes, **settings})


def loss_on(model, split, indices):
    return F.cross_entropy(model(split.images[indices]), split.labels[indices])


def check_equal(model, expected, atol=1e-6):
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def move(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_gradient_ascent_climbs_on_the_forget_set(vectors):
    model, expected = plain(), plain()
    optimizer = torch.optim.SGD(expected.parameters(), 0.1, maximize=True)
    for step in whole(GradientAscent(epochs=3, lr=0.1)).steps(model, vectors):
        move(optimizer, loss_on(expected, vectors, vectors.forget))
        check_equal(step, expected)


def test_descent_descends_on_the_retain_set(vectors):
    model, expected = plain(), plain()
    optimizer = torch.optim.SGD(expected.parameters(), 0.1, 0.7, weight_decay=0.02)
    method = Descent(epochs=3, lr=0.1, momentum=0.7, weight_decay=0.02)
    for step in whole(method).steps(model, vectors):
        move(optimizer, loss_on(expected, vectors, vectors.retain))
        check_equal(step, expected)


def test_ascent_descent_does_both_in_this_order(vectors):
    model, expected = plain(), plain()
    down = torch.optim.SGD(expected.parameters(), 0.1)
    up = torch.optim.SGD(expected.parameters(), 0.1, maximize=True)
    for epoch, step in enumerate(
        whole(AscentDescent(epochs=4, ascent_epochs=2, lr=0.1)).steps(model, vectors)
    ):
        if epoch < 2:
            move(up, loss_on(expected, vectors, vectors.forget))
        move(down, loss_on(expected, vectors, vectors.retain))
        check_equal(step, expected)


@pytest.mark.parametrize("max_norm", [0.05, 1e3])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_noisy_descent_clips_adds_noise_and_fades(vectors, max_norm, schedule):
    model, expected = plain(), plain()
    method = whole(NoisyDescent(epochs=4, lr=0.1, noise=0.3, max_norm=max_norm, schedule=schedule))
    stream = streams(model, 5, "noisy_descent", [2])[0]
    for epoch, step in enumerate(method.steps(model, vectors, seed=5, ids=[2])):
        fade = 1 - epoch / 4 if schedule == "linear" else 1
        list(shuffled(vectors.retain, 1000, [stream]))  # the order is drawn first
        expected.zero_grad()
        loss_on(expected, vectors, vectors.retain).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), max_norm)
        noise = torch.empty(sum(p.numel() for p in expected.parameters()))
        noise.normal_(0, 0.3 * fade, generator=stream)
        with torch.no_grad():
            for p, n in zip(
                expected.parameters(), noise.split([p.numel() for p in expected.parameters()]), strict=True
            ):
                p -= 0.1 * fade * (p.grad + n.view_as(p))
        check_equal(step, expected, atol=1e-5)


def test_noisy_descent_fades_over_all_batches(vectors):
    """30 retained examples in batches of 8: four steps an epoch, the last of the last epoch at 1/8 of the rate."""
    moved = []
    for epochs in (1, 2):
        method = NoisyDescent(
            epochs=epochs, batch_size=8, lr=0.1, noise=0.0, max_norm=1e-3, schedule="linear"
        )
        model = plain()
        states = [model, *method.steps(model, vectors)]
        flat = [torch.cat([p.detach().flatten() for p in s.parameters()]) for s in states]
        moved.append([(b - a).norm().item() / 1e-4 for a, b in itertools.pairwise(flat)])
    # every step is lr x max_norm x fade long, and all point nearly the same way or apart, never further
    assert moved[0][0] <= 1 + 3 / 4 + 1 / 2 + 1 / 4 + 1e-3
    assert moved[1][0] <= (8 + 7 + 6 + 5) / 8 + 1e-3 and moved[1][1] <= (4 + 3 + 2 + 1) / 8 + 1e-3
    assert moved[1][0] > 2 * moved[1][1]


def test_scrub_disagrees_with_the_teacher_then_agrees(vectors):
    model, student, teacher = plain(), plain(), plain()
    method = whole(
        Scrub(
            epochs=5,
            max_epochs=3,
            lr=0.5,
            temperature=2.0,
            lr_drops=(2, 4),
            momentum=0.8,
            weight_decay=0.01,
            gamma=0.7,
            alpha=0.4,
        )
    )
    optimizer = torch.optim.SGD(student.parameters(), 0.5, 0.8, weight_decay=0.01)

    def disagreement(indices):
        x = vectors.images[indices]
        with torch.no_grad():
            target = F.softmax(teacher(x) / 2, -1)
        return 4 * F.kl_div(F.log_softmax(student(x) / 2, -1), target, reduction="batchmean")

    for epoch, step in enumerate(method.steps(model, vectors)):
        optimizer.param_groups[0]["lr"] = 0.5 * (0.1 if epoch >= 2 else 1) * (0.1 if epoch >= 4 else 1)
        if epoch < 3:
            move(optimizer, -disagreement(vectors.forget))
        move(optimizer, 0.4 * disagreement(vectors.retain) + 0.7 * loss_on(student, vectors, vectors.retain))
        check_equal(step, student)


def test_retrain_starts_anew_and_follows_the_triangle(vectors):
    expected = plain()
    initialise(expected, seeds_of(5, "initialise", [2]))
    optimizer = torch.optim.SGD(expected.parameters(), 0.2, 0.8, weight_decay=0.01)
    method = whole(Retrain(epochs=5, lr=0.2, momentum=0.8, weight_decay=0.01, peak_epoch=2.0))
    told = []
    steps = method.steps(plain(), vectors, seed=5, ids=[2], progress=lambda *done: told.append(done))
    for epoch, step in enumerate(steps):
        optimizer.param_groups[0]["lr"] = 0.2 * [0, 1 / 2, 1, 2 / 3, 1 / 3][epoch]
        move(optimizer, loss_on(expected, vectors, vectors.retain))
        check_equal(step, expected)
    assert told == [(i, 5) for i in range(1, 6)]


def test_retrain_moves_its_rate_with_every_batch(vectors, monkeypatch):
    rates = []
    monkeypatch.setattr("klom_bench.methods.retrain.step", lambda *_, lr: rates.append(lr))
    last(Retrain(epochs=6, lr=0.4, batch_size=8, peak_epoch=2.0).steps(mlp(1), vectors))
    expected = np.interp(np.arange(24), [0, 2 * 4, 6 * 4], [0, 0.4, 0])  # 30 examples: 4 batches an epoch
    np.testing.assert_allclose(rates, expected, atol=1e-12)


def test_retrain_uses_nothing_of_its_model_but_the_architecture(vectors):
    for build_model in (plain, lambda: mlp(2)):
        model = build_model()
        other = copy.deepcopy(model)
        with torch.no_grad():
            for tensor in [*other.parameters(), *other.buffers()]:
                tensor.mul_(3).add_(1)
        results = [last(SMALL["retrain"].steps(m, vectors, seed=1)) for m in (model, other)]
        check_equal(*results, atol=0)


def test_retrain_takes_a_new_order_and_start_for_each_seed(vectors):
    orders = [streams(mlp(1), s, "order", [0])[0].initial_seed() for s in (0, 1)]
    assert orders[0] != orders[1] != seeds_of(1, "initialise", [0])[0]


def test_do_nothing_does_nothing(vectors):
    model = mlp().train()
    (step,) = DoNothing().steps(model, vectors)
    check_equal(step, model, atol=0)
    assert step is not model and model.training and not step.training


def test_published_defaults_stand_in_the_signatures():
    """Sheet 4: what the published codes use; a changed default changes every result under the name."""
    assert NoisyDescent() == NoisyDescent(
        epochs=5, lr=1e-4, noise=0.01, max_norm=1.0, batch_size=256, schedule="constant", batch_norm="train"
    )
    assert Retrain() == Retrain(
        epochs=24, lr=0.4, momentum=0.9, weight_decay=5e-4, batch_size=256, peak_epoch=5.0
    )
    assert Scrub() == Scrub(
        epochs=5, max_epochs=3, lr=0.01, lr_drops=(3, 5, 9), momentum=0.9, weight_decay=5e-4, gamma=0.99,
        alpha=0.1, temperature=4.0, forget_batch_size=32, retain_batch_size=64, batch_norm="train",
    )  # fmt: skip
    assert GradientAscent() == GradientAscent(epochs=1, lr=1e-5, batch_size=64, batch_norm="train")
    assert Descent() == Descent(epochs=3, lr=1e-4, momentum=0.9, weight_decay=5e-4, batch_size=64)
    assert AscentDescent() == AscentDescent(
        epochs=5, ascent_epochs=3, lr=1e-3, forget_batch_size=64, retain_batch_size=64
    )


# ---- the kit finds what it is there to find -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Good:
    epochs: int = 2
    lr: float = 0.1
    batch_norm: str = "train"
    presets = {}  # noqa: RUF012

    def steps(self, model, split, *, seed=0, ids=None):
        yield from self.train(
            model, split, student_of(model, self.batch_norm), streams(model, seed, "good", ids)
        )

    def train(self, model, split, student, randomness):
        for _ in range(self.epochs):
            self.epoch(student, split, randomness)
            yield snapshot(student)

    def epoch(self, student, split, randomness):
        student(split.images[:4].expand(len(randomness), 4, *split.images.shape[1:]))
        with torch.no_grad():
            for p in student.parameters():
                for part, g in zip(p.view(len(randomness), -1), randomness, strict=True):
                    part += self.lr * torch.randn(part.shape, generator=g)


class InPlace(Good):
    def train(self, model, split, student, randomness):
        yield from super().train(model, split, model, randomness)


class SameModelTwice(Good):
    def train(self, model, split, student, randomness):
        for _ in range(self.epochs):
            self.epoch(student, split, randomness)
            yield student.eval()


class TeacherOnly(Good):
    """The public SCRUB: its optimiser holds the teacher's parameters."""

    def epoch(self, student, split, randomness):
        super().epoch(teacher_of(student), split, randomness)
        student(split.images[:4].expand(len(randomness), 4, *split.images.shape[1:]))


class Ambient(Good):
    def epoch(self, student, split, randomness):
        with torch.no_grad():
            for p in student.parameters():
                p += torch.randn_like(p)


class AmbientSeeded(Ambient):
    def train(self, model, split, student, randomness):
        torch.manual_seed(randomness[0].initial_seed() % 2**31)
        yield from super().train(model, split, student, randomness)


class Seedless(Good):
    def steps(self, model, split, *, seed=0, ids=None):
        yield from self.train(model, split, student_of(model, "train"), streams(model, 0, "good", ids))


class PlaceNotId(Good):
    def steps(self, model, split, *, seed=0, ids=None):
        yield from self.train(model, split, student_of(model, "train"), streams(model, seed, "good", None))


class SharedStream(Good):
    def steps(self, model, split, *, seed=0, ids=None):
        randomness = streams(model, seed, "good", ids)
        yield from self.train(model, split, student_of(model, "train"), [randomness[0]] * len(randomness))


class OnlyTheFirst(Good):
    def epoch(self, student, split, randomness):
        with torch.no_grad():
            for p in student.parameters():
                part = p.view(len(randomness), -1)[0]
                part += torch.randn(part.shape, generator=randomness[0])


class LeftTraining(Good):
    def train(self, model, split, student, randomness):
        for step in super().train(model, split, student, randomness):
            yield step.train()


class OneTooMany(Good):
    def train(self, model, split, student, randomness):
        yield snapshot(student)
        yield from super().train(model, split, student, randomness)


class FlagsChanged(Good):
    def train(self, model, split, student, randomness):
        model.requires_grad_(False)
        yield from super().train(model, split, student, randomness)


class Exploding(Good):
    def epoch(self, student, split, randomness):
        super().epoch(student, split, randomness)
        with torch.no_grad():
            next(student.parameters()).mul_(torch.inf)


class SplitChanged(Good):
    def epoch(self, student, split, randomness):
        super().epoch(student, split, randomness)
        split.images.mul_(1.01)


class AlwaysTrains(Good):
    def steps(self, model, split, *, seed=0, ids=None):
        yield from self.train(model, split, student_of(model, "train"), streams(model, seed, "good", ids))


class NeverTrains(Good):
    def steps(self, model, split, *, seed=0, ids=None):
        yield from self.train(model, split, student_of(model, "frozen"), streams(model, seed, "good", ids))


@dataclasses.dataclass(kw_only=True)
class NotFrozen:
    epochs: int = 1
    presets = {}  # noqa: RUF012


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadPreset(Good):
    presets = {"digits": {"learning_rate": 1}}  # noqa: RUF012


FAULTS = {
    InPlace: "argument stay", SameModelTwice: "does not change when training goes on",
    TeacherOnly: "another seed|of model 0 change", Ambient: "global random state",
    AmbientSeeded: "global random state", Seedless: "another seed", PlaceNotId: "is the same in an ensemble",
    SharedStream: "is the same in an ensemble", OnlyTheFirst: "of model 1 change",
    LeftTraining: "evaluation mode", OneTooMany: "3 for 2 epochs", FlagsChanged: "requires_grad",
    Exploding: "same seed|finite", SplitChanged: "split stays",
}  # fmt: skip


@pytest.mark.parametrize("cls", FAULTS)
def test_the_kit_finds_the_fault(cls, vectors):
    with pytest.raises(AssertionError, match=FAULTS[cls]):
        check_method(cls(), mlp(2), vectors)


def test_the_kit_passes_what_is_right(vectors, pictures):
    check_method(Good(), mlp(2), vectors)
    check_method(Good(epochs=1), initialise(ResNet9(2, width=4, classes=4), [0, 1]), pictures)
    for cls, mode in ((AlwaysTrains, "frozen"), (NeverTrains, "train")):
        with pytest.raises(AssertionError, match=f"batch_norm='{mode}'"):
            check_method(cls(epochs=1), initialise(ResNet9(2, width=4, classes=4), [0, 1]), pictures)


def test_the_kit_checks_settings(vectors):
    with pytest.raises(AssertionError, match="frozen"):
        check_method(NotFrozen(), mlp(2), vectors)
    with pytest.raises(InvalidInput, match="learning_rate"):
        check_method(BadPreset(), mlp(2), vectors)
    with pytest.raises(AssertionError, match="another seed|of model 0 stay"):
        check_method(Good(), mlp(2), vectors, changes=False)
    with pytest.raises(AssertionError, match="another seed"):
        check_method(DoNothing(), mlp(2), vectors)


def test_member_takes_one_model_out():
    model = initialise(ResNet9(3, width=4), [4, 5, 6])
    one = member(model, 1)
    expected = initialise(ResNet9(width=4), [5]).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in one.state_dict().items())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(one.eval()(x), model.eval()(x.expand(3, *x.shape))[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_method_has_a_card(name):
    card = inspect.getmodule(type(SMALL[name])).__doc__
    for heading in ("Paper:", "Idea:", "Deviations:", "Cost:"):
        assert heading in card
