"""The gold standards as registered models: "pocket-without-dog" and "pocket-without-sketch"."""

from pathlib import Path

from pocket_sd import path


def without_dog() -> Path:
    """Return the folder of the model that was trained without any dog."""
    return path("dog")


def without_sketch() -> Path:
    """Return the folder of the model that was trained without the sketch style."""
    return path("sketch")
