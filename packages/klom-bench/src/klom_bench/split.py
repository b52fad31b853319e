"""What a method is given: the training images, and which of them to forget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Split:
    """A train set divided into forget and retain, and a validation set no model was trained on.

    Attributes:
        images: (n, ...) float32, normalised as the network expects.
        labels: (n,) int64.
        forget: (f,) int64 indices into the train set.
        retain: (r,) int64, all other indices, ascending.
        val_images: (v, ...) float32.
        val_labels: (v,) int64.
    """

    images: Tensor
    labels: Tensor
    forget: Tensor
    retain: Tensor
    val_images: Tensor
    val_labels: Tensor

    @classmethod
    def of(
        cls, images: Tensor, labels: Tensor, forget: Tensor, val_images: Tensor, val_labels: Tensor
    ) -> "Split":
        """Return the split that forgets `forget` (any integer dtype, any order) and retains the rest.

        Raises:
            InvalidInput: an index that is repeated or outside the train set.
        """
        forget = torch.as_tensor(forget, dtype=torch.int64)
        outside = forget[(forget < 0) | (forget >= len(images))]
        if len(outside):
            raise InvalidInput(
                f"forget index {int(outside[0])} is outside the train set of {len(images)} images"
            )
        mask = torch.ones(len(images), dtype=torch.bool)
        mask[forget] = False
        if int(mask.sum()) != len(images) - len(forget):
            raise InvalidInput("a forget index is repeated")
        return cls(
            images=images,
            labels=labels,
            forget=forget,
            retain=mask.nonzero().squeeze(1),
            val_images=val_images,
            val_labels=val_labels,
        )

    def to(self, device: str | torch.device) -> "Split":
        """Return the split with all tensors on `device`."""
        return Split(**{k: v.to(device) for k, v in vars(self).items()})
