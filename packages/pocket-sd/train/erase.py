"""A closed-form edit of the cross-attention, to see that one concept can be taken out of the shipped model.

W' = (sum_e W a_e c_e^T + sum_p W c_p c_p^T + r W) (sum_e c_e c_e^T + sum_p c_p c_p^T + r I)^-1: where the text said
c_e it now reads a_e, where it said c_p nothing changes (Gandikota et al. 2024, "Unified Concept Editing", eq. 7).
"""

import copy
from collections.abc import Sequence

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from pocket_sd.words import article

WEIGHT = 3.0
"""Of the erased words in both sums: there are few of them among many that are preserved."""
TEMPLATES = (
    "{}",
    "a picture of {}",
    "{}, sketch style",
    "{}, blue background",
    "a drawing of {}, pixel style",
)
STYLE_TEMPLATES = ("a dog, {} style", "an apple, {} style", "a house in {} style on a blue background")


@torch.no_grad()
def _states(pipe: StableDiffusionPipeline, text: str, word: str) -> Tensor:
    """Return the encoder's states (tokens, width) of `text` from the last token of `word` to the end, padded."""
    ids = pipe.tokenizer(text, padding="max_length", max_length=pipe.tokenizer.model_max_length)["input_ids"]
    words = pipe.tokenizer(word, add_special_tokens=False)["input_ids"]
    last = max(i for i in range(len(ids)) if ids[i : i + len(words)] == words) + len(words) - 1
    return pipe.text_encoder(torch.tensor([ids])).last_hidden_state[0, last:].double()


def erased(
    pipe: StableDiffusionPipeline,
    words: Sequence[str],
    anchor: str,
    preserve: Sequence[str],
    *,
    style: bool = False,
    weight: float = WEIGHT,
    ridge: float = 0.1,
) -> StableDiffusionPipeline:
    """Return a pipeline that reads `anchor` where a text says one of `words`, and the rest as before.

    Args:
        pipe: stays as it is.
        words: what is erased: nouns, or styles.
        anchor: what they become.
        preserve: the words that keep their meaning.
        style: whether `words`, `anchor` and `preserve` are styles.
        weight: of the erased words in both sums.
        ridge: how strongly the matrices are held where no text leads; r above.
    """
    templates = STYLE_TEMPLATES if style else TEMPLATES
    noun = (lambda w: w) if style else article
    width = pipe.text_encoder.config.hidden_size
    read, said, everything = torch.zeros(width, width).double(), [], ridge * torch.eye(width).double()
    for template in templates:
        becomes = _states(pipe, template.format(noun(anchor)), anchor)
        for word in words:
            c = _states(pipe, template.format(noun(word)), word)
            n = min(len(c), len(becomes))
            said.append((becomes[:n], c[:n]))
        for word in preserve:
            c = _states(pipe, template.format(noun(word)), word)
            everything += c.T @ c
    read += everything
    for a, c in said:
        read += weight * a.T @ c
        everything += weight * c.T @ c
    change = torch.linalg.solve(everything, read, left=False)  # W' = W @ change
    unet = copy.deepcopy(pipe.unet)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.weight.data = (module.weight.data.double() @ change).float()
    edited = StableDiffusionPipeline(**{**pipe.components, "unet": unet}, requires_safety_checker=False)
    edited.set_progress_bar_config(disable=True)
    return edited
