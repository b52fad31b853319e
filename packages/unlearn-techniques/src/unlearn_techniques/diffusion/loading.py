"""Stable Diffusion from wherever it lies, with one clear message where it does not."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from unlearn_core import registry
from unlearn_core.errors import InvalidInput, Unavailable, one_of

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def locate(source: str) -> str:
    """Return the folder or Hub id that `source` stands for, after every check that needs no loading.

    Raises:
        InvalidInput: neither a registered name, a folder in diffusers layout nor a Hub id.
    """
    path, known = Path(source).expanduser(), registry.names("unlearn.models")
    if source in known:
        return str(registry.load("unlearn.models", source)())
    if path.is_file():
        raise InvalidInput(_single_file(source, path))
    if path.is_dir():
        _check_folder(path)
        return str(path)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith("/"):
        if "/" in source:
            raise InvalidInput(f"--model {source!r}: there is no such folder")
        hint = one_of("model", source, known)
        raise InvalidInput(f"{hint}; or give a Hub id (owner/name) or a folder in diffusers layout")
    return source


def load_pipeline(source: str, dtype: torch.dtype) -> Any:
    """Return the diffusers pipeline of `source`, without a safety checker.

    Raises:
        InvalidInput: no such model, not Stable Diffusion 1.x, 2.x or XL, a pickle, a damaged file.
        Unavailable: the Hub cannot be reached.
    """
    place = locate(source)
    from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    try:
        with quietly():
            if "XL" in DiffusionPipeline.load_config(place).get("_class_name", ""):
                return StableDiffusionXLPipeline.from_pretrained(place, add_watermarker=False, **options)
            options |= {"safety_checker": None, "requires_safety_checker": False}
            return StableDiffusionPipeline.from_pretrained(place, **options)
    except Exception as error:  # diffusers, transformers, safetensors and the Hub raise types of their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if Path(place).is_dir():
            raise InvalidInput(
                f"{source!r} does not load as a Stable Diffusion pipeline: {reason}"
            ) from error
        raise Unavailable(
            f"cannot load {source!r} from the Hugging Face Hub: {reason}. Give --model a local folder, or pocket, "
            "which needs no network"
        ) from error


def check_parts(pipe: Any) -> None:
    """Check that a pipeline is one that the sampling loop can draw with.

    Raises:
        InvalidInput: it has other parts, as SD3 and DeepFloyd have.
    """
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if getattr(pipe, part, None) is None:
            raise InvalidInput(
                f"{type(pipe).__name__} has no {part}: only Stable Diffusion 1.x, 2.x and XL (base) are known"
            )
    config = pipe.unet.config
    added = config.get("addition_embed_type")
    if getattr(pipe, "text_encoder_3", None) is not None or added not in (None, "text_time"):
        raise InvalidInput(f"{type(pipe).__name__} is of a later kind than XL, which is not known")
    if (added is None) != (getattr(pipe, "text_encoder_2", None) is None):
        raise InvalidInput(f"{type(pipe).__name__}: its UNet and its text encoders are not of one kind")
    if config.get("encoder_hid_dim") or config.get("class_embed_type") or config.in_channels != 4:
        raise InvalidInput(
            f"the UNet of {type(pipe).__name__} takes {config.in_channels} channels or more than a text: only the "
            "text-to-image models of Stable Diffusion 1.x, 2.x and XL are known"
        )


def _check_folder(path: Path) -> None:
    index = path / "model_index.json"
    if not index.is_file():
        near = next((p.parent for p in sorted(path.glob("*/model_index.json"))), None)
        hint = f"did you mean {str(near)!r}?" if near else "save one with pipeline.save_pretrained(folder)"
        raise InvalidInput(f"{str(path)!r} is no diffusers folder: it has no model_index.json; {hint}")
    for part in ("unet", "vae", "text_encoder"):
        files = [p for p in sorted((path / part).glob("*")) if p.suffix in (".safetensors", *PICKLES)]
        if not files:
            raise InvalidInput(f"{str(path)!r} has no weights of the {part}: {str(path / part)!r} holds none")
        if all(p.suffix in PICKLES for p in files):
            raise InvalidInput(_pickle(files[0]))
        for file in files:
            if file.suffix == ".safetensors":
                _check_safetensors(file)


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"{str(path)!r} is damaged: {error}; copy or download it again") from None


def _single_file(source: str, path: Path) -> str:
    if path.suffix in PICKLES:
        return _pickle(path)
    return (
        f"{source!r} is a single file; convert it once: "
        f"StableDiffusionPipeline.from_single_file({source!r}).save_pretrained('folder'), then --model folder"
    )


def _pickle(path: Path) -> str:
    return (
        f"{str(path)!r} is a pickle, which can run code when it is opened, and is refused; if you trust it, convert it "
        "once with diffusers' save_pretrained(folder, safe_serialization=True) and give that folder"
    )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the bars and lines that diffusers and transformers print while they load and save."""
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    levels = diffusers_log.get_verbosity(), transformers_log.get_verbosity()
    bars = transformers_log.is_progress_bar_enabled()
    diffusers_log.disable_progress_bar()
    transformers_log.disable_progress_bar()
    diffusers_log.set_verbosity_error()
    transformers_log.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_log.set_verbosity(levels[0])
        transformers_log.set_verbosity(levels[1])
        diffusers_log.enable_progress_bar()
        if bars:
            transformers_log.enable_progress_bar()
