"""What a white-box attack asks of a model that draws: its noise through the defence, and pictures of candidates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt
from unlearn_core.spec import fingerprint
from unlearn_metrics import verdicts
from unlearn_metrics.attacks.crafting import Found, adversarial, refused
from unlearn_metrics.attacks.target import TextModel, framed, most_tokens
from unlearn_metrics.attacks.vocabulary import Vocabulary

DETECTORS = "unlearn.detectors"
EXTRACTORS = "unlearn.extractors"


class DrawingModel(TextModel, Protocol):
    """A latent diffusion model as an attack sees all of it, defence included; `StableDiffusion` is one."""

    @property
    def vae(self) -> Any:
        """A diffusers `AutoencoderKL`."""
        ...

    @property
    def scheduler(self) -> Any:
        """Has `alphas_cumprod` (1000,) and `config.prediction_type`."""
        ...

    @property
    def hooks(self) -> Sequence[Any]:
        """What acts while it draws; () where it forgets by its weights alone."""
        ...

    def trajectory(self, texts: Sequence[str], *, embeddings: Tensor) -> Any:
        """Return what `noise` needs of texts, given their hidden states (n, tokens, width) as well.

        Defences that look at the words look at the texts; what they make of the hidden states is differentiable.
        """
        ...

    def noise(self, x: Tensor, t: Tensor, trajectory: Any, *, guidance_scale: float) -> Tensor:
        """Return the noise (n, 4, h, w) that the model with its defence sees in latents, differentiable."""
        ...

    def generate(self, prompts: Sequence[Prompt]) -> Iterable[Any]:
        """Return one uint8 RGB picture (h, w, 3) per prompt."""
        ...


def pair_fingerprint(model: DrawingModel, original: DrawingModel) -> str:
    """Return what a search depends on of the model under attack and the one that shows what is aimed at."""
    return fingerprint([model.fingerprint, original.fingerprint])


def budget(*, predictions: float, pictures: int, steps: int) -> int:
    """Return how many pictures cost as much as a search, for a baseline with nothing but pictures.

    Args:
        predictions: calls of the UNet for one picture that the search needs beside pictures; a gradient counts three.
        pictures: that it draws at most.
        steps: of a picture, each two calls (prompt and empty prompt).
    """
    return pictures + round(predictions / (2 * steps))


@torch.no_grad()
def latents_of(model: DrawingModel, picture: Any) -> Tensor:
    """Return the latents (1, 4, h, w) of a uint8 RGB picture (h, w, 3), as the scheduler scales them."""
    pixels = torch.as_tensor(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    device = model.tokens([""]).device
    posterior = model.vae.encode(pixels.to(device=device, dtype=model.vae.dtype)).latent_dist
    return posterior.mode() * model.vae.config.scaling_factor  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """Latents at a time of the diffusion."""

    x: Tensor
    """(1, 4, h, w)."""
    t: Tensor
    """()."""
    truth: Tensor
    """What a perfect model predicts of x: the noise in it, or the velocity of models that predict that."""

    @classmethod
    def of(cls, model: DrawingModel, latents: Tensor, t: int, generator: torch.Generator) -> "Noised":
        """Return latents (1, 4, h, w) with noise of a CPU generator, as much as there is at time t in [0, 1000)."""
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        share = model.scheduler.alphas_cumprod[t].to(latents)
        signal, rest = share.sqrt(), (1 - share).sqrt()
        velocity = model.scheduler.config.prediction_type == "v_prediction"
        truth = signal * noise - rest * latents if velocity else noise
        return cls(x=signal * latents + rest * noise, t=torch.tensor(t, device=latents.device), truth=truth)

    def seen_by(self, model: DrawingModel, text: str, states: Tensor, scale: float = 1.0) -> Tensor:
        """Return what a model with its defence predicts, (1, 4, h, w) float32.

        Args:
            model: any.
            text: the prompt.
            states: its hidden states (1, tokens, width).
            scale: of the guidance; at 1 the empty prompt is asked only where a defence needs it.
        """
        trajectory = model.trajectory([text], embeddings=states)
        return model.noise(self.x, self.t, trajectory, guidance_scale=scale).float()


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """A prompt with places for tokens that are searched for."""

    tokens: tuple[int | None, ...]
    """Ids without begin and end; None is a place."""

    @property
    def count(self) -> int:
        """Number of places."""
        return self.tokens.count(None)

    def filled(self, ids: Tensor) -> Tensor:
        """Return the ids (length,) of the prompt with ids (count,) in its places."""
        found = iter(ids.tolist())
        return torch.tensor([next(found) if token is None else token for token in self.tokens])

    def at_places(self, rows: Tensor) -> Tensor:
        """Return those (count, …) of rows (tokens, …), one for each token with begin, end and padding."""
        return rows[[1 + i for i, token in enumerate(self.tokens) if token is None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The prompts of one search: what they say, and what the model under attack draws for them."""

    attack: str
    model: DrawingModel
    words: Vocabulary
    row: Prompt
    about: Concept
    slots: Slots

    @classmethod
    def of(
        cls, attack: Any, model: DrawingModel, words: Vocabulary, row: Prompt, about: Concept
    ) -> "Candidates":
        """Return the prompts made of a row, with places where the attack's `slots` has them."""
        slots = attack.slots(prompt_ids(model, row.text), most_tokens(model))
        return cls(attack=attack.name, model=model, words=words, row=row, about=about, slots=slots)

    def text(self, ids: Tensor) -> str:
        """Return the prompt with ids (count,) in its places."""
        return self.words.texts(self.slots.filled(ids)[None])[0]

    def framed(self, ids: Tensor) -> Tensor:
        """Return what the text encoder reads (1, tokens) with ids (count,) in the places."""
        return framed(self.model, self.slots.filled(ids)[None])

    def gradient(
        self, ids: Tensor, noised: Noised, wanted: Tensor, scale: float = 1.0
    ) -> tuple[float, Tensor]:
        """Return a loss and its gradient (count, width) float32 by the vectors of ids (count,) in the places.

        The loss is the mean squared difference of what the model predicts to `wanted` (1, 4, h, w) float32.
        """
        read, text = self.framed(ids), self.text(ids)
        vectors = self.model.token_vectors(read).detach().requires_grad_()
        predicted = noised.seen_by(self.model, text, self.model.encode_vectors(read, vectors), scale)
        loss = mse_loss(predicted, wanted)
        large = 2.0**14 if vectors.dtype == torch.float16 else 1.0  # lest small gradients become 0 there
        (gradient,) = torch.autograd.grad(loss * large, vectors)
        return loss.item(), self.slots.at_places(gradient[0].float() / large)

    def found(self, ids: Tensor, loss: float) -> Found:
        """Return the prompt with ids (count,) in the places as what was found."""
        text, whole = self.text(ids), self.slots.filled(ids)
        return Found(text=text, ids=tuple(whole.tolist()), read=tuple(self.words.read([text])[0]), loss=loss)

    def allowed(self, text: str) -> bool:
        """Return whether a prompt may be drawn and returned: no forbidden word, nothing that the guard refuses."""
        fixed = torch.tensor([[i for i in self.slots.tokens if i is not None]], dtype=torch.long)
        own, said = self.words.texts(fixed)[0].casefold(), text.casefold()
        new = [word for word in self.words.forbidden if said.count(word) > own.count(word)]
        return bool(text) and not new and not refused(text, self.row, self.about)

    def draw(self, text: str) -> Any:
        """Return the picture (h, w, 3) of a prompt from the row's own noise."""
        return next(iter(self.model.generate([adversarial(self.attack, self.row, text)])))


def presence(detector: Any, pictures: Sequence[Any]) -> list[float]:
    """Return the confidence of a detector for each picture; what it cannot judge counts as 0."""
    return [0.0 if p is None else float(p) for p in detector.presence(pictures)]


def detector_of(name: str, settings: Mapping[str, Any], about: Concept) -> Any:
    """Return a detector that looks for a concept unless its settings state another."""
    return verdicts.plug(DETECTORS, name, settings, concept=about.name)


def prompt_ids(model: TextModel, text: str) -> list[int]:
    """Return the ids that are read of a prompt, without begin and end."""
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return ids[: most_tokens(model)]  # type: ignore[no-any-return]
