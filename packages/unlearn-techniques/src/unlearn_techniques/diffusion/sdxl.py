"""Stable Diffusion XL: two text encoders, a pooled vector, and the size of the picture as a condition.

What its UNet reads of a text is one tensor (n, tokens + 1, 2048): the last but one hidden states of both encoders side
by side, and in the last row the pooled vector, filled up with zeros. So everything that holds, mixes and differentiates
embeddings is the same as for SD 1.x; only here are they taken apart again.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.steps import Step, hooked


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusionXL(StableDiffusion):
    """A Stable Diffusion XL base model; `StableDiffusion.load` and `from_pipeline` return one where it is one."""

    text_encoder_2: Any
    tokenizer_2: Any
    zero_empty: bool = True
    """Whether zeros stand for the empty prompt of the guidance (`force_zeros_for_empty_prompt`)."""

    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "text_encoder_2")

    @functools.cached_property
    def decoder(self) -> Any:  # type: ignore[override]
        """The autoencoder; in float32 where the model is in float16, in which that of XL overflows."""
        upcast = self.dtype == torch.float16 and self.vae.config.force_upcast
        return copy.deepcopy(self.vae).float() if upcast else self.vae

    def to_pipeline(self) -> Any:
        """Return a diffusers `StableDiffusionXLPipeline` of the same parts.

        Raises:
            InvalidInput: the model forgets by hooks, which no pipeline has.
        """
        from diffusers import StableDiffusionXLPipeline

        self.refuse_hooks()
        names = (*self.parts, "tokenizer", "tokenizer_2", "scheduler")
        return StableDiffusionXLPipeline(
            **{name: getattr(self, name) for name in names},
            force_zeros_for_empty_prompt=self.zero_empty,
            add_watermarker=False,
        )

    def refuse_xl(self, technique: str) -> None:
        """Raise: this is one.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            f"{technique} reads the one text encoder of Stable Diffusion 1.x and 2.x, and {self.source} is XL, which "
            "has two; uce, esd, ca, ssd, rece, fade, cogfd, sld and trasce work on it"
        )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the hidden states (n, tokens, 2048) that the cross-attention reads."""
        return torch.cat([states for states, _ in self._encoded(texts)], dim=-1)

    def read(self, texts: Sequence[str]) -> Tensor:
        """Return what the UNet reads of texts, (n, tokens + 1, 2048): hidden states and, last, the pooled vector."""
        (first, _), (second, pooled) = self._encoded(texts)
        states = torch.cat([first, second], dim=-1)
        row = F.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
        return torch.cat([states, row[:, None]], dim=1)

    def unconditional(self) -> Tensor:
        """Return what stands for the empty prompt of the guidance, (1, tokens + 1, 2048)."""
        empty = self.read([""])
        return torch.zeros_like(empty) if self.zero_empty else empty

    def _encoded(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Return (hidden states, pooled) of each encoder."""
        found = []
        for encoder, tokenizer in (
            (self.text_encoder, self.tokenizer),
            (self.text_encoder_2, self.tokenizer_2),
        ):
            ids = tokenizer(
                list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            output = encoder(ids.to(self.device), output_hidden_states=True)
            found.append((output.hidden_states[-2], output[0]))
        return found

    def _predict(self, x: Tensor, t: Tensor, read: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        states, pooled = read[:, :-1], read[:, -1, : self.text_encoder_2.config.projection_dim]
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = (side * factor for side in x.shape[-2:])
        # Original size, the corner of the crop, target size: a whole picture of this size.
        sizes = torch.tensor([height, width, 0, 0, height, width], device=x.device, dtype=read.dtype)
        added = {"text_embeds": pooled, "time_ids": sizes.expand(len(x), -1)}
        with hooked(self.unet, self.activations, rows, step):
            predicted = self.unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added)
        return predicted.sample  # type: ignore[no-any-return]
