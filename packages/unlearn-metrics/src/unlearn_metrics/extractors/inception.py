"""The Inception network of FID and KID, as torch-fidelity runs it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_metrics.features import Features
from unlearn_metrics.images import Array
from unlearn_metrics.loading import device_of, weights_hash

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Inception:
    """The 2048 pooled features of the TensorFlow Inception-v3 of 2015-12-05, the one of all published FIDs.

    Paper: Szegedy et al. 2016, Rethinking the Inception Architecture, arXiv 1512.00567; as a feature space
        Heusel et al. 2017, arXiv 1706.08500.
    Needs: 96 MB of weights, which torch-fidelity downloads from its GitHub releases, or the same file by path.
    Deviations: none; "inception-v3-compat" of torch-fidelity, with TensorFlow 1's bilinear resize to 299.
        torchvision's inception_v3 is another network, and its numbers compare with nothing.
    """

    weights: str = ""
    """Path of weights-inception-2015-12-05-6726825d.pth; empty: torch-fidelity's own download."""
    device: str = "auto"

    @property
    def revision(self) -> str:
        """Of the weights; loads the network."""
        return _load(self.weights, self.device)[1]

    @torch.inference_mode()
    def features(self, images: Sequence[Array]) -> Features:
        """Return the features (n, 2048) float32 of uint8 RGB images (h, w, 3), whose sizes may differ."""
        net, _, device = _load(self.weights, self.device)
        found = np.empty((len(images), 2048), np.float32)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        for places in by_size.values():
            for start in range(0, len(places), BATCH):
                part = places[start : start + BATCH]
                x = torch.from_numpy(np.stack([images[i] for i in part])).permute(0, 3, 1, 2)
                found[part] = net(x.to(device))[0].cpu().numpy()
        return found


@functools.lru_cache(maxsize=1)
def _load(weights: str, device: str) -> tuple[Any, str, torch.device]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    where = device_of(device)
    path = Path(weights).expanduser() if weights else None
    if path is not None:
        _check(path)
    try:
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=path and str(path), verbose=False
        )
    except OSError as error:  # urllib's errors are of this kind
        raise Unavailable(
            f"cannot download the Inception weights: {error}; with the file at hand, write "
            "extractor_settings={'weights': '/path/weights-inception-2015-12-05-6726825d.pth'}"
        ) from error
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InvalidInput(f"{weights!r} holds the weights of another network: {reason}") from error
    return net.to(where), f"inception-v3-compat 2048 {weights_hash(net)[:16]}", where


def _check(path: Path) -> None:
    """Refuse what is no plain state dict: torch-fidelity would run any code that a pickle holds."""
    if not path.is_file():
        raise Unavailable(f"there is no file {str(path)!r} with the Inception weights")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        # A file that is no checkpoint raises whatever the unpickler meets; one that runs code, UnpicklingError.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InvalidInput(f"{str(path)!r} is no file of plain tensors: {reason[:200]}") from None
    if not isinstance(state, dict) or "Conv2d_1a_3x3.conv.weight" not in state:
        raise InvalidInput(
            f"{str(path)!r} does not hold the FID Inception: no 'Conv2d_1a_3x3.conv.weight' in it"
        )
