"""Which model some weights are of, told by names and shapes."""

import re

from genmu_eval.weights import Weights, part_of

_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Width of the text that cross-attention reads -> model."""
_KEYS = re.compile(r"attn2\.to_k\.weight$")
_ADAPTER = re.compile(r"lora|adapter|hada_|lokr_|mapper|router", re.IGNORECASE)


def architecture(weights: Weights) -> str:
    """Return a name for people, such as "Stable Diffusion 1" or "a U-Net with text of width 64"."""
    if is_adapter(weights):
        return "an adapter"
    widths = {t.shape[1] for name, t in weights.tensors.items() if _KEYS.search(name) and len(t.shape) == 2}
    if len(widths) == 1:
        (width,) = widths
        return _WIDTHS.get(width, f"a U-Net with text of width {width}")
    if any(name.startswith("transformer.") for name in weights.tensors):
        return "a diffusion transformer"
    if any(part_of(name) == "unet" for name in weights.tensors) and not weights.is_delta:
        return "a U-Net without cross-attention"
    return "a delta" if weights.is_delta else f"{', '.join(weights.parts) or 'nothing known'} alone"


def is_adapter(weights: Weights) -> bool:
    """Return whether these are weights added to a model (LoRA and its kin) and none of the model's own."""
    return bool(weights.tensors) and all(_ADAPTER.search(name) for name in weights.tensors)
