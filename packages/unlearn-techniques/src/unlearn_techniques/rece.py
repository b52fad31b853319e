"""RECE: Reliable and Efficient Concept Erasure.

Paper:
    C. Gong, K. Chen, Z. Wei, J. Chen, Y.-G. Jiang, "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion
    Models", ECCV 2024, arXiv 2407.12383.
Idea:
    After UCE some other embedding still draws the concept. Find it in closed form, the c' that the edited matrices
    read most nearly as the original ones read the concept c,
    ``c' = argmin sum_i ||W_i c' - W_i^orig c||^2 + lambda ||c'||^2 = (lambda I + sum W^T W)^-1 (sum W^T W^orig) c``,
    erase c' as UCE erases c (its closed form is the paper's eq. 3), and begin again with the matrices now.
Changes:
    Weights: every `attn2.to_k` and `attn2.to_v` of the UNet (32 in SD v1.4), as UCE.
Defaults:
    README and scripts: lamb and preserve_scale 0.1 (the paper's lambda_1 and lambda_2), erase_scale 1; regularizer and
    epochs by kind: nudity 0.1 and 3, other unsafe concepts 0.1 and 2, artists (towards "art") and objects that UCE
    erases badly, such as a church, 1e-3 and 1, easy objects such as a parachute 0.1 and 1. UCE before it is the one of
    2023, its lamb 0.5. Preserving the concept's neighbours is ours, `preserve_adjacent=False` leaves it out.
Deviations:
    All `epochs` are run: the official code keeps the one whose pictures of a validation list NudeNet or Q16 flags least
    (for objects ResNet-50), which judges a technique by its judge. UCE is run here, not loaded. Solved in float64, all
    epochs in one product of matrices; official: float32 inverses. Of several concepts the empty prompt is preserved
    once, in the official script for nudity once for each.
Reference code:
    https://github.com/CharlesGong12/RECE (Apache-2.0), head 403a67f, read, not copied.
Cost:
    UCE's, and for each epoch one more solve of the width of the text and a pass over the matrices.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build
from unlearn_techniques.diffusion.attention import text_projections
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.ridge import change_of_reading
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.uce import UCE


@dataclass(frozen=True, kw_only=True)
class RECE:
    """Reliable and Efficient Concept Erasure: UCE, then what still draws the concept is found and erased, in turn."""

    epochs: int = 3
    """How often an embedding is found and erased; 0 is UCE alone."""
    regularizer: float = 0.1
    """lambda: keeps c' short, so that erasing it touches less of the rest."""
    lamb: float = 0.1
    """lambda_2 of the erasure of c': weight of the matrices staying as they are."""
    erase_scale: float = 1.0
    preserve_scale: float = 0.1
    """lambda_1: weight of the preserved rows."""
    anchor: str | None = ""
    """What is read instead: "" is the empty prompt, None the concept's own anchor."""
    preserve: tuple[str, ...] = ()
    """Words whose output stays, besides that of the empty prompt."""
    preserve_adjacent: bool = True
    """Whether the concept's neighbours are preserved as well."""
    phrases: bool = False
    """Whether the concept's other words are erased like its name."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a word."""
    uce: Mapping[str, Any] = field(default_factory=lambda: {"variant": "2023"})
    """Settings of the UCE before it, besides those above from `anchor` to `templates`, which both have."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "unsafe": {"epochs": 2},
        "nudity": {"epochs": 3},
        "style": {"epochs": 1, "regularizer": 1e-3, "anchor": "art"},
        "object": {"epochs": 1},
        "hard-object": {"epochs": 1, "regularizer": 1e-3},
        "pocket": {
            "anchor": None, "phrases": True, "templates": ("a {}",), "lamb": 1e4, "preserve_scale": 1.0,
            "preserve": (
                "cat", "lion", "rabbit", "frog", "cow", "apple", "banana", "car", "bus", "house", "sun", "rose",
            ),
            "uce": {"variant": "2023", "lamb": 1e3, "preserve_scale": 1.0},
        },
        "pocket-style": {
            "anchor": None, "lamb": 1e4, "preserve_scale": 1.0,
            "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style, blue background"),
            "uce": {"variant": "2023", "lamb": 1e3, "preserve_scale": 1.0},
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.epochs < 0 or min(self.regularizer, self.lamb) <= 0:
            raise InvalidInput(
                "RECE: epochs is at least 0, regularizer and lamb are above 0; got "
                f"{self.epochs}, {self.regularizer}, {self.lamb}"
            )
        if min(self.erase_scale, self.preserve_scale) < 0:
            raise InvalidInput(
                f"RECE: erase_scale and preserve_scale are at least 0, got {self.erase_scale}, {self.preserve_scale}"
            )
        self._before()

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept without anchor where its own is asked for.
        """
        self._before().check(concepts)

    @torch.no_grad()
    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model without `concepts`; `model` is the plain one, UCE is run here. `seed` is not used.

        Raises:
            InvalidInput: a concept without anchor, or a UNet whose projections are fused or adapted.
        """
        names = [f"{name}.weight" for name in text_projections(model.unet)]
        edited = self._before().apply(model, concepts, seed=seed)
        original = [model.unet.get_parameter(name).double() for name in names]
        weights = [edited.unet.get_parameter(name).double() for name in names]

        words = [(c, word) for c in concepts for word in (c.names if self.phrases else (c.name,))]
        forgotten = {word for _, word in words}
        near = [word for c in concepts for word in (c.adjacent if self.preserve_adjacent else ())]
        kept = [w for w in dict.fromkeys([*self.preserve, *near]) if w not in forgotten]
        asked = [(c, template, word) for c, word in words for template in self.templates]
        c = self._rows(model, [template.format(word) for _, template, word in asked])
        r = self._rows(model, [self._instead(concept, template) for concept, template, _ in asked])
        p = self._rows(model, ["", *(template.format(word) for word in kept for template in self.templates)])

        for epoch in range(self.epochs):
            c_adv = embeddings_that_restore(weights, original, c, self.regularizer)
            scales = {"lamb": self.lamb, "erase": self.erase_scale, "preserve": self.preserve_scale}
            m = change_of_reading(c_adv, r, p, **scales)
            weights = [w @ m for w in weights]
            if progress:
                progress(epoch + 1, self.epochs)
        changes = dict(zip(names, weights, strict=True))
        return dataclasses.replace(model, unet=with_weights(model.unet, changes))

    def _before(self) -> UCE:
        shared = ("preserve", "preserve_adjacent", "phrases", "templates")
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared}
        settings |= {"edit": "erase"} if self.anchor == "" else {"anchor": self.anchor}
        return build(UCE, {**settings, **self.uce})

    def _instead(self, concept: Concept, template: str) -> str:
        anchor = concept.anchor if self.anchor is None else self.anchor
        return template.format(anchor) if anchor else ""

    def _rows(self, model: StableDiffusion, texts: Sequence[str]) -> Tensor:
        """Return every row of the texts' embeddings, (texts * tokens, width) float64."""
        return torch.cat([model.encode([text])[0] for text in texts]).double()


def embeddings_that_restore(
    weights: Sequence[Tensor], original: Sequence[Tensor], c: Tensor, regularizer: float
) -> Tensor:
    """Return c' (n, d) float64, read by `weights` most nearly as `original` read c.

    Args:
        weights: W_i, (out_i, d).
        original: W_i^orig, likewise.
        c: embeddings of the concept, (n, d).
        regularizer: lambda.
    """
    a = regularizer * torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    b = torch.zeros_like(a)
    for w, w_orig in zip(weights, original, strict=True):
        a += w.double().T @ w.double()
        b += w.double().T @ w_orig.double()
    return c.double() @ torch.linalg.solve(a, b).T
