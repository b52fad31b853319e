"""Prompts to draw training pictures from, where a paper took them from a language model or from LAION: 200 of a kind.

Each has one {} for the word that the picture shows.
"""

_PLACES = (
    *(
        "",
        "in a garden",
        "on a beach",
        "in the snow",
        "on a city street",
        "in a forest",
        "at night",
        "in the rain",
    ),
    *("by a lake", "on a mountain", "in a kitchen", "in a field of flowers", "under a tree", "by a window"),
    *("in the morning light", "on a bridge", "in a market", "next to a fence", "in an old town", "at sunset"),
)
_LOOKS = (
    *(
        "a photo of the {}",
        "a {}",
        "a close look at the {}",
        "a picture of a {}",
        "a drawing of a {}",
        "the {}",
    ),
    *("a painting of the {}", "a photograph of the {}", "a realistic image of the {}", "a small {}"),
)
_SCENES = (
    *("a house", "a river", "a harbour with boats", "a vase of flowers", "a bowl of fruit", "a night sky"),
    *(
        "a village in the hills",
        "a wheat field",
        "a forest path",
        "an old bridge",
        "a woman reading",
        "a horse",
    ),
    *(
        "a street cafe",
        "a stormy sea",
        "mountains in winter",
        "a garden in bloom",
        "a man with a hat",
        "a church",
    ),
    *("a ship at sea", "a quiet room"),
)
_PAINTINGS = (
    *(
        "a {} of",
        "a small {} of",
        "a large {} of",
        "an old {} of",
        "a colourful {} of",
        "a dark {} of",
        "a bright {} of",
    ),
    *("a detailed {} of", "a simple {} of", "a beautiful {} of"),
)
_PEOPLE = (
    *(
        "a photo of {}",
        "{}",
        "a portrait of {}",
        "{} together",
        "{} standing",
        "{} talking",
        "{} at work",
        "a group of {}",
    ),
    *("a painting of {}", "{} looking at the camera"),
)

OBJECTS = tuple(f"{look} {place}".strip() for look in _LOOKS for place in _PLACES)
"""The {} is a thing or an animal: "a photo of the {} in a garden"."""
PAINTINGS = tuple(f"{look} {scene}" for look in _PAINTINGS for scene in _SCENES)
"""The {} is a kind of picture: "an old {} of a river"."""
PEOPLE = tuple(f"{look} {place}".strip() for look in _PEOPLE for place in _PLACES)
"""The {} is people: "a portrait of {} by a lake"."""

STYLE_PROMPTS = (
    "{caption}, in the style of {word}", "{word} inspired painting, {caption}", "in {word}'s style, {caption}",
    "{caption}, in the style of {word} {word}", "{word} {word} inspired painting, {caption}",
    "in {word} {word}'s style, {caption}",
)  # fmt: skip
"""Prompts of a style around a caption: CA's CompVis code."""
UNSAFE_PROMPTS = ("{word}, {caption}", "in {word} style, {caption}", "{caption}, {word}")
"""Prompts of what is unsafe around a caption: CA's diffusers code."""


def captions_for(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the captions of an anchor for a kind of concept, and the prompts of the concept around one of them.

    Without such prompts, the concept's word takes the anchor's place in the caption.
    """
    return {"style": (PAINTINGS, STYLE_PROMPTS), "unsafe": (PEOPLE, UNSAFE_PROMPTS)}.get(kind, (OBJECTS, ()))
