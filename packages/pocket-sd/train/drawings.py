"""The drawings: SVG emoji of five npm packages (a sixth for the judge's examination), rendered to RGBA."""

import io
import itertools
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from resvg_py import svg_to_bytes

PACKAGES = {
    "noto": ("@iconify-json/noto", "1.2.9"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
    "fluent": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2"),
    "emojione": ("@iconify-json/emojione", "1.2.3"),
    "openmoji": ("@iconify-json/openmoji", "1.2.29"),
}
UNSEEN = "openmoji"
"""The set that only the judge's examination looks at."""
SIZE = 128
"""Side of a drawing in pixels; the drawing touches two sides of its square."""

# Icon names of the first and the second look, in the order of preference; sets without any of them have no
# such look. fxemoji has names of its own, written together.
LOOKS: dict[str, tuple[str, str]] = {
    "dog": ("dog-face dog@fxemoji", "dog!fxemoji dogside"),
    "cat": ("cat-face cat@fxemoji", "cat!fxemoji catside"),
    "fox": ("fox fox-face", ""),
    "wolf": ("wolf wolf-face wolfface", ""),
    "lion": ("lion lion-face", ""),
    "tiger": ("tiger-face tiger@fxemoji", "tiger!fxemoji tigerside"),
    "bear": ("bear bear-face", ""),
    "panda": ("panda panda-face pandaface", ""),
    "koala": ("koala", ""),
    "rabbit": ("rabbit-face bunny", "rabbit bunnyside"),
    "mouse": ("mouse-face mouse@fxemoji", "mouse!fxemoji mouseside"),
    "frog": ("frog frog-face", ""),
    "pig": ("pig-face pig@fxemoji", "pig!fxemoji pigside"),
    "cow": ("cow-face cowface", "cow"),
    "monkey": ("monkey-face monkeyface", "monkey"),
    "penguin": ("penguin", ""),
    "apple": ("red-apple redapple", ""),
    "lemon": ("lemon", ""),
    "strawberry": ("strawberry", ""),
    "grapes": ("grapes", ""),
    "banana": ("banana", ""),
    "cherries": ("cherries", ""),
    "watermelon": ("watermelon", ""),
    "pear": ("pear", ""),
    "car": ("automobile", "oncoming-automobile oncomingautomobile"),
    "bus": ("bus", "oncoming-bus oncomingbus"),
    "sailboat": ("sailboat", ""),
    "rocket": ("rocket", ""),
    "pistol": (
        "pistol@noto pistol@twemoji water-pistol@fluent water-pistol@openmoji",
        "pistol@fxemoji pistol@emojione",
    ),
    "bomb": ("bomb", ""),
    "knife": ("kitchen-knife", "dagger daggerknife"),
    "sword": ("crossed-swords crossedswords", ""),
    "house": ("house housebuilding", "house-with-garden housewithgarden"),
    "heart": ("red-heart heart-suit@emojione", ""),
    "skull": ("skull", ""),
    "sun": ("sun sunrays", ""),
    "moon": ("crescent-moon crescentmoon", ""),
    "star": ("star", ""),
    "fire": ("fire", ""),
    "rose": ("rose", ""),
}


def fetch(folder: Path) -> None:
    """Download the packages with npm into `folder`, once each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, version) in PACKAGES.items():
        if (folder / f"{name}.json").exists():
            continue
        done = subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{version}"],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        archive = folder / done.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            (folder / f"{name}.json").write_bytes(tar.extractfile("package/icons.json").read())
        archive.unlink()


class IconSet:
    """One Iconify collection: `body` in a view box, with aliases that may chain."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.data = json.loads((folder / f"{name}.json").read_text())
        self.names = [*self.data["icons"], *self.data.get("aliases", {})]

    def icon(self, name: str) -> dict | None:
        """Return the icon of `name`, through its aliases, or None."""
        over: dict = {}
        while name not in self.data["icons"]:
            alias = self.data.get("aliases", {}).get(name)
            if alias is None:
                return None
            over = {**{k: v for k, v in alias.items() if k != "parent"}, **over}
            name = alias["parent"]
        return {**self.data["icons"][name], **over}

    def render(self, name: str) -> np.ndarray | None:
        """Return the drawing (SIZE, SIZE, 4), uint8 RGBA, cropped to what is drawn; None if there is none."""
        icon = self.icon(name)
        if icon is None:
            return None
        left, top, width, height = (
            icon.get(key, self.data.get(key, other))
            for key, other in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{2 * SIZE}" height="{2 * SIZE}">{icon["body"]}</svg>'
        )
        drawn = Image.open(io.BytesIO(bytes(svg_to_bytes(svg_string=svg)))).convert("RGBA")
        box = drawn.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
        if box is None:
            return None
        drawn = drawn.crop(box)
        side = max(drawn.size)
        square = Image.new("RGBA", (side, side))
        square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BOX))


def _choose(icons: IconSet, names: str) -> str | None:
    for entry in names.split():
        name, _, only = entry.partition("@")
        name, _, never = name.partition("!")
        if only not in ("", icons.name) or never == icons.name:
            continue
        if icons.icon(name) is not None:
            return name
    return None


def drawings(folder: Path, sets: list[str]) -> Iterator[tuple[str, int, str, np.ndarray]]:
    """Yield (object, look 0 or 1, set, picture) for every drawing of an object in `sets`."""
    for set_name in sets:
        icons = IconSet(folder, set_name)
        for name, looks in LOOKS.items():
            for look, names in enumerate(looks):
                if (chosen := _choose(icons, names)) and (picture := icons.render(chosen)) is not None:
                    yield name, look, set_name, picture


def others(folder: Path, sets: list[str], limit: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to `limit` drawings a set, (n, SIZE, SIZE, 4) uint8, of none of the objects.

    The autoencoder learns on them, so that it knows no concept; the judge calls them none of its classes.
    An icon is left out if it shares a word with any icon of an object.
    """
    words = {
        w.split("@")[0].split("!")[0] for looks in LOOKS.values() for names in looks for w in names.split()
    }
    words |= {part for word in words for part in word.split("-")} | set(LOOKS)
    words -= {"face", "with", "red", "suit", "oncoming", "water", "garden"}
    found = []
    for set_name in sets:
        icons = IconSet(folder, set_name)
        free = [
            n for n in icons.names if not any(w in n for w in words) and "flag" not in n and "skin" not in n
        ]
        rendered = (icons.render(name) for name in rng.permutation(free))
        found.extend(itertools.islice((picture for picture in rendered if picture is not None), limit))
    return np.stack(found)
