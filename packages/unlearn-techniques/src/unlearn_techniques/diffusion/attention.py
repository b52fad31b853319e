"""The cross-attention of a UNet, and the groups of its parameters that papers train.

Modules are found by walking `Attention` objects, not by surgery on state dicts: adapters and compilers rename tensors.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from unlearn_core.errors import InvalidInput, one_of


def cross_attentions(unet: nn.Module) -> dict[str, Any]:
    """Return name -> `Attention` of every cross-attention (`attn2`), in the order of the UNet's modules.

    Raises:
        InvalidInput: projections that are fused, adapted or of another kind, where an edit would have no effect.
    """
    from diffusers.models.attention_processor import Attention

    found = {n: m for n, m in unet.named_modules() if n.endswith("attn2") and isinstance(m, Attention)}
    if not found:
        raise InvalidInput("the UNet has no cross-attention (attn2), so no text to edit")
    for name, attention in found.items():
        if getattr(attention, "fused_projections", False):
            raise InvalidInput(f"{name} is fused: call unet.unfuse_qkv_projections() before editing")
        if getattr(attention, "added_kv_proj_dim", None):
            raise InvalidInput(
                f"{name} reads its text through added projections, which no technique here edits"
            )
        for side in ("to_k", "to_v"):
            if not isinstance(getattr(attention, side), nn.Linear):
                raise InvalidInput(
                    f"{name}.{side} is adapted: merge and remove the adapters (LoRA) before editing"
                )
    return found


def text_projections(unet: nn.Module) -> dict[str, nn.Linear]:
    """Return name -> every `attn2.to_k` and `attn2.to_v`; SD v1.4 has 32.

    Raises:
        InvalidInput: as `cross_attentions`.
    """
    return {
        f"{name}.{side}": getattr(attention, side)
        for name, attention in cross_attentions(unet).items()
        for side in ("to_k", "to_v")
    }


def _edges(name: str) -> bool:
    """Whether a tensor belongs to the output head or the time embedding MLP ("out", "time_embed" of CompVis)."""
    return name.startswith(("conv_norm_out.", "conv_out.", "time_embedding."))


_GROUPS: dict[str, Callable[[str, Any], bool]] = {
    # name of the tensor, its module -> whether it is trained
    "esd-x": lambda name, module: ".attn2." in name,
    "esd-x-strict": lambda name, module: ".attn2.to_k." in name or ".attn2.to_v." in name,
    "esd-u": lambda name, module: ".attn2." not in name and not _edges(name),
    "esd-u-2025": lambda name, module: ".attn2." not in name and isinstance(module, nn.Linear | nn.Conv2d),
    "selfattn": lambda name, module: ".attn1." in name,
    "notime": lambda name, module: not _edges(name),
    "full": lambda name, module: True,
    "esd-all": lambda name, module: isinstance(module, nn.Linear | nn.Conv2d),
}
GROUPS = tuple(_GROUPS)


def parameter_group(unet: nn.Module, group: str) -> list[str]:
    """Return the names of the parameters of a group, in the UNet's order.

    The groups of ESD: `esd-x` all of attn2; `esd-x-strict` its keys and values; `esd-u` all but attn2, the output head
    and the time embedding (2023 code); `esd-u-2025` every linear and convolution outside attn2; `selfattn` attn1;
    `notime` all but the head and time embedding; `full` all; `esd-all` every linear and convolution (2025).

    Raises:
        InvalidInput: no such group, or one that is empty in this UNet.
    """
    if group not in _GROUPS:
        raise InvalidInput(one_of("parameter group", group, GROUPS))
    modules = dict(unet.named_modules())
    names = [n for n, _ in unet.named_parameters() if _GROUPS[group](n, modules[n.rpartition(".")[0]])]
    if not names:
        raise InvalidInput(f"the parameter group {group!r} is empty in this UNet")
    return names
