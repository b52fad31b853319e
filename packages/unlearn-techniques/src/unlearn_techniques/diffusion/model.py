"""Stable Diffusion as its parts, with one way to predict noise and one loop to draw pictures.

    model = StableDiffusion.load("pocket")
    edited = UCE().apply(model, [concept], seed=0)
    pictures = list(edited.generate(prompts, Sampler(steps=25, guidance_scale=4.0)))

The holder is frozen and techniques return another one: `dataclasses.replace` with other parts or hooks. Parts that a
technique does not change are shared, never copied.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_techniques.diffusion.fingerprints import hooks_fingerprint, weights_fingerprint
from unlearn_techniques.diffusion.steps import (
    Activation,
    Condition,
    Guidance,
    Predictions,
    Step,
    Trajectory,
    branches,
    differentiable,
    hooked,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusion:
    """A Stable Diffusion of the 1.x or 2.x kind: real diffusers and transformers parts, and the hooks of techniques.

    All modules are in evaluation mode, on one device and of one dtype.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    """The one the model came with; a `Sampler` makes its own from this one's configuration."""
    source: str = ""
    """Where it came from: a Hub id, a folder, "pocket"."""
    conditions: tuple[Condition, ...] = ()
    guidances: tuple[Guidance, ...] = ()
    activations: tuple[Activation, ...] = ()

    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder")
    """Names of the fields that hold weights."""

    @classmethod
    def load(
        cls, source: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> "StableDiffusion":
        """Return the model of a Hub id, a folder in diffusers layout, or a registered name such as "pocket".

        Raises:
            InvalidInput: no such model, not of the 1.x, 2.x or XL kind, a pickle, a damaged file.
            Unavailable: the Hub cannot be reached.
        """
        from unlearn_techniques.diffusion.loading import load_pipeline

        loaded = cls.from_pipeline(load_pipeline(str(source), dtype), source=str(source))
        return loaded.to(device=device)

    @classmethod
    def from_pipeline(cls, pipe: Any, *, source: str = "") -> "StableDiffusion":
        """Return the model of a diffusers `StableDiffusionPipeline` or XL; the parts are shared with it.

        Raises:
            InvalidInput: a pipeline of another kind.
        """
        from unlearn_techniques.diffusion.loading import check_parts
        from unlearn_techniques.diffusion.sdxl import StableDiffusionXL

        check_parts(pipe)
        kind, own = cls, {}
        if getattr(pipe, "text_encoder_2", None) is not None:
            kind = StableDiffusionXL
            own = {"text_encoder_2": pipe.text_encoder_2, "tokenizer_2": pipe.tokenizer_2}
            own["zero_empty"] = bool(pipe.config.get("force_zeros_for_empty_prompt", True))
        for name in kind.parts:
            getattr(pipe, name).eval()
        return kind(
            unet=pipe.unet, vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer,
            scheduler=pipe.scheduler, source=source or str(getattr(pipe, "name_or_path", "") or "a pipeline"), **own,
        )  # fmt: skip

    def to_pipeline(self) -> Any:
        """Return a diffusers `StableDiffusionPipeline` of the same parts, without a safety checker.

        Raises:
            InvalidInput: the model forgets by hooks, which no pipeline has.
        """
        from diffusers import StableDiffusionPipeline

        self.refuse_hooks()
        parts = {name: getattr(self, name) for name in (*self.parts, "tokenizer", "scheduler")}
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    def refuse_hooks(self) -> None:
        """Check that the model forgets by its weights alone.

        Raises:
            InvalidInput: something acts while it draws.
        """
        if self.hooks:
            names = ", ".join(type(hook).__name__ for hook in self.hooks)
            raise InvalidInput(
                f"{names} acts while the model draws, not in its weights: a diffusers pipeline cannot hold it. "
                "Draw with generate(), or save the weights alone by leaving the hooks out"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model in diffusers layout as safetensors.

        Raises:
            InvalidInput: the model forgets by hooks.
        """
        from unlearn_techniques.diffusion.loading import quietly

        pipe = self.to_pipeline()
        with quietly():
            pipe.save_pretrained(folder, safe_serialization=True)

    def to(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return the model on a device or in a dtype; what is there already is shared."""
        parts = {}
        for name in self.parts:
            part = getattr(self, name)
            changes = (device and torch.device(device) != part.device) or (dtype and dtype != part.dtype)
            parts[name] = copy.deepcopy(part).to(device=device, dtype=dtype) if changes else part
        return dataclasses.replace(self, **parts)

    def refuse_xl(self, technique: str) -> None:
        """Check that a technique that reads one text encoder is not given a model with two.

        Raises:
            InvalidInput: the model is Stable Diffusion XL.
        """

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.unet.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of its weights."""
        return self.unet.dtype  # type: ignore[no-any-return]

    @property
    def hooks(self) -> tuple[Any, ...]:
        """Everything that acts while it draws."""
        return (*self.conditions, *self.guidances, *self.activations)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of all weights, the vocabulary and the configuration of the hooks."""
        base = weights_fingerprint({name: getattr(self, name) for name in self.parts}, self.tokenizer)
        return hooks_fingerprint(base, self.hooks)

    @property
    def decoder(self) -> Any:
        """The autoencoder, as it turns latents into pictures."""
        return self.vae

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Return the shape (4, h, w) of the latents of a picture, by default of the model's own size.

        Raises:
            InvalidInput: a side that the autoencoder and the UNet cannot divide.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        size = self.unet.config.sample_size
        own = (size, size) if isinstance(size, int) else tuple(size)
        divisor = 2 ** (len(self.unet.config.block_out_channels) - 1)
        sides = []
        for given, side in zip((height, width), own, strict=True):
            given = side * factor if given is None else given
            if given < 1 or given % (factor * divisor):
                raise InvalidInput(
                    f"pictures of {self.source} have sides of n x {factor * divisor}, got {given}"
                )
            sides.append(given // factor)
        return (self.unet.config.in_channels, *sides)  # type: ignore[return-value]

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the token ids (n, tokens) of texts, padded, and cut at the model's length."""
        ids = self.tokenizer(
            list(texts), padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        return ids.to(self.device)  # type: ignore[no-any-return]

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return those of `texts` that have more tokens than the model reads, and so lose their end."""
        limit = self.tokenizer.model_max_length
        return [text for text in texts if len(self.tokenizer(text, verbose=False).input_ids) > limit]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the text encoder's last hidden states (n, tokens, width), after its final norm."""
        return self.text_encoder(self.tokens(texts)).last_hidden_state  # type: ignore[no-any-return]

    def read(self, texts: Sequence[str]) -> Tensor:
        """Return all that the UNet reads of texts: `encode`, and for XL more; (n, rows, width)."""
        return self.encode(texts)

    def token_vectors(self, ids: Tensor) -> Tensor:
        """Return the vocabulary's vectors (n, tokens, width) for ids (n, tokens); see `prompt_embeddings`."""
        from unlearn_techniques.diffusion.prompt_embeddings import token_embeddings

        return token_embeddings(self, ids)

    def encode_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """Return what `encode` returns of prompts given as vectors (n, tokens, width); gradients flow to them."""
        from unlearn_techniques.diffusion.prompt_embeddings import encode_embeddings

        return encode_embeddings(self, ids, vectors)

    def unconditional(self) -> Tensor:
        """Return what stands for the empty prompt of the guidance, (1, rows, width)."""
        return self.read([""])

    def trajectory(
        self,
        texts: Sequence[str] | None = None,
        *,
        embeddings: Tensor | None = None,
        empty: Tensor | None = None,
    ) -> Trajectory:
        """Return the start of a trajectory for texts, or for embeddings (n, tokens, width) in their place.

        Args:
            texts: the prompts.
            embeddings: of the prompts, where they are at hand or come from no text.
            empty: embedding (1, tokens, width) of what stands for the empty prompt, such as a negative prompt;
                conditions may change it.
        """
        if embeddings is None:
            if texts is None:
                raise InvalidInput("a trajectory needs texts or embeddings")
            embeddings = self.read(texts)
        empty = self.unconditional() if empty is None else empty
        for hook in self.conditions:
            if hasattr(hook, "prepare_empty"):
                empty = hook.prepare_empty(self, empty)
        return Trajectory(
            prompt=embeddings,
            empty=empty,
            extra=tuple(self.read([text]) for hook in self.guidances for text in hook.texts),
            conditions=tuple(hook.prepare(self, texts, embeddings) for hook in self.conditions),
            guidances=tuple(hook.start() for hook in self.guidances),
        )

    def noise(
        self,
        x: Tensor,
        t: Tensor | int,
        trajectory: Trajectory,
        *,
        guidance_scale: float | Tensor = 1.0,
        step: Step | None = None,
    ) -> Tensor:
        """Return the noise (n, 4, h, w) that the model, with all its hooks, sees in latents.

        ``empty + scale * (prompt - empty)`` (Ho & Salimans 2022), the bracket changed by the guidances. At scale 1
        and without a guidance the empty prompt is not asked.

        Args:
            x: latents (n, 4, h, w) as the scheduler scales them.
            t: timestep, () or (n,).
            trajectory: of the same n prompts.
            guidance_scale: one number, or (n, 1, 1, 1).
            step: where in a trajectory this is; by default the first of 50 whose time has passed `t`.
        """
        t = torch.as_tensor(t, device=x.device)
        if step is None:
            total = 50
            step = Step(index=int(total * (1 - t.float().mean().item() / 1000)), total=total, t=t, latents=x)
        prompt = trajectory.prompt
        for condition in trajectory.conditions:
            prompt = condition(prompt, step)
        guided = bool(trajectory.guidances) or (
            bool((guidance_scale != 1).any()) if isinstance(guidance_scale, Tensor) else guidance_scale != 1
        )
        read, rows = branches(prompt, trajectory, self.activations, guided=guided)
        count = len(read) // len(x)
        times = t.repeat(count) if t.ndim else t
        with differentiable(x, self.guidances) as x:
            repeated = x if count == 1 else torch.cat([x] * count)
            predicted = self._predict(repeated, times, read, rows, step).chunk(count)
        if not guided:
            return predicted[0]
        empty, asked, *extra = predicted
        direction, start, latents = asked - empty, 0, step.latents
        for hook, apply in zip(self.guidances, trajectory.guidances, strict=True):
            own = tuple(extra[start : start + len(hook.texts)])
            seen = Predictions(empty=empty, prompt=asked, extra=own, x=x, latents=latents)
            direction = apply(direction, seen, step)
            start += len(hook.texts)
        return empty + guidance_scale * direction

    def generate(
        self, prompts: Sequence[Prompt], sampler: Any = None, *, progress: Any = None
    ) -> Iterator[Any]:
        """Yield one uint8 RGB picture (h, w, 3) per prompt, in order; see `sampling.generate`."""
        from unlearn_techniques.diffusion.sampling import Sampler, generate

        return generate(self, prompts, sampler or Sampler(), progress=progress)

    def _predict(self, x: Tensor, t: Tensor, read: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        with hooked(self.unet, self.activations, rows, step):
            return self.unet(x, t, encoder_hidden_states=read).sample  # type: ignore[no-any-return]
