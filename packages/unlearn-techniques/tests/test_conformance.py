"""Every technique of this package keeps the rules of every technique."""

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.esd import ESD
from unlearn_techniques.none import NoTechnique
from unlearn_techniques.sld import SLD
from unlearn_techniques.uce import UCE

OURS = {
    e.name: e for e in entry_points(group="unlearn.techniques") if e.value.startswith("unlearn_techniques.")
}
QUICK = {"iterations": 2, "lr": 1e-2, "sampling_steps": 2}
# name -> instances strong enough for a model of random weights, the parameter group that each may change, itself idle
CASES = {
    "none": [(NoTechnique(), None, NoTechnique())],
    "uce": [
        (UCE(), "esd-x-strict", UCE(erase_scale=0.0)),
        (
            UCE(variant="2023", edit="erase"),
            "esd-x-strict",
            UCE(variant="2023", edit="erase", erase_scale=0.0),
        ),
        (UCE(edit="tensor", templates=("a {}",)), "esd-x-strict", None),
    ],
    "esd": [
        (ESD(**QUICK), "esd-x", None),
        (ESD(train_method="esd-u", sampled_by="teacher", batch=2, **QUICK), "esd-u", None),
    ],
    "sld": [
        (SLD(**SLD.presets["max"]), None, SLD(scale=0.0)),
        (SLD(warmup=1, text="car"), None, SLD(warmup=99)),
    ],
}


def test_every_technique_has_a_case():
    """Here, or among its own tests."""
    tests = Path(__file__).parent
    assert CASES.keys() <= OURS.keys()
    for name in OURS.keys() - CASES.keys():
        assert "    check_technique(" in (tests / f"test_{name}.py").read_text(encoding="utf-8"), name


@pytest.mark.parametrize(("name", "case"), [(n, i) for n, cases in CASES.items() for i in range(len(cases))])
def test_technique(tiny, dog, name, case):
    technique, group, identity = CASES[name][case]
    assert type(technique) is OURS[name].load()
    names = parameter_group(tiny.unet, group) if group else ()
    check_technique(
        technique,
        tiny,
        dog,
        changes=name != "none",
        parameters=[f"unet.{n}" for n in names],
        identity=identity,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken:
    """A technique with one fault at a time."""

    fault: str = ""

    def apply(self, model, concepts, *, seed, progress=None):
        name = "conv_in.weight"
        weight = model.unet.get_parameter(name)
        if self.fault == "argument":
            with torch.no_grad():
                weight.add_(0.3)
            return model
        if self.fault == "seed":
            return dataclasses.replace(model, unet=with_weights(model.unet, {name: weight + torch.rand(())}))
        if self.fault == "nothing":
            return dataclasses.replace(model)
        return dataclasses.replace(model, unet=with_weights(model.unet, {name: weight * 1.5}))


@pytest.mark.parametrize(
    ("fault", "parameters", "identity", "hint"),
    [
        ("argument", None, None, "the argument keeps its weights"),
        ("seed", None, None, "the same seed gives the same model"),
        ("nothing", None, None, "pictures of the concept change"),
        ("", ["unet.conv_out.weight"], None, "exactly the declared weights change"),
        ("", ["unet.conv_in.weight"], Broken(), "at strength zero nothing changes"),
    ],
)
def test_a_broken_technique_is_named(fault, parameters, identity, hint):
    from unlearn_techniques.testing import tiny_sd

    own = tiny_sd.__wrapped__(seed=7)  # not the cached one: it may be changed here
    with pytest.raises(AssertionError, match=hint):
        check_technique(
            Broken(fault=fault),
            own,
            Concept(name="dog", anchor="cat"),
            parameters=parameters,
            identity=identity,
        )
