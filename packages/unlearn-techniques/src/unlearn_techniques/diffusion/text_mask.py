"""A mask of the tokens of a text, added to the logits of the cross-attention while a context lasts."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from unlearn_techniques.diffusion.attention import cross_attentions
from unlearn_techniques.diffusion.model import StableDiffusion


def text_mask(model: StableDiffusion, texts: Sequence[str]) -> Tensor:
    """Return the tokenizer's mask (n, tokens) of texts: 1 up to the first EOS, 0 on the padding."""
    mask = model.tokenizer(
        list(texts), padding="max_length", max_length=model.tokenizer.model_max_length, truncation=True,
        return_tensors="pt",
    ).attention_mask  # fmt: skip
    return mask.to(model.device)  # type: ignore[no-any-return]


@contextlib.contextmanager
def added_to_logits(unet: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Add a mask (n, tokens) to the logits of every cross-attention of a UNet, while the context lasts; None: nothing.

    Raises:
        InvalidInput: as `cross_attentions`.
    """

    def add(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**named, "attention_mask": mask[:, None].to(inputs[0].dtype)}  # type: ignore[index]

    handles = []
    try:
        for attention in cross_attentions(unet).values() if mask is not None else ():
            handles.append(attention.register_forward_pre_hook(add, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
