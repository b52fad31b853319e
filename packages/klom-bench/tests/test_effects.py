"""Digits at full size: there is something to forget, and methods do what they say. Minutes; run with -m slow.

The bounds leave room for another machine's rounding.
"""

import numpy as np
import pytest
import torch

from klom_bench.datasets.digits import Digits
from klom_bench.experiment import Experiment, unlearned_margins
from klom_bench.klom import klom
from klom_bench.methods.noisy_descent import NoisyDescent
from klom_bench.methods.scrub import Scrub
from klom_bench.scoring import simulated_floor, summary
from klom_bench.training import last

pytestmark = pytest.mark.slow
N = 100
LEAST = {
    1: 4,
    2: 2,
    3: 1.7,
    4: 3,
    5: 6,
    6: 2.4,
    7: 4,
    8: 5.5,
    9: 7,
    10: 9,
}  # P95 of doing nothing; floor: 0.65
PRESET = NoisyDescent(**NoisyDescent.presets["digits"])


@pytest.fixture(scope="module")
def data():
    return Digits()  # in the cache of the session: every ensemble is trained once


def p95(data, forget_set, margins, split="forget", variant="easydub"):
    oracle = data.margins("oracle", forget_set, range(N))
    return summary(klom(oracle[split], margins[split], variant))[1]


def unlearned(data, forget_set, name, method):
    return unlearned_margins(Experiment(dataset=data, method=method, method_name=name, forget_set=forget_set))


@pytest.mark.parametrize("forget_set", range(1, 11))
def test_there_is_something_to_forget_and_oracles_are_at_the_floor(data, forget_set):
    nothing = data.margins("pretrain", forget_set, range(N))
    held_out = data.margins("oracle", forget_set, range(N, 2 * N))
    for split in ("retain", "forget", "val"):
        samples = nothing[split].shape[1]
        slack = 1.6 if split == "forget" else 1.15  # P95 of ten samples is nearly their maximum
        assert p95(data, forget_set, held_out, split) < slack * simulated_floor(N, samples)[1]
    forget, floor = (p95(data, forget_set, m) for m in (nothing, held_out))
    assert forget > LEAST[forget_set] and forget > 2.5 * floor
    assert p95(data, forget_set, nothing, variant="robust") > 2 * p95(
        data, forget_set, held_out, variant="robust"
    )


@pytest.mark.parametrize("forget_set", [1, 8])
def test_noisy_descent_forgets_with_its_digits_preset_and_not_as_published(data, forget_set):
    nothing = data.margins("pretrain", forget_set, range(N))
    tuned = unlearned(data, forget_set, "noisy_descent", PRESET)
    assert p95(data, forget_set, tuned) < 0.75 * p95(data, forget_set, nothing)
    published = unlearned(data, forget_set, "noisy_descent", NoisyDescent())
    for split in ("retain", "forget", "val"):
        assert p95(data, forget_set, published, split) == pytest.approx(
            p95(data, forget_set, nothing, split), abs=0.05
        )
    # it does move, by far less than two oracles differ
    moved = np.abs(published["val"] - nothing["val"]).max()
    assert 0 < moved < 0.2 * nothing["val"].std(axis=0).mean()


def test_scrub_moves_parameters(data):
    model, split = data.pretrained(range(25)), data.split(8)
    result = last(Scrub().steps(model, split))
    for (name, before), after in zip(model.named_parameters(), result.parameters(), strict=True):
        change = (after - before).view(25, -1).norm(dim=1) / before.view(25, -1).norm(dim=1)
        assert change.min() > 1e-4, (
            name
        )  # 8e-4 measured; 0 in the public code, whose optimiser has the teacher
    assert not torch.equal(next(model.parameters()), next(result.parameters()))


def test_the_models_are_good_classifiers(data):
    for kind in ("pretrain", "oracle"):
        margins = data.margins(kind, 1, range(N))
        assert (margins["retain"] > 0).mean() > 0.999  # memorised
        assert 0.90 < (margins["val"] > 0).mean() < 0.97
