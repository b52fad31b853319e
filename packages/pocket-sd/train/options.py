"""The command lines of the training scripts, which ask mostly the same."""

import argparse
from pathlib import Path

import torch


def parser(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """Return what every script asks: where the icons are, where its files go, for how long, on which device."""
    asked = argparse.ArgumentParser(description=description)
    asked.add_argument("--icons", type=Path, required=True, help="folder of the icon sets")
    asked.add_argument("--out", type=Path, required=True, help="folder of parts, states and logs")
    asked.add_argument("--steps", type=int, default=steps)
    asked.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return asked


def bank_parser(
    description: str | None, *, steps: int, batch: int, gold: bool = False
) -> argparse.ArgumentParser:
    """Return what a script that learns from the bank of captioned pictures asks besides.

    Args:
        description: of the script.
        steps: by default.
        batch: by default.
        gold: whether the part is one that a gold standard has of its own.
    """
    asked = parser(description, steps=steps)
    asked.add_argument(
        "--bank", type=Path, required=True, help="file of the pictures, drawn if it is missing"
    )
    asked.add_argument("--pictures", type=int, default=24000, help="in the bank")
    asked.add_argument("--batch", type=int, default=batch, help="pictures a step")
    if gold:
        asked.add_argument("--without", help="leave the pictures of this object or style out")
    return asked
