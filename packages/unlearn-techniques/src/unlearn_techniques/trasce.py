"""TraSCE: trajectory steering for concept erasure.

Paper:
    A. Jain, Y. Kobayashi, T. Shibuya, Y. Takida, N. Memon, J. Togelius, Y. Mitsufuji, "TraSCE: Trajectory Steering for
    Concept Erasure", 2024, arXiv 2412.07658.
Idea:
    At every step eps_0, eps_p and eps_n are predicted for the empty prompt, the prompt and the concept. Loss guidance
    moves the latents, ``loss = -g exp(-||eps_p - eps_n|| / sigma)``, ``x_t <- x_t - d dloss/dx_t``. The modified
    negative prompt is ``eps = eps_0 + s (eps_p - eps_n)``, predicted before the move; the scheduler steps from the
    moved x_t.
    The move brings eps_p *nearer* to eps_n: a prompt for the concept is then guided by nothing, and the unconditional
    picture comes out. For prompts far from the concept the exponential leaves nothing of it.
Changes:
    The guidance and the latents of each step. No weights.
Defaults:
    The authors' command for an object: g, d and sigma 1, the text is the concept's names. Their other commands are
    presets: "style" (Van Gogh) sigma 0.25; "unsafe" (nudity) g 1.5, sigma 2; "violence" g 1.5, sigma 1, with
    `text="paper"`, their list of words. "argparse" is the script without arguments: g 15, d 5, sigma 1.
Deviations:
    One norm per picture, where the script takes one over its batch. The exponential and the norm are in float32. Where
    eps_p and eps_n differ by rounding alone, the latents stay. With a scheduler that scales its latents, such
    as Euler's, they move as DDIM's would. The concept's text is cut at the model's length; there it is an error.
Reference code:
    https://github.com/anubhav1997/TraSCE (no licence), head 8e3813b, read, not copied.
Cost:
    Three predictions a step in place of two and a backward pass through them, 2.6 x the time of drawing. No training.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.steps import Predictions, Step
from unlearn_techniques.diffusion.weights import with_weights

NUDITY = "naked, nude, bare, exposed, Stripped, topless, male genitalia, penis, buttocks"
VIOLENCE = "hate, harassment, violence, suffering, humiliation, harm, suicide, blood"
"""The negative prompts of the authors' commands; they are never drawn, only steered away from."""


@dataclass(frozen=True, kw_only=True)
class TraSCE:
    """TraSCE: a modified negative prompt, and latents that move to where it takes hold."""

    text: str | None = None
    """What to steer away from; by default the concept's names, with "paper" the authors' list for nudity or violence
    where the concept is one of them."""
    modified_negative_prompt: bool = True
    """eps_0 + s (eps_p - eps_n); without it the guidance is eps_0 + s (eps_p - eps_0)."""
    negative_scale: float = 1.0
    """w in eps_0 + s (eps_p - eps_0 - w (eps_n - eps_0)); 1 in the paper."""
    loss_guidance: bool = True
    """Whether the latents move."""
    guidance_loss_scale: float = 1.0
    """g; only its product with d matters."""
    discriminator_guidance_scale: float = 1.0
    """d."""
    sigma: float = 1.0

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {},
        "style": {"sigma": 0.25},
        "unsafe": {"text": "paper", "guidance_loss_scale": 1.5, "sigma": 2.0},
        "violence": {"text": "paper", "guidance_loss_scale": 1.5},
        "argparse": {"guidance_loss_scale": 15.0, "discriminator_guidance_scale": 5.0},
    }

    def __post_init__(self) -> None:
        if min(self.guidance_loss_scale, self.discriminator_guidance_scale) < 0 or not self.sigma > 0:
            raise InvalidInput(
                "TraSCE: guidance_loss_scale and discriminator_guidance_scale are at least 0 and sigma is above 0, got "
                f"{self.guidance_loss_scale}, {self.discriminator_guidance_scale}, {self.sigma}"
            )

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that steers away from `concepts`; `seed` is not used.

        Warns:
            UnlearnWarning: the text is longer than the model reads.
        """
        text = self._text(concepts)
        if model.too_long([text]):
            limit = model.tokenizer.model_max_length
            warnings.warn(
                f"TraSCE: the text has more than the {limit} tokens that the model reads; its end is lost: "
                f"{text[:60]!r}",
                UnlearnWarning,
                stacklevel=2,
            )
        steer = Steer(
            text=text, modified_negative_prompt=self.modified_negative_prompt,
            negative_scale=self.negative_scale, loss_guidance=self.loss_guidance,
            guidance_loss_scale=self.guidance_loss_scale,
            discriminator_guidance_scale=self.discriminator_guidance_scale, sigma=self.sigma,
        )  # fmt: skip
        # The same weights, none of which asks for a gradient: their inputs need not be kept for the backward pass.
        frozen = with_weights(model.unet, {}) if steer.gradient else model.unet
        return dataclasses.replace(model, unet=frozen, guidances=(*model.guidances, steer))

    def _text(self, concepts: Sequence[Concept]) -> str:
        names = ", ".join(name for concept in concepts for name in concept.names)
        if self.text != "paper":
            return names if self.text is None else self.text
        lists = {
            ("nud", "naked", "sex", "porn", "erotic"): NUDITY,
            ("violen", "harm", "blood", "hate"): VIOLENCE,
        }
        fits = (text for stems, text in lists.items() if any(stem in names.lower() for stem in stems))
        return next(fits, names)


@dataclass(frozen=True, kw_only=True)
class Steer:
    """The guidance of TraSCE; fields as there."""

    text: str
    modified_negative_prompt: bool
    negative_scale: float
    loss_guidance: bool
    guidance_loss_scale: float
    discriminator_guidance_scale: float
    sigma: float

    @property
    def texts(self) -> tuple[str, ...]:
        """The one text whose noise it needs."""
        return (self.text,)

    @property
    def gradient(self) -> bool:
        """Whether it differentiates what the UNet predicts."""
        return self.loss_guidance and self.guidance_loss_scale * self.discriminator_guidance_scale > 0

    def start(self) -> Callable[[Tensor, Predictions, Step], Tensor]:
        """Return the guidance of one trajectory; it has no state."""

        def step(direction: Tensor, seen: Predictions, where: Step) -> Tensor:
            (negative,) = seen.extra
            if self.gradient:
                where.latents = where.latents - self.move(seen, negative)
            if self.modified_negative_prompt:  # with w 1, eps_p - eps_0 becomes eps_p - eps_n
                direction = direction - self.negative_scale * (negative - seen.empty)
            return direction

        return step

    def move(self, seen: Predictions, negative: Tensor) -> Tensor:
        """Return ``d dloss/dx_t``, shaped as the latents."""
        differentiated = torch.is_grad_enabled()  # from outside, as a white-box attack does
        rounding = 10 * torch.finfo(negative.dtype).eps * _size(seen.prompt)
        with torch.enable_grad():
            gap = _rows(seen.prompt - negative)
            # In the place of rounding a constant, as a norm has no second derivative at 0.
            gap = torch.where((_size(gap) > rounding)[:, None], gap, 1.0)
            n = torch.linalg.vector_norm(gap, dim=1)
            (slope,) = torch.autograd.grad(n.sum(), seen.x, create_graph=differentiated, retain_graph=True)
        # dloss/dx = g / sigma exp(-n / sigma) dn/dx; the factor would underflow in half precision on the way.
        factor = self.guidance_loss_scale / self.sigma * torch.exp(-n / self.sigma)
        # x_t is what the UNet reads; the scheduler may hold it in other units.
        factor = self.discriminator_guidance_scale * factor * _size(seen.latents) / _size(seen.x)
        return (factor[:, None] * _rows(slope)).view_as(slope).to(slope.dtype)


def _size(x: Tensor) -> Tensor:
    """Return the norm (n,) of each row, a constant."""
    return _rows(x.detach()).norm(dim=1)


def _rows(x: Tensor) -> Tensor:
    """Return (n, numbers), in float32 at least."""
    return x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
