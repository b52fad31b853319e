"""Concept Steerers: a k-sparse autoencoder of the text encoder steers prompts away from the concept.

Paper:
    D. Kim, D. Ghadiyaram, "Concept Steerers: Leveraging K-Sparse Autoencoders for (Test-Time) Controllable
    Generations", 2025, arXiv 2501.19066.
Idea:
    h(c) is what a layer of the text encoder returns for the concept's text c. Its latents, none dropped, are
    ``z = ReLU(W_e (h(c) - b_pre) + b_lat)`` and say in the autoencoder's directions what c is made of:
    ``f = lambda z W_d``, a vector for each position. There a prompt's activations become ``h + f`` and the empty
    prompt's ``h - f``; with lambda < 0 the one loses the concept and the other gains it.
Changes:
    The embeddings of prompts and of the empty prompt. No weights.
Defaults:
    The official code's: layer 9 of 12 (three quarters of the way in others), 4 d latents, k 32, rate 4e-4, batches of
    4096, lambda -1; presets "unsafe" with its nine words and -0.5, "violence" -0.7. `rows` is 2 million, not 400:
    the prompts at hand are dozens, not the 4703 of I2P.
    On pocket-sd no lambda that was tried takes a concept out and leaves the rest: of 20 dogs 2, 9, 13 and 20 are gone
    at -0.25, -0.35, -0.4 and -0.5, and 20, 16, 13 and 6 of 20 neighbours stay. "pocket" is -0.4: docs/techniques.md
    has 0.25 of the dogs left and 0.68 of other objects recognised. "pocket-style", -0.17, does not remove sketch.
Deviations:
    The autoencoder's output is compared with its input; the official code compares it with x - b_pre, and lets the dead
    latents learn b_pre as well (target="official"). d / 2 dead latents learn at a time, not 256; errors are measured by
    the variance of the batch, not by that of a first sample; Adam's epsilon is 1e-8, not 6.25e-10.
    Where a white-box attack gives embeddings without texts, they are moved as those of the concept's text would be.
Reference code:
    https://github.com/kim-dahye/steerers (no licence), head 82326cf, read, not copied.
Cost:
    One more pass of the text encoder for each picture. Training, once for each text encoder and kept: 488 steps of
    4096 x 768 x 3072, minutes on a CPU and seconds on a GPU (estimate).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint, settings_of
from unlearn_techniques.diffusion.activations import changed_layer, text_activations, text_layers
from unlearn_techniques.diffusion.everyday import EVERYDAY
from unlearn_techniques.diffusion.fingerprints import tensor_bytes, weights_fingerprint
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.pocket_captions import STYLED, THINGS
from unlearn_techniques.diffusion.sae import Recipe, trained
from unlearn_techniques.diffusion.sae_files import cached, load
from unlearn_techniques.diffusion.steps import Step

NUDITY = "naked, nude, bare, exposed, stripped, topless, male genitalia, penis, buttocks"
"""The concept's text of the official nudity script; it is never drawn, only steered away from."""


@dataclass(frozen=True, kw_only=True)
class ConceptSteerers:
    """Concept Steerers: prompts lose, and the empty prompt gains, what the concept's text is made of."""

    lamb: float = -1.0
    """lambda; below 0 suppresses, above 0 brings forth."""
    text: str | None = None
    """The concept's text; by default all its names."""
    sides: Literal["both", "prompt"] = "both"
    """Whether the empty prompt is steered the other way."""
    layer: int | None = None
    """Of the text encoder, counted from 0; None is three quarters of the way, 9 of 12."""
    sae: str | None = None
    """A published autoencoder of that layer: a folder or Hub id; None trains one."""
    expansion: int = 4
    k: int = 32
    rows: int = 2_000_000
    """Activations seen in training."""
    batch: int = 4096
    lr: float = 4e-4
    dead_after: int = 10_000_000
    """Rows without use after which a latent is dead."""
    target: Literal["input", "official"] = "input"
    templates: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {}", "a painting of {}")
    """Prompts of the training around the concept's names, its neighbours and the words of `preserve`."""
    preserve: tuple[str, ...] = ()
    captions: tuple[str, ...] = tuple(f"a photo of the {word}" for word in EVERYDAY)
    """More prompts of the training."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {},
        "style": {},
        "unsafe": {"text": NUDITY, "lamb": -0.5},
        "violence": {"text": "violence, blood", "lamb": -0.7},
        "official": {"target": "official", "rows": 400_000_000},
        "pocket": {
            "lamb": -0.4, "layer": 3, "k": 16, "rows": 400_000, "batch": 1024, "lr": 1e-3,
            "templates": ("a {}", "a {}, sketch style", "a {}, blue background"), "captions": (*THINGS, *STYLED),
        },
        "pocket-style": {
            "lamb": -0.17, "layer": 3, "k": 16, "rows": 400_000, "batch": 1024, "lr": 1e-3,
            "templates": ("a {}", "a {}, sketch style", "a {}, blue background"), "captions": (*THINGS, *STYLED),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        self._recipe  # noqa: B018  # checks its own settings
        if any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(
                f"ConceptSteerers: each template has one {{}} for the word, got {self.templates}"
            )

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            expansion=self.expansion, k=self.k, rows=self.rows, batch=self.batch, lr=self.lr,
            dead_after=self.dead_after, target=self.target,
            auxiliary="biased" if self.target == "official" else "residual",
        )  # fmt: skip

    @torch.no_grad()
    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose prompts are steered away from `concepts`.

        Raises:
            InvalidInput: no such layer, or an autoencoder of another width.
            Unavailable: the autoencoder is not where it should be.
        """
        model.refuse_xl("Concept Steerers")
        layers = text_layers(model.text_encoder)
        layer = 3 * len(layers) // 4 if self.layer is None else self.layer
        if not 0 <= layer < len(layers):
            raise InvalidInput(f"ConceptSteerers: layer is in [0, {len(layers)}), got {layer}")
        names = [name for concept in concepts for name in concept.names]
        words = [*names, *(word for concept in concepts for word in concept.adjacent), *self.preserve]
        texts = list(
            dict.fromkeys([*(t.format(word) for word in words for t in self.templates), *self.captions])
        )
        if self.sae is not None:
            width = model.text_encoder.config.hidden_size
            sae = load(self.sae, f"text_encoder.layers.{layer}", width)
        else:
            own = weights_fingerprint({"text_encoder": model.text_encoder}, model.tokenizer)
            sae = cached(
                ["text_encoder", own, layer, texts, settings_of(self._recipe), seed],
                lambda: trained(
                    text_activations(model, texts, layer).flatten(0, 1), self._recipe, seed=seed, progress=progress
                ),
            )  # fmt: skip
        sae = sae.to(model.device)
        text = ", ".join(names) if self.text is None else self.text
        z = sae.dense(text_activations(model, [text], layer)[0].float())
        steering = Steering(layer=layer, shift=self.lamb * (z @ sae.decoder), text=text, sides=self.sides)
        return dataclasses.replace(model, conditions=(*model.conditions, steering))


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """Encodes prompts with f added at a layer of the text encoder, and the empty prompt with f taken away."""

    layer: int
    shift: Tensor
    """f, (tokens, width)."""
    text: str
    sides: Literal["both", "prompt"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of its settings and of f."""
        digest = hashlib.sha256(tensor_bytes(self.shift)).hexdigest()
        return fingerprint([self.layer, self.text, self.sides, digest])

    def prepare(
        self, model: StableDiffusion, texts: Sequence[str] | None, embeddings: Tensor
    ) -> Callable[[Tensor, Step], Tensor]:
        """Return what adds the difference that f makes to the prompts' embeddings, whatever other hooks add."""
        moved = self._difference(model, [self.text] if texts is None else texts, self.shift)
        return lambda prompt, step: prompt + moved

    def prepare_empty(self, model: StableDiffusion, empty: Tensor) -> Tensor:
        """Return the embedding of the empty prompt, (1, tokens, width), or of what stands for it, with -f."""
        return empty + self._difference(model, [""], -self.shift) if self.sides == "both" else empty

    def _difference(self, model: StableDiffusion, texts: Sequence[str], shift: Tensor) -> Tensor:
        with changed_layer(model.text_encoder, self.layer, lambda h: h + shift.to(h.dtype)):
            steered = model.encode(texts)
        return steered - model.encode(texts)
