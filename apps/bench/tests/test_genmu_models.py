"""The models of the three strategies, for every technique, on a Stable Diffusion of random weights."""

import dataclasses
from types import SimpleNamespace

import pytest

from unlearn_bench.genmu.models import distance, unlearned
from unlearn_bench.genmu.plan import Plan, _orders
from unlearn_bench.sd.experiment import Chosen, Experiment
from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.spec import build
from unlearn_techniques.testing import tiny_sd

DOG = Concept(name="dog", anchor="cat", adjacent=("wolf",))
CAR = Concept(name="car", anchor="cat", adjacent=("art",))
QUICK = {
    "iterations": 1, "sampling_steps": 2, "images": 1, "batch": 1, "attack_steps": 1, "warmup": 0, "epochs": 1,
    "samples": 1, "pictures": 1, "rows": 64, "vocabulary": 4, "neighbours": 1, "retain_batch": 1,
    "module": "up_blocks.1.attentions.0", "every": 1, "expansion": 1, "k": 1,
}  # fmt: skip
OWN = {name: {"captions": ("a photo of a cat",)} for name in ("concept_steerers", "saeuron")}
OWN |= {
    "cogfd": {"batch": 2},
    "advunlearn": {"retained": ("art", "wolf")},
    "ssd": {"retain_prompts": ("a cat", "art")},
}
INFERENCE = ("concept_steerers", "saeuron", "safree", "sld", "trasce")
OURS = registry.names("unlearn.techniques")


def plan(name, strategy):
    cls = registry.load("unlearn.techniques", name)
    quick = {field.name: QUICK[field.name] for field in dataclasses.fields(cls) if field.name in QUICK}
    quick |= OWN.get(name, {})
    chosen = Chosen(name=name, technique=build(cls, quick), preset="")
    experiments = {
        concept.name: Experiment(
            chain=(chosen,), concept=concept, model="tiny", why="", sampler=None, metrics={}, prompts={}, seed=0,
            device="cpu", dtype="fp32",
        )
        for concept in (DOG, CAR)
    }  # fmt: skip
    return Plan(
        strategy=strategy, asked=SimpleNamespace(targets=("dog", "car")), experiments=experiments, world=None,
        orders=(("dog", "car"),),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::unlearn_core.errors.UnlearnWarning")
@pytest.mark.parametrize("name", [name for name in OURS if name != "none"])
def test_every_technique_in_every_strategy(name, tmp_path):
    base = tiny_sd()
    original = base.fingerprint
    found = {s: list(unlearned(plan(name, s), base, tmp_path)) for s in ("single", "multi", "continual")}
    assert [m.targets for m in found["single"]] == [("dog",), ("car",)]
    assert [m.targets for m in found["multi"]] == [("dog", "car")]
    assert [(m.targets, m.later) for m in found["continual"]] == [(("dog",), ("car",)), (("dog", "car"), ())]
    models = [m.model for strategy in found.values() for m in strategy]
    assert all(model.fingerprint != original for model in models) and base.fingerprint == original
    assert found["single"][0].model.fingerprint == found["continual"][0].model.fingerprint
    last = found["continual"][1]
    if name in INFERENCE:
        assert last.drift == 0 and len(last.model.hooks) > len(found["continual"][0].model.hooks)
    else:
        assert last.drift == pytest.approx(distance(base, last.model)) and last.moved > 0
        again = list(unlearned(plan(name, "multi"), base, tmp_path))
        assert again[0].model.fingerprint == found["multi"][0].model.fingerprint, "read from its file"


def test_the_distance_is_the_norm_of_the_change():
    base = tiny_sd()
    other = dataclasses.replace(base, unet=_moved(base.unet, "conv_in.bias", 3.0))
    size = base.unet.conv_in.bias.numel()
    assert distance(base, base) == 0
    assert distance(base, other) == pytest.approx(3.0 * size**0.5)


def test_orders_begin_with_the_targets_own_and_are_never_more_than_there_are():
    assert _orders(("a",), 3, 0) == (("a",),)
    assert sorted(_orders(("a", "b"), 3, 0)) == [("a", "b"), ("b", "a")]
    three = _orders(("a", "b", "c"), 3, 0)
    assert three[0] == ("a", "b", "c") and len(set(three)) == 3
    assert three == _orders(("a", "b", "c"), 3, 0) != _orders(("a", "b", "c"), 3, 1)


def _moved(module, name, by):
    from unlearn_techniques.diffusion.weights import with_weights

    return with_weights(module, {name: module.get_parameter(name) + by})
