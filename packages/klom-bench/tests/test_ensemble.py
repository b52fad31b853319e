"""Many models as one: the same numbers as one by one, and state dicts that fit the published checkpoints."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from klom_bench import layers
from klom_bench.ensemble import (
    ensemble_margins,
    initialise,
    logits,
    per_model,
    seeds_of,
    size,
    stack,
    unstack,
)
from klom_bench.margins import margins
from klom_bench.mlp import MLP
from klom_bench.resnet9 import ResNet9
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive

CPU = torch.Generator


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=CPU().manual_seed(seed))


BUILDERS = {
    "mlp": (lambda m: MLP(m, sizes=(6, 8, 4)), (6,)),
    "resnet9": (lambda m: ResNet9(m, width=4, classes=5), (3, 16, 16)),
}


@pytest.fixture(params=BUILDERS)
def network(request):
    return BUILDERS[request.param]


# ---- one and many -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True])
def test_stacked_equals_separate(network, train):
    build, shape = network
    seeds, x = [5, 6, 7], noise(3, 9, *shape)
    many = initialise(build(3), seeds).train(train)
    for m, seed in enumerate(seeds):
        one = initialise(build(1), [seed]).train(train)
        torch.testing.assert_close(one(x[m]), one(x[m : m + 1])[0])
        one = initialise(build(1), [seed]).train(train)
        alone = one(x[m])
        if m == 0:
            together = many(x)
        assert alone.dim() == 2
        torch.testing.assert_close(together[m], alone, atol=1e-5, rtol=1e-5)
        for name, value in one.named_buffers():
            if value.dim():
                part = dict(many.named_buffers())[name].chunk(3)[m]
                torch.testing.assert_close(part, value, atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_another_model(network):
    build, shape = network
    model = initialise(build(3), [1, 2, 3]).train()
    model(noise(3, 6, *shape))[1].square().sum().backward()
    for name, p in model.named_parameters():
        own = per_model(p.grad, 3)
        assert own[0].abs().max() == own[2].abs().max() == 0, name
        assert own[1].abs().max() > 0, name


def test_layers_equal_those_of_torch():
    x = noise(2, 5, 6)
    linear = layers.Linear(2, 6, 3)
    convolution = layers.Conv2d(2, 3, 4, kernel=5, stride=2, pad=2)
    for m in range(2):
        linear.initialise(m, CPU().manual_seed(m))
        convolution.initialise(m, CPU().manual_seed(m))
    for m in range(2):
        expected = F.linear(x[m], linear.weight[3 * m : 3 * m + 3], linear.bias[3 * m : 3 * m + 3])
        torch.testing.assert_close(linear(x)[m], expected)
        image = noise(7, 6, 9, 9)
        expected = F.conv2d(
            image[:, 3 * m : 3 * m + 3], convolution.weight[4 * m : 4 * m + 4], stride=2, padding=2
        )
        torch.testing.assert_close(convolution(image)[:, 4 * m : 4 * m + 4], expected)
    assert layers.Linear(2, 6, 3, bias=False).bias is None


def test_initial_weights_are_distributed_like_torchs():
    for ours, theirs in (
        (layers.Linear(2, 50, 400), nn.Linear(50, 400)),
        (layers.Conv2d(2, 10, 200, kernel=3), nn.Conv2d(10, 200, 3, bias=False)),
    ):
        wrapped = nn.Sequential(ours)
        wrapped.n_models = 2
        initialise(wrapped, [0, 1])
        for name, p in theirs.named_parameters():
            values = per_model(dict(ours.named_parameters())[name], 2).detach()
            bound = p.abs().max().item()
            assert values.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
            assert values.mean().item() == pytest.approx(0, abs=0.1 * bound)
            assert abs(np.corrcoef(values)[0, 1]) < 0.2


# ---- initialise ---------------------------------------------------------------------------------------------


def test_a_model_is_the_same_in_whichever_ensemble_it_is_drawn(network):
    build, _ = network
    many, other = initialise(build(3), [4, 5, 6]), initialise(build(2), [6, 9])
    states, others = list(unstack(many)), list(unstack(other))
    assert all(torch.equal(states[2][k], others[0][k]) for k in states[2])
    assert not torch.equal(
        states[0]["0.weight" if "0.weight" in states[0] else "0.0.weight"], states[1][next(iter(states[1]))]
    )


def test_every_parameter_is_drawn_and_no_global_random_state_is_used(network):
    build, _ = network
    model = build(2)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(77)
    state = torch.get_rng_state()
    initialise(model, [1, 2])
    assert torch.equal(state, torch.get_rng_state())
    for name, tensor in model.state_dict().items():
        assert not (tensor == 77).any(), name
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all() and (part.bias == 0).all()
            assert (part.running_mean == 0).all() and (part.running_var == 1).all()
            assert part.num_batches_tracked == 0


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6)
    )


def test_plain_modules_are_drawn_by_their_own_reset():
    first, again, other = (initialise(plain(), [s]).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in first)
    for drawn in ("0.weight", "0.bias", "4.weight", "4.bias"):
        assert not torch.equal(first[drawn], other[drawn])
    torch.manual_seed(3)
    assert torch.equal(first["0.weight"], nn.Conv2d(3, 4, 3).weight)  # torch's own, from that seed


def test_plain_modules_keep_nothing_they_learned():
    model = plain()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(77)
    state = torch.get_rng_state()
    initialise(model, [3])
    assert torch.equal(state, torch.get_rng_state())
    assert not any((tensor == 77).any() for tensor in model.state_dict().values())
    assert (model[1].running_var == 1).all() and (model[1].weight == 1).all() and (model[5].weight == 1).all()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.linear(x) * self.scale


def test_what_nobody_can_draw_anew_is_an_error():
    with pytest.raises(InvalidInput, match=r"parameters of the model \(Scaled\) anew.*reset_parameters"):
        initialise(Scaled(), [0])
    with pytest.raises(InvalidInput, match=r"parameters of 1 \(Scaled\) anew"):
        initialise(nn.Sequential(nn.ReLU(), Scaled()), [0])
    attention = nn.Sequential(nn.MultiheadAttention(4, 2))
    with pytest.raises(InvalidInput, match="MultiheadAttention"):
        initialise(attention, [0])
    mixed = nn.Sequential(layers.Linear(2, 6, 4), nn.Linear(4, 4))
    mixed.n_models = 2
    with pytest.raises(InvalidInput, match=r"parameters of 1 \(Linear\).*initialise\(model, generator\)"):
        initialise(mixed, [0, 1])


def test_one_seed_per_model():
    with pytest.raises(InvalidInput, match="2 seeds for an ensemble of 3 models"):
        initialise(MLP(3), [0, 1])


def test_seeds_belong_to_ids():
    assert seeds_of(7, "order", [3, 1]) == [derive(7, "order", 3), derive(7, "order", 1)]
    assert seeds_of(7, "order", np.array([3])) == seeds_of(7, "order", [3]) != seeds_of(8, "order", [3])


# ---- ResNet-9 -----------------------------------------------------------------------------------------------

# Sheet 2.1 and 3.1: the published state dicts
BLOCKS = {  # prefix -> (outputs, inputs, kernel)
    "0": (64, 3, 3), "1": (128, 64, 5), "2.module.0": (128, 128, 3), "2.module.1": (128, 128, 3),
    "3": (256, 128, 3), "5.module.0": (256, 256, 3), "5.module.1": (256, 256, 3), "6": (128, 256, 3),
}  # fmt: skip


def test_resnet9_loads_the_published_checkpoints():
    expected = {"9.weight": (10, 128)}
    for prefix, (outputs, inputs, kernel) in BLOCKS.items():
        expected[f"{prefix}.0.weight"] = (outputs, inputs, kernel, kernel)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{prefix}.1.{name}"] = (outputs,)
        expected[f"{prefix}.1.num_batches_tracked"] = ()
    model = ResNet9()
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 2_274_880
    assert sum(b.numel() for b in model.buffers()) == 2_696


class Residual(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.module = nn.Sequential(*parts)

    def forward(self, x):
        return x + self.module(x)


def published_resnet9(w):
    """The network of sheet 3.1, from torch's own layers."""

    def block(a, b, k=3, s=1, p=1):
        return nn.Sequential(nn.Conv2d(a, b, k, s, p, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    return nn.Sequential(
        block(3, w), block(w, 2 * w, 5, 2, 2), Residual(block(2 * w, 2 * w), block(2 * w, 2 * w)),
        block(2 * w, 4 * w), nn.MaxPool2d(2), Residual(block(4 * w, 4 * w), block(4 * w, 4 * w)),
        block(4 * w, 2 * w, p=0), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * w, 10, bias=False),
    )  # fmt: skip


@pytest.mark.parametrize("train", [False, True])
def test_resnet9_is_the_published_network(train):
    theirs = published_resnet9(8).train(train)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(1.3).add_(0.01)
    ours = ResNet9(width=8).train(train)
    ours.load_state_dict(theirs.state_dict())
    x = noise(5, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x) * 0.2)


def test_mlp_is_linear_and_relu():
    model = initialise(MLP(sizes=(6, 8, 4)), [0])
    w = list(model.parameters())
    x = noise(5, 6)
    torch.testing.assert_close(model(x), F.linear(F.relu(F.linear(x, w[0], w[1])), w[2], w[3]))
    assert [tuple(p.shape) for p in MLP(2).parameters()][::2] == [(128, 64), (128, 64), (20, 64)]


# ---- stack and unstack --------------------------------------------------------------------------------------


def test_stack_and_unstack(network):
    build, _ = network
    states = [initialise(build(1), [s]).state_dict() for s in range(4)]
    many = build(4)
    many.load_state_dict(stack(states))
    for got, expected in zip(unstack(many), states, strict=True):
        assert got.keys() == expected.keys() and all(torch.equal(got[k], expected[k]) for k in got)
    halves = [stack(states[:1]), stack(states[1:])]
    again = stack(halves)
    assert all(torch.equal(v, many.state_dict()[k]) for k, v in again.items())


def test_unstack_gives_copies():
    model = initialise(MLP(2), [0, 1])
    state = next(unstack(model))
    state["0.weight"].zero_()
    assert model.state_dict()["0.weight"].abs().min() > 0


def test_states_that_do_not_fit_are_errors():
    good = MLP(sizes=(6, 8, 4)).state_dict()
    with pytest.raises(InvalidInput, match="no models"):
        stack([])
    lacking = {k: v for k, v in good.items() if k != "2.bias"}
    with pytest.raises(InvalidInput, match="model 1 has no tensor '2.bias'"):
        stack([good, lacking])
    with pytest.raises(InvalidInput, match="only model 1 has '2.bias'"):
        stack([lacking, good])
    with pytest.raises(InvalidInput, match=r"model 1: '0.weight' is \(8, 7\), not \(8, 6\)"):
        stack([good, {**good, "0.weight": torch.zeros(8, 7)}])
    with pytest.raises(InvalidInput, match=r"model 1: '0.weight' is \(8,\), not"):
        stack([good, {**good, "0.weight": torch.zeros(8)}])
    twelve_classes = MLP(sizes=(6, 8, 12)).state_dict()
    with pytest.raises(InvalidInput, match=r"model 2: '2.weight' is \(12, 8\), not \(4, 8\)"):
        stack([good, good, twelve_classes])


# ---- running ------------------------------------------------------------------------------------------------


def test_a_plain_module_counts_as_one_model():
    model = nn.Sequential(nn.Linear(6, 4))
    assert size(model) == 1 and size(MLP(3)) == 3
    x = noise(1, 5, 6)
    torch.testing.assert_close(logits(model, x), model(x[0])[None])


@pytest.mark.parametrize("batch_size", [1, 4, 10, 2000])
def test_margins_of_an_ensemble(network, batch_size):
    build, shape = network
    model = initialise(build(2), [0, 1])
    images, labels = noise(10, *shape), torch.arange(10) % 4
    got = ensemble_margins(model, images, labels, batch_size=batch_size)
    assert got.shape == (2, 10) and got.dtype == torch.float32
    model.eval()
    expected = margins(logits(model, images.expand(2, *images.shape)), labels).detach()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_margins_leave_the_model_as_it_was():
    model = initialise(ResNet9(2, width=4), [0, 1]).train()
    model[0][1].eval()  # one frozen layer
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [part.training for part in model.modules()]
    ensemble_margins(model, noise(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))
    assert flags == [part.training for part in model.modules()]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
