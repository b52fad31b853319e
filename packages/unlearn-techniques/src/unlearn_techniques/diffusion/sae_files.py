"""Sparse autoencoders as files: those trained here, kept by what they were trained on, and published ones.

The layout is that of EleutherAI's sae, in which SAeUron's are published: ``MODULE/sae.safetensors`` with
encoder.weight, encoder.bias, W_dec and b_dec, and k in ``MODULE/cfg.json``; ours have k in the metadata of the file.
"""

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, Unavailable, UnlearnWarning
from unlearn_core.spec import fingerprint
from unlearn_techniques.diffusion.sae import SparseAutoencoder

FILE, SETTINGS = "sae.safetensors", "cfg.json"
NAMES = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
STEERERS = ("encoder.weight", "latent_bias", "decoder.weight", "pre_bias")
"""In the code of Concept Steerers, where the decoder is (d, n)."""


def cached(key: Any, make: Callable[[], SparseAutoencoder]) -> SparseAutoencoder:
    """Return what `make` returns, from the disk where it was made before for an equal `key`, any JSON value.

    Raises:
        Unavailable: the cache cannot be written.

    Warns:
        UnlearnWarning: the file is damaged; it is made again.
    """
    path = kept_at(key)
    if path.is_file():
        try:
            return _read(path, None)
        except InvalidInput as error:
            warnings.warn(f"an autoencoder is trained again: {error}", UnlearnWarning, stacklevel=3)
    atomic.make_folder(path.parent)  # a folder that cannot be written is known now, not after the work
    sae = make()
    save(sae, path)
    return sae


def kept_at(key: Any) -> Path:
    """Return where the autoencoder of `key` is kept: below ``UNLEARN_BENCH_CACHE``, else below the user's cache."""
    named = os.environ.get("UNLEARN_BENCH_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = (Path(named) if named else Path(user) / "unlearn-bench").expanduser() / "sae"
    return folder / f"{fingerprint(key)[:32]}.safetensors"


def save(sae: SparseAutoencoder, path: Path) -> None:
    """Write an autoencoder to `path`, atomically.

    Raises:
        Unavailable: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    named = {name: tensor.cpu().contiguous() for name, tensor in zip(NAMES, sae.tensors, strict=True)}
    with atomic.replacing(path) as file:
        file.write(to_bytes(named, {"k": str(sae.k)}))


def load(source: str, module: str, width: int) -> SparseAutoencoder:
    """Return a published autoencoder.

    Args:
        source: a file, a folder, or a Hub id as owner/name[@revision].
        module: what it reads; the folder of this name is looked into first.
        width: of what it reads, d.

    Raises:
        Unavailable: it is not there.
        InvalidInput: it is damaged, no autoencoder, or one of another width.
    """
    place = Path(source).expanduser()
    path = next((p for p in (place, place / module / FILE, place / FILE) if p.is_file()), None)
    if path is None and not place.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?", source):
        path = _fetched(source, module)
    if path is None:
        raise Unavailable(f"there is no autoencoder at {source!r}: no {module}/{FILE} and no {FILE}")
    settings = path.with_name(SETTINGS)
    try:
        k = json.loads(settings.read_text()).get("k") if settings.is_file() else None
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"{str(settings)!r} is not the configuration of an autoencoder: {error}") from None
    sae = _read(path, k)
    if sae.encoder.shape[1] != width:
        raise InvalidInput(
            f"the autoencoder {source!r} reads activations of width {sae.encoder.shape[1]}, and {module} of this model "
            f"has {width}: it belongs to another model or module"
        )
    return sae


def _fetched(source: str, module: str) -> Path:
    from huggingface_hub import hf_hub_download

    repo, _, revision = source.partition("@")
    try:
        hf_hub_download(repo, f"{module}/{SETTINGS}", revision=revision or None)
        return Path(hf_hub_download(repo, f"{module}/{FILE}", revision=revision or None))
    except Exception as error:  # the client raises a dozen unrelated types
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise Unavailable(
            f"cannot fetch {module}/{FILE} of {source!r} from the Hugging Face Hub: {reason}. Name a local folder, or "
            "leave sae out: one is trained on the spot"
        ) from error


def _read(path: Path, k: Any) -> SparseAutoencoder:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            k = int((file.metadata() or {}).get("k", k or 0))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{str(path)!r} is no whole autoencoder in safetensors: {error}") from None
    names = STEERERS if "latent_bias" in found else NAMES
    if missing := [name for name in names if name not in found]:
        raise InvalidInput(f"{str(path)!r} is no autoencoder: it has no {missing[0]!r}")
    encoder, latent_bias, decoder, pre_bias = (found[name] for name in names)
    decoder = decoder.T.contiguous() if names == STEERERS else decoder
    shapes = [tuple(t.shape) for t in (encoder, latent_bias, decoder, pre_bias)]
    n, d = (*shapes[0], 0, 0)[:2]
    if shapes != [(n, d), (n,), (n, d), (d,)] or not 1 <= k <= n:
        raise InvalidInput(
            f"{str(path)!r} is no autoencoder: its shapes are {shapes} and k is {k or 'not stated'}"
        )
    return SparseAutoencoder(
        encoder=encoder, latent_bias=latent_bias, decoder=decoder, pre_bias=pre_bias, k=k
    )
