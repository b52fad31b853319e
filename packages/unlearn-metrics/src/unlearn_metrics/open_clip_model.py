"""The one place that loads an open_clip model: the right activation, the asked-for weights, or an error.

open_clip itself draws random weights where none were found and only warns where "ViT-L-14" with OpenAI's
weights is given GELU instead of QuickGELU, either of which yields plausible, wrong numbers.
"""

import difflib
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.spec import fingerprint
from unlearn_metrics.images import Array
from unlearn_metrics.loading import device_of, weights_hash

OFFLINE = "write model=local-dir:/path, a folder with open_clip_config.json and open_clip_model.safetensors"


@dataclass(frozen=True, eq=False)
class OpenClip:
    """A CLIP with its preprocessing and tokenizer; embeddings do not depend on the batch (to 1e-5)."""

    model: Any
    preprocess: Any
    """Transform of a PIL image into the model's input."""
    tokenizer: Any
    revision: str
    """Of architecture, weights and preprocessing, not of where they lie."""
    device: torch.device

    @torch.inference_mode()
    def encode_images(
        self, images: Sequence[Array], batch: int = 64, *, squash: bool = False
    ) -> NDArray[np.float32]:
        """Return the normalised embeddings (n, d) of uint8 RGB images (h, w, 3), whose sizes may differ.

        Args:
            images: what to look at.
            batch: images that the model sees at once.
            squash: resize to the model's square without cropping, where the model's own preprocessing
                would cut off the longer side.

        Raises:
            InvalidInput: not uint8 RGB.
        """
        for image in images:
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
                what = (
                    f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                )
                raise InvalidInput(f"CLIP takes uint8 RGB images (height, width, 3), got {what}")
        parts = []
        for start in range(0, len(images), batch):
            pictures = [Image.fromarray(image) for image in images[start : start + batch]]
            if squash:
                pictures = [p.resize(self._size, Image.Resampling.BICUBIC) for p in pictures]
            x = torch.stack([self.preprocess(picture) for picture in pictures]).to(self.device)
            parts.append(self.model.encode_image(x, normalize=True).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch: int = 256) -> NDArray[np.float32]:
        """Return the normalised embeddings (n, d) of `texts`; what is beyond the context is cut off."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(list(texts[start : start + batch])).to(self.device)
            parts.append(self.model.encode_text(tokens, normalize=True).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return for each of `texts` whether its end is beyond the context (77 tokens in most models)."""
        limit = self.tokenizer.context_length
        of_transformers = getattr(self.tokenizer, "tokenizer", None)
        if of_transformers is not None:
            clean = getattr(self.tokenizer, "clean_fn", str)
            return [len(of_transformers(clean(text), verbose=False).input_ids) > limit for text in texts]
        return [len(self.tokenizer.encode(text)) + 2 > limit for text in texts]  # with start and end

    @functools.cached_property
    def dimension(self) -> int:
        """Number of components of an embedding."""
        return int(self.encode_texts([""]).shape[1])

    @property
    def _size(self) -> tuple[int, int]:
        size = self.model.visual.preprocess_cfg["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return width, height


@functools.lru_cache(maxsize=4)
def load(model: str, pretrained: str = "", device: str = "auto") -> OpenClip:
    """Return the CLIP `model` with the weights `pretrained`; asked again, the same object.

    Args:
        model: a name of open_clip (those of OpenAI's weights end in "-quickgelu"), ``hf-hub:owner/name`` or
            ``local-dir:/path``.
        pretrained: tag of the weights, such as "openai", or a file; no part of the last two kinds of names.
        device: "auto", "cpu", "cuda", …

    Raises:
        InvalidInput: no such model, tag or folder, or weights that were trained with the other activation.
        Unavailable: the weights cannot be read or downloaded.
    """
    import open_clip

    where = device_of(device)
    local = model.startswith("local-dir:")
    if local:
        folder = Path(model.removeprefix("local-dir:")).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise InvalidInput(
                f"{str(folder)!r} holds no open_clip_config.json, so it is no CLIP of open_clip"
            )
        model = f"local-dir:{folder}"
    schema = local or model.startswith("hf-hub:")
    if not schema:
        _check_name(model, pretrained)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            net, preprocess = open_clip.create_model_from_pretrained(
                model, None if schema else pretrained, device=where
            )
            tokenizer = open_clip.get_tokenizer(model)
    except UserWarning as error:
        raise InvalidInput(f"model {model!r} with the weights {pretrained!r}: {error}") from None
    except Exception as error:
        # A dozen unrelated types (HTTP, pickle, safetensors, state dict); none is a defect of ours.
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        reason = reason.rpartition("Last error: ")[2].rstrip(".")
        what = model if schema else f"{model} with the weights {pretrained!r}"
        advice = "" if local else f"; without a network {OFFLINE}"
        raise Unavailable(f"cannot load the CLIP {what}: {reason}{advice}") from error
    net = net.eval().requires_grad_(False)
    identity = {
        "architecture": open_clip.get_model_config(model),
        "preprocessing": net.visual.preprocess_cfg,
        "weights": weights_hash(net),
    }
    name = "local" if local else f"{model}/{pretrained}" if pretrained and not schema else model
    revision = f"open_clip {name} {fingerprint(identity)[:16]}"
    return OpenClip(net, preprocess, tokenizer, revision, where)


def _check_name(model: str, pretrained: str) -> None:
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, n=5, cutoff=0.3)
        raise InvalidInput(
            f"open_clip has no model {model!r}; the nearest are: {', '.join(near) or 'none'}. "
            "A folder is written local-dir:/path, a model of the Hub hf-hub:owner/name"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not pretrained:
        raise InvalidInput(
            f"the model {model!r} needs weights: pretrained=, one of {', '.join(tags)}, or a file"
        )
    settings = open_clip.get_pretrained_cfg(model, pretrained)
    if not settings:
        if Path(pretrained).is_file():
            return
        raise InvalidInput(one_of(f"weights of {model}", pretrained, tags) + "; a file will do, too")
    quick = bool(settings.get("quick_gelu"))
    if quick != bool((open_clip.get_model_config(model) or {}).get("quick_gelu")):
        right = f"{model}-quickgelu" if quick else model.removesuffix("-quickgelu")
        raise InvalidInput(
            f"the weights {pretrained!r} were trained {'with' if quick else 'without'} QuickGELU and {model!r} is "
            f"{'without' if quick else 'with'}: its embeddings would be wrong; write model={right}"
        )
