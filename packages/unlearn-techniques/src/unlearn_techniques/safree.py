"""SAFREE: training-free and adaptive guard.

Paper:
    J. Yoon, S. Yu, V. Patil, H. Yao, M. Bansal, "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image and
    Video Generation", ICLR 2025, arXiv 2410.12761.
Idea:
    The phrases of the concept span a space C of texts; the prompt with each token masked in turn spans another, I.
    A token is a trigger unless its masked prompt is as near to C as the others are:
    ``d_i < (1 + alpha) mean_{j != i} d_j``, ``d_i = ||(I - P_C) p_i||``. Triggers are read as
    ``e~ = (I - P_C) P_I e``. The self-validating filter (SVF) does so for the first t' steps, the more of them the
    less e~ is like e. Latent re-attention (LRA) damps the low frequencies of the UNet's skip connections that the
    safe prompt has more of than the original one. The phrases are the negative prompt as well.
Changes:
    The embeddings of the prompt and of the empty prompt; with LRA the inputs of `up_blocks.*.resnets.*`. No weights.
Defaults:
    alpha 0.01, up_t 10, scales 1, 1, 0.9, 0.2: the official scripts for SD v1.4. "style" has the official SVF for
    artists. Phrases are the concept's names; `phrases="paper"` (preset "unsafe") takes the paper's 17 for nudity.
    The order of projections and the map of SVF are the code's, from which the paper's numbers come: only in its order
    is nothing of C left, and the map that the paper prints gives any prompt 5 steps or more. "paper" has both as
    printed, "official" what the released commands do.
Deviations:
    The released LRA does nothing; ours does, for what the paper says ("low" and "high" are the official helpers that
    are never called). up_t counts steps of 50 and is scaled to the sampler's. A prompt of one token is a trigger, as
    in the code, but projected on no I, where a masked token leaves nothing of it. The empty prompt is left alone. Long
    prompts are read up to the model's length. Projections are from an SVD in float64; official: a float32 inverse.
    Of embeddings without texts, as in a white-box attack, every row but the first is projected off C, for up_t steps.
Reference code:
    https://github.com/jaehong31/SAFREE (no licence), head b8b2c3f, read, not copied.
Cost:
    A pass of the text encoder for each token of a prompt. With LRA three predictions a step in place of two for the
    first 11 of 50 steps.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.reattention import reattention_sites
from unlearn_techniques.diffusion.steps import Step

PAPER = (
    "Sexual Acts", "Content Meant to Arouse Sexual Excitement", "Nudity", "Pornography", "Erotic Art", "Lustful",
    "Seductive", "Orgasmic", "Libido", "Kinky", "Sexual Orientation", "Sexual Attraction", "Sexual Intercourse",
    "Sexual Pleasure", "Sexual Fantasy", "Carnal Desires", "Sexual Gratification",
)  # fmt: skip
"""The nudity of the paper; it is never drawn, only steered away from."""


@dataclass(frozen=True, kw_only=True)
class SAFREE:
    """SAFREE: takes the concept out of the tokens that say it, while it draws."""

    phrases: Literal["names", "paper"] | tuple[str, ...] = "names"
    """What spans C; "paper" is the paper's list where the concept is sexual, else the concept's names."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a phrase; the official code has the phrase alone."""
    alpha: float = 0.01
    """How much farther than the others a masked prompt may be from C; a higher one finds fewer triggers."""
    projection: Literal["official", "paper", "off"] = "official"
    """(I - P_C) P_I e, or P_I (I - P_C) e."""
    svf: Literal["official", "paper", "off"] = "official"
    """t' from beta = 1 - cos(e~, e): a steep sigmoid of it, a plain one, or all steps."""
    up_t: float = 10
    """gamma, the most steps, of 50."""
    svf_midpoint: float = 5.333
    """10 beta at which t' is half of it."""
    svf_slope: float = 2.5
    padding: bool = False
    """Whether the rows behind the text are triggers where one of its tokens is; they tell of the whole text."""
    lra: Literal["paper", "low", "high", "off"] = "paper"
    lra_scales: tuple[float, float, float, float] = (1.0, 1.0, 0.9, 0.2)
    """b1, b2 of half the hidden channels and s1, s2 of the skip, for the deepest and the next width of the UNet."""
    negative_prompt: bool = True
    """Whether the phrases stand in place of the empty prompt."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {},
        "style": {"svf_midpoint": 5.5, "svf_slope": 3.5},
        "unsafe": {"phrases": "paper"},
        "paper": {"projection": "paper", "svf": "paper"},
        "official": {"lra": "off"},
    }

    def __post_init__(self) -> None:
        if not self.phrases or (isinstance(self.phrases, str) and self.phrases not in ("names", "paper")):
            raise InvalidInput(
                f'SAFREE: phrases is "names", "paper" or a list of texts, got {self.phrases!r}'
            )
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"SAFREE: each template has one {{}} for the phrase, got {self.templates}")
        if min(self.alpha, self.up_t, self.svf_slope, *self.lra_scales) < 0:
            raise InvalidInput(
                "SAFREE: alpha, up_t, svf_slope and lra_scales are at least 0, got "
                f"{self.alpha}, {self.up_t}, {self.svf_slope}, {self.lra_scales}"
            )

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that filters `concepts` out of what it reads; `seed` is not used.

        Warns:
            UnlearnWarning: the negative prompt is longer than the model reads.
        """
        model.refuse_xl("SAFREE")
        words = dict.fromkeys(self._phrases(concepts))
        phrases = tuple(template.format(word) for template in self.templates for word in words)
        before = [hook.negative for hook in model.conditions if isinstance(hook, Filter) and hook.negative]
        negative = ", ".join(dict.fromkeys([*before, ", ".join(phrases)])) if self.negative_prompt else ""
        if model.too_long([negative]):
            limit = model.tokenizer.model_max_length
            warnings.warn(
                f"SAFREE: the negative prompt has more than the {limit} tokens that the model reads; its end is lost: "
                f"{negative[:60]!r}",
                UnlearnWarning,
                stacklevel=2,
            )
        hook = Filter(
            phrases=phrases, negative=negative, alpha=self.alpha, projection=self.projection, svf=self.svf,
            up_t=self.up_t, svf_midpoint=self.svf_midpoint, svf_slope=self.svf_slope,
            padding=self.padding,
        )  # fmt: skip
        sites = [] if self.lra == "off" else reattention_sites(model.unet, self.lra, self.lra_scales)
        return dataclasses.replace(
            model,
            conditions=(*model.conditions, hook),
            activations=(*model.activations, *(s for s in sites if s not in model.activations)),
        )

    def _phrases(self, concepts: Sequence[Concept]) -> tuple[str, ...]:
        names = tuple(name for concept in concepts for name in concept.names)
        if isinstance(self.phrases, tuple):
            return self.phrases
        sexual = any(
            stem in name.lower() for name in names for stem in ("nud", "naked", "sex", "porn", "erotic")
        )
        return PAPER if self.phrases == "paper" and sexual else names


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The condition of SAFREE; fields as there, `negative` is the negative prompt or ""."""

    phrases: tuple[str, ...]
    negative: str
    alpha: float
    projection: str
    svf: str
    up_t: float
    svf_midpoint: float
    svf_slope: float
    padding: bool

    def prepare_empty(self, model: StableDiffusion, empty: Tensor) -> Tensor:
        """Return what is read in place of the empty prompt (1, tokens, width)."""
        return model.read([self.negative]) if self.negative else empty

    def prepare(
        self, model: StableDiffusion, texts: Sequence[str] | None, embeddings: Tensor
    ) -> Callable[[Tensor, Step], Tensor]:
        """Return the filter of one trajectory; it gives its argument itself where no prompt can be filtered."""
        if self.projection == "off":
            return lambda prompt, step: prompt
        end = math.inf if self.svf == "off" else self.up_t
        remove = off(self._concepts(model))
        if texts is None:
            every = torch.ones(embeddings.shape[1], dtype=torch.bool, device=model.device)
            every[0] = False
            rows = [(remove, every, end)] * len(embeddings)
        else:
            found = {text: self.read(model, text, remove) for text in dict.fromkeys(texts)}
            rows = []
            for text, e in zip(texts, embeddings, strict=True):
                matrix, triggers, count = found[text]
                rows.append((matrix, triggers, self.last_step(e[:count].detach(), matrix)))
        wide = torch.promote_types(embeddings.dtype, torch.float32)
        matrices = torch.stack([matrix for matrix, _, _ in rows]).to(wide)
        triggers = torch.stack([trigger for _, trigger, _ in rows])
        until = torch.tensor([last for _, _, last in rows], device=model.device)

        def change(prompt: Tensor, step: Step) -> Tensor:
            passed = step.index * 50 / step.total
            if passed > end:  # for all prompts alike, lest one changes the size of another's batch
                return prompt
            safe = torch.einsum("nij,ntj->nti", matrices, prompt.to(wide)).to(prompt.dtype)
            return torch.where(((passed <= until)[:, None] & triggers)[..., None], safe, prompt)

        return change

    @torch.no_grad()  # what the tokens say is a constant of what differentiates through the embeddings
    def read(self, model: StableDiffusion, text: str, remove: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return what the tokens of a prompt say, given I - P_C (width, width).

        Returns:
            matrix: makes e~ of e, (width, width) float64.
            triggers: which rows are, (tokens,).
            count: rows of the begin token, the text and the first end token.
        """
        ids = model.tokens([text])[0]
        count = int((ids == model.tokenizer.eos_token_id).nonzero()[0]) + 1
        n, matrix = count - 2, remove
        triggers = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if n == 1:
            triggers[1] = True
        elif n > 1:
            masked = ids[:count].repeat(n, 1)
            masked[range(n), range(1, n + 1)] = 0  # "!" in CLIP's vocabulary
            pooled = model.text_encoder(masked).last_hidden_state[:, -1].double()
            triggers[1 : 1 + n] = trigger_tokens((pooled @ remove).norm(dim=1), self.alpha)
            keep = projector(pooled)
            matrix = remove @ keep if self.projection == "official" else keep @ remove
        triggers[1 + n :] = self.padding and triggers.any()
        return matrix, triggers, count

    def last_step(self, e: Tensor, matrix: Tensor) -> float:
        """Return t' of 50 for the rows read (m, width), all of them projected, as if all were triggers."""
        e = e.double()
        alike = F.cosine_similarity(e @ matrix.T, e).mean().item()
        if self.svf == "off":
            return math.inf
        if self.svf == "paper":
            return self.up_t / (1 + math.exp(alike - 1))
        z = 2 * self.svf_slope * (10 * (1 - alike) - self.svf_midpoint)
        return round(self.up_t / (1 + math.exp(-z)))

    @torch.no_grad()
    def _concepts(self, model: StableDiffusion) -> Tensor:
        """Return the hidden states (K, width) at the first end token of the phrases."""
        ids = model.tokens(self.phrases)
        ends = (ids == model.tokenizer.eos_token_id).int().argmax(dim=1)
        return model.text_encoder(ids).last_hidden_state[range(len(ids)), ends]  # type: ignore[no-any-return]


def projector(vectors: Tensor) -> Tensor:
    """Return the projection (width, width) float64 on the span of `vectors` (k, width).

    From an SVD: the Gram matrix of vectors that nearly depend on each other, as those of a masked prompt do, has an
    inverse of noise.
    """
    _, sizes, directions = torch.linalg.svd(vectors.double(), full_matrices=False)
    directions = directions[sizes > 1e-5 * sizes.max()]
    return directions.T @ directions


def off(vectors: Tensor) -> Tensor:
    """Return ``I - P``, the projection (width, width) float64 on what is orthogonal to `vectors` (k, width)."""
    p = projector(vectors)
    return torch.eye(len(p), dtype=p.dtype, device=p.device) - p


def trigger_tokens(d: Tensor, alpha: float) -> Tensor:
    """Return which of two or more tokens are triggers, from their distances d (n,)."""
    others = (d.sum() - d) / (len(d) - 1)
    return ~(d < (1 + alpha) * others)
