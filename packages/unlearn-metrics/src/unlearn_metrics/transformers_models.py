"""The one place that loads a model of transformers: every weight from a file, or an error.

transformers draws weights at random where a file lacks them, and only warns.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_metrics.loading import device_of, weights_hash


def kind_of(model: str) -> str:
    """Return the type of `model`, such as "blip" or "vilt", as its configuration states it.

    Raises:
        Unavailable: it cannot be read or downloaded.
    """
    import transformers

    try:
        return str(transformers.AutoConfig.from_pretrained(model).model_type)
    except Exception as error:
        raise _unavailable(model, "model", error) from error


@functools.lru_cache(maxsize=4)
def load(model: str, what: str, cls: str, processor: str, device: str) -> tuple[Any, Any]:
    """Return a model, ready to infer, and its processor; asked again, the same objects.

    Args:
        model: a Hub id or a folder.
        what: what it is, for messages: "VQA model".
        cls: name of the model's class in transformers.
        processor: name of the class of its processor or tokenizer.
        device: "auto", "cpu", "cuda", …

    Raises:
        InvalidInput: a model of another kind, or one that lacks weights.
        Unavailable: it cannot be read or downloaded.
    """
    import transformers

    where = device_of(device)
    try:
        with _quietly():
            net, info = getattr(transformers, cls).from_pretrained(model, output_loading_info=True)
        prepare = getattr(transformers, processor).from_pretrained(model)
    except Exception as error:
        raise _unavailable(model, what, error) from error
    # A pooling head that nobody uses may be missing: sentence encoders come without one.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InvalidInput(f"{model!r} is no trained {what}: it lacks {', '.join(missing[:4])}")
    return net.eval().requires_grad_(False).to(where), prepare


@functools.lru_cache(maxsize=4)
def hash_of(net: Any) -> str:
    """Return the sha256 (hex) of the weights of a model that `load` returned, read once: they never change."""
    return weights_hash(net)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hide the bar that transformers shows while it reads weights: the commands show their own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unavailable(model: str, what: str, error: Exception) -> Unavailable:
    # It raises a dozen unrelated types (HTTP, safetensors, shapes, …); none is a defect of ours.
    reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or type(error).__name__
    return Unavailable(
        f"cannot load the {what} {model!r}: {reason}; without a network, give the path of its folder"
    )
