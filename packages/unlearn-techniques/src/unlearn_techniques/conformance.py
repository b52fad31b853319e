"""What every technique has to do, ours and a plugin's: call `check_technique` from a test.

    def test_my_technique():
        check_technique(MyTechnique(iterations=2), tiny_sd(), Concept(name="dog", anchor="cat"))

Each property is a function of its own; a failure is an AssertionError that names the property in words.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt
from unlearn_core.testing.settings import check_settings, require
from unlearn_techniques.diffusion.delta import Delta
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler

_SAMPLER = Sampler(steps=4, guidance_scale=4.0, batch=2)


def check_technique(
    technique: Any,
    model: StableDiffusion,
    concept: Concept,
    *,
    changes: bool = True,
    parameters: Collection[str] | None = None,
    identity: Any = None,
) -> None:
    """Check every property below on `model`.

    Args:
        technique: an instance, strong enough to change pictures of a random model.
        model: a tiny one.
        concept: with an anchor, in the model's vocabulary.
        changes: whether it changes anything; False for doing nothing.
        parameters: names ("unet.…") of exactly the weights it may and must change; () for a technique of hooks; None
            where it may change any.
        identity: the technique at strength zero, if it has one.

    Raises:
        AssertionError: a property does not hold.
    """
    check_settings(technique)
    edited = check_argument_untouched(technique, model, concept)
    check_repeats(technique, model, concept, edited)
    check_changes(model, edited, concept, changes=changes, parameters=parameters)
    check_rows(edited, concept)
    if identity is not None:
        same = identity.apply(model, [concept], seed=0)
        require(_equal(_draw(same, concept), _draw(model, concept)), "at strength zero nothing changes")


def check_argument_untouched(technique: Any, model: StableDiffusion, concept: Concept) -> StableDiffusion:
    """The model it is given keeps weights, flags and pictures; the result is returned for further checks."""
    before = {n: p.detach().clone() for n, p in model.unet.state_dict().items()}
    flags = [p.requires_grad for p in model.unet.parameters()]
    drawn, fingerprint = _draw(model, concept), model.fingerprint
    edited = technique.apply(model, [concept], seed=0)
    require(
        all((before[n] == p).all() for n, p in model.unet.state_dict().items()),
        "the argument keeps its weights",
    )
    require(flags == [p.requires_grad for p in model.unet.parameters()], "and which of them can be trained")
    require(dataclasses.replace(model).fingerprint == fingerprint, "and its fingerprint")
    require(_equal(_draw(model, concept), drawn), "and draws what it drew")
    return edited  # type: ignore[no-any-return]


def check_repeats(technique: Any, model: StableDiffusion, concept: Concept, edited: StableDiffusion) -> None:
    """The same seed gives the same model."""
    again = technique.apply(model, [concept], seed=0)
    require(again.fingerprint == edited.fingerprint, "the same seed gives the same model")


def check_changes(
    model: StableDiffusion,
    edited: StableDiffusion,
    concept: Concept,
    *,
    changes: bool,
    parameters: Collection[str] | None,
) -> None:
    """Pictures of the concept change, and exactly the declared weights do; the delta leads from one to the other."""
    differs = not _equal(_draw(edited, concept), _draw(model, concept))
    require(differs == changes, "pictures of the concept change" if changes else "nothing changes")
    require((edited.fingerprint != model.fingerprint) == changes, "the fingerprint changes with the model")
    delta = Delta.between(model, edited)
    if parameters is not None:
        require(
            set(delta.tensors) == set(parameters),
            f"exactly the declared weights change; differs in {sorted(set(delta.tensors) ^ set(parameters))[:4]}",
        )
    require(
        dataclasses.replace(delta.apply(model), **_hooks(edited)).fingerprint == edited.fingerprint,
        "the delta makes the edited weights of the old ones",
    )


def check_rows(edited: StableDiffusion, concept: Concept) -> None:
    """A picture does not depend on what is drawn beside it."""
    rows = _rows(concept)
    alone = [next(iter(edited.generate([row], _SAMPLER))) for row in rows]
    require(_equal(alone, list(edited.generate(rows, _SAMPLER))), "a picture does not depend on its company")


def _hooks(model: StableDiffusion) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ("conditions", "guidances", "activations")}


def _rows(concept: Concept) -> list[Prompt]:
    texts = [concept.name, f"a {concept.name}", "a car"]
    return [Prompt(id=str(i), text=text, seed=i, group="target") for i, text in enumerate(texts)]


def _draw(model: StableDiffusion, concept: Concept) -> list[Any]:
    return list(model.generate(_rows(concept), _SAMPLER))


def _equal(a: list[Any], b: list[Any]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
