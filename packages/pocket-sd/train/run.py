"""Make pocket-sd from nothing: drawings, pictures, autoencoder, CLIP, UNet, judge, gold standards, measurements.

    uv run --package pocket-sd --group train python packages/pocket-sd/train/run.py

Needs npm for the drawings. Every part resumes where it stopped; a part that is done is not done again. With
`--without CONCEPT` only the gold standard of that object or style is trained, beside what is there; it is found by
its name once that stands in `pocket_sd.WITHOUT`.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import drawings
import numpy as np
import torch

HERE = Path(__file__).parent
RECORDS = HERE.parent / "records"
WEIGHTS = HERE.parent / "src" / "pocket_sd" / "weights"
SHIPPED = ("pipeline", "clip", "judge")
GOLD = ("dog", "sketch")
GOLD_STEPS = 6400
"""UNet steps of a gold standard, for the sake of the time: after so many the full model drew 96.5 % of 400 objects
right, after all of its own 98.3 %. Like every training it resumes where it was stopped."""


def script(name: str, *arguments: object) -> None:
    """Run one of the training scripts."""
    paths = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, HERE / f"{name}.py", *map(str, arguments)],
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def model(work: Path, shared: list[object], without: str | None) -> Path:
    """Train CLIP and UNet, with every picture of `without` left out, and return the folder."""
    folder = work / (f"without-{without}" if without else "full")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "vae").exists():
        shutil.copytree(work / "vae", folder / "vae")
    extra = ["--out", folder, *(["--without", without] if without else [])]
    if not (folder / "text_encoder").exists():
        script("clip", *shared, *extra)
    if not (folder / "pipeline").exists():
        script("unet", *shared, *extra, *(["--steps", GOLD_STEPS] if without else []))
    return folder


def replace(target: Path, source: Path) -> None:
    """Copy a folder over another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def install_gold(concept: str, folder: Path) -> None:
    """Copy a gold standard into the package and its logs into the records.

    What it shares with the full model becomes a link to it.
    """
    for log in (folder / "logs").glob("*.jsonl"):
        shutil.copyfile(log, RECORDS / "logs" / f"{log.stem}-without-{concept}.jsonl")
    target = WEIGHTS / f"without-{concept}"
    replace(target, folder / "pipeline")
    for part in ("vae", "tokenizer", "scheduler"):
        shutil.rmtree(target / part)
        (target / part).symlink_to(Path("..", "pipeline", part))


def real_features(icons: Path, folder: Path) -> None:
    """Write the judge's features of real pictures of the quality captions, the reference of FID and KID."""
    import pictures
    from safetensors.numpy import save_file

    from pocket_sd.judging import Judge
    from pocket_sd.prompt_sets import quality_cells
    from pocket_sd.words import BACKGROUNDS, OBJECTS

    source, generator = pictures.load(icons), torch.Generator().manual_seed(8)
    wanted = [cell[1:] for cell in itertools.islice(quality_cells(), 1280)]
    by_object = {name: (source.object == i).nonzero()[:, 0] for i, name in enumerate(OBJECTS)}
    first_look = {name: rows[source.look[rows] == 0] for name, rows in by_object.items()}
    chosen = [
        rows[int(torch.randint(len(rows), (1,), generator=generator))]
        for rows in (first_look[name] for name, _, _ in wanted)
    ]
    backgrounds = list(BACKGROUNDS)
    style = torch.tensor([pictures.STYLE_NAMES.index(s) for _, s, _ in wanted])
    background = torch.tensor(
        [backgrounds.index(b) if b else i % len(backgrounds) for i, (_, _, b) in enumerate(wanted)]
    )
    images = pictures.draw(pictures.place(source.rgba[torch.stack(chosen)], generator), style, background)
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    features = Judge.load(folder).features(arrays).astype(np.float16)
    save_file({"features": features}, folder / "real_features.safetensors")


def main() -> None:
    """Train what is missing, install it in the package, and measure it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/pocket-sd"), help="folder of states and logs")
    parser.add_argument("--without", help="train only the gold standard without this object or style")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    work = args.work.resolve()
    icons = work / "icons"
    drawings.fetch(icons)
    device = ["--device", args.device]
    if not (work / "vae").exists():
        script("autoencoder", "--icons", icons, "--out", work, *device)
    shared = ["--icons", icons, "--bank", work / "bank.pt", *device]
    if args.without:
        done = model(work, shared, args.without)
        install_gold(args.without, done)
        return
    full = model(work, shared, None)
    if not (full / "judge").exists():
        script("judge", *shared, "--out", full)
    real_features(icons, full / "judge")
    for part in SHIPPED:
        replace(WEIGHTS / part, full / part)
    for concept in GOLD:
        install_gold(concept, model(work, shared, concept))
    script("adversarial")
    for logs in (work / "logs", full / "logs"):
        shutil.copytree(logs, RECORDS / "logs", dirs_exist_ok=True)
    script("measure", "--icons", icons, "--out", RECORDS)
    script("card")


if __name__ == "__main__":
    main()
