"""The groups of parameters of a CLIP text encoder that papers train."""

import re
from typing import Literal

from torch import nn

from unlearn_core.errors import InvalidInput

_PARTS = {"all": "", "ffn": ".mlp.", "attn": ".self_attn."}


def text_parameters(
    text_encoder: nn.Module, component: Literal["all", "ffn", "attn"] = "all", layers: int | None = None
) -> list[str]:
    """Return the names of the parameters of a group, in the encoder's order; the vocabulary's vectors are in none.

    Args:
        text_encoder: of CLIP; transformers 4 wraps in `text_model` what transformers 5 does not.
        component: of each layer its perceptron, its attention, or both and the norms.
        layers: the first so many layers; None is all of them, and with "all" the final norm as well.

    Raises:
        InvalidInput: the group is empty.
    """
    found = []
    for name, _ in text_encoder.named_parameters():
        layer = re.search(r"(?:^|\.)encoder\.layers\.(\d+)\.", name)
        if layer:
            taken = _PARTS[component] in name and (layers is None or int(layer[1]) < layers)
        else:
            taken = "final_layer_norm." in name and component == "all" and layers is None
        if taken:
            found.append(name)
    if not found:
        raise InvalidInput(f"the text encoder has no encoder.layers with {component!r} parameters to train")
    return found
