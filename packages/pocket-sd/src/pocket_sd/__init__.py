"""pocket-sd: a Stable Diffusion that fits in a repository, trained on emoji, with its words and its judge.

    from diffusers import StableDiffusionPipeline
    pipeline = StableDiffusionPipeline.from_pretrained(pocket_sd.path())

Everything is loaded from this package's folder; nothing here reaches the network.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocket_sd.prompt_sets import challenge, concept, concepts, members, pairs, prompts, questions
from unlearn_core.errors import InvalidInput

if TYPE_CHECKING:
    from pocket_sd.judging import Judge

STEPS = 25
"""Default number of DDIM steps."""
GUIDANCE = 4.0
"""Default guidance scale."""
WITHOUT: tuple[str, ...] = ("dog", "sketch")
"""The concepts that a gold standard which ships was trained without."""

__all__ = [
    "GUIDANCE",
    "STEPS",
    "WITHOUT",
    "challenge",
    "clip",
    "clip_path",
    "concept",
    "concepts",
    "judge",
    "members",
    "pairs",
    "path",
    "prompts",
    "questions",
    "real_features",
]

_WEIGHTS = Path(__file__).parent / "weights"


def path(without: str | None = None) -> Path:
    """Return the folder of the pipeline, in diffusers layout.

    Args:
        without: a concept of `WITHOUT`: the gold standard, trained in the same way from the start with every
            picture of the concept left out. Only the autoencoder is shared, which saw none of the concepts.

    Raises:
        InvalidInput: no model was trained without it.
    """
    if without is None:
        return _WEIGHTS / "pipeline"
    if without not in WITHOUT:
        raise InvalidInput(
            f"no model trained without {without!r} ships, only without: {', '.join(WITHOUT) or 'nothing'}; "
            f"`train/run.py --without {without}` trains it"
        )
    return _WEIGHTS / f"without-{without}"


def clip_path() -> Path:
    """Return the folder of the CLIP: open_clip loads it as ``f"local-dir:{clip_path()}"``."""
    return _WEIGHTS / "clip"


def clip() -> tuple[Any, Any, Any]:
    """Return the CLIP as open_clip does: (model, transform of a PIL image, tokenizer).

    Its text tower is the pipeline's text encoder with a projection on top.
    """
    import open_clip

    name = f"local-dir:{clip_path()}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return model.eval(), transform, open_clip.get_tokenizer(name)


@functools.cache
def judge() -> "Judge":
    """Return the judge of objects, styles and backgrounds."""
    from pocket_sd.judging import Judge

    return Judge.load(_WEIGHTS / "judge")


def real_features() -> Any:
    """Return the judge's features of 1,280 real pictures of the quality captions, (1280, 128) float32.

    The reference of FID and KID, so that neither needs the drawings.
    """
    from safetensors.numpy import load_file

    return load_file(_WEIGHTS / "judge" / "real_features.safetensors")["features"].astype("float32")
