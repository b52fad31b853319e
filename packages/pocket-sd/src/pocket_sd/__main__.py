"""Draw pictures: ``python -m pocket_sd "a dog, sketch style, blue background" --out dog.png``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pocket_sd import GUIDANCE, STEPS, path
from pocket_sd.words import BACKGROUNDS, OBJECTS, STYLES
from unlearn_core.errors import InvalidInput, UnlearnError


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pocket_sd",
        description="Draw a picture, or a sheet of them, with a tiny Stable Diffusion.",
        epilog=f"It knows {', '.join(OBJECTS)}; the styles {', '.join(STYLES)}; "
        f"and the backgrounds {', '.join(BACKGROUNDS)}.",
    )
    parser.add_argument("prompt", nargs="?", help='what to draw: "a dog, sketch style, blue background"')
    parser.add_argument("--out", type=Path, help="PNG file of the picture")
    parser.add_argument("--sheet", type=Path, help="PNG file of a grid of many pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"DDIM steps (default {STEPS})")
    parser.add_argument(
        "--guidance", type=float, default=GUIDANCE, help=f"guidance scale (default {GUIDANCE:g})"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the PNG file in pixels (default 256)")
    parser.add_argument("--without", metavar="CONCEPT", help="use the model that never saw this concept")
    try:
        _draw(parser.parse_args(arguments))
    except UnlearnError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _draw(asked: argparse.Namespace) -> None:
    if (asked.prompt is None) == (asked.sheet is None):
        raise InvalidInput("give a prompt and --out FILE for one picture, or --sheet FILE for many")
    target = asked.sheet or asked.out
    if target is None:
        raise InvalidInput("say where the picture goes: --out dog.png")
    if target.suffix.lower() != ".png":
        raise InvalidInput(f"pictures are written as .png, got {str(target)!r}")
    if not target.parent.is_dir():
        raise InvalidInput(f"there is no folder {str(target.parent)!r} to write to")
    if not 1 <= asked.steps <= 1000:
        raise InvalidInput(f"--steps is from 1 to 1000, got {asked.steps}")
    if not 64 <= asked.size <= 4096:
        raise InvalidInput(f"--size is from 64 to 4096, got {asked.size}")
    if not 0 <= asked.seed < 2**63:
        raise InvalidInput(f"--seed is in [0, 2**63), got {asked.seed}")
    if not 0 <= asked.guidance <= 100:
        raise InvalidInput(f"--guidance is from 0 to 100, got {asked.guidance:g}")

    path(asked.without)

    from PIL import Image

    from pocket_sd import drawing

    settings = {"steps": asked.steps, "guidance": asked.guidance}
    pipe = drawing.pipeline(asked.without)
    if asked.sheet:
        picture = drawing.sheet(pipe=pipe, seed=asked.seed, **settings)
    else:
        pixels = drawing.draw([asked.prompt], [asked.seed], pipe=pipe, **settings)[0]
        picture = Image.fromarray(pixels).resize((asked.size,) * 2, Image.Resampling.NEAREST)
    try:
        picture.save(target)
    except OSError as error:
        raise InvalidInput(f"cannot write {str(target)!r}: {error.strerror}") from None
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    sys.exit(main())
