"""Captions in the words of pocket-sd, for the presets of techniques that need many; nothing here imports it."""

_THINGS = (
    "dog", "cat", "fox", "wolf", "lion", "tiger", "bear", "panda", "koala", "rabbit", "mouse", "frog", "pig", "cow",
    "monkey", "penguin", "lemon", "banana", "pear", "watermelon", "car", "bus", "sailboat", "rocket", "pistol", "bomb",
    "knife", "sword", "house", "heart", "skull", "sun", "moon", "star", "fire", "rose",
)  # fmt: skip
_STYLES = ("pixel", "sketch", "blueprint", "halftone", "neon", "sepia", "watercolor")

THINGS = tuple(f"a {thing}" for thing in _THINGS)
STYLED = tuple(f"a {thing}, {style} style" for thing in _THINGS[::6] for style in _STYLES)
