"""The judge: which object, style and background a picture shows, or none of these."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from pocket_sd.words import BACKGROUNDS, OBJECTS, PLAIN, STYLES, UNKNOWN
from unlearn_core.errors import InvalidInput, one_of

CLASSES = {
    "object": (*OBJECTS, UNKNOWN),
    "style": (PLAIN, *STYLES, UNKNOWN),
    "background": (*BACKGROUNDS, UNKNOWN),
}
"""The classes of each head, in the order of its probabilities."""
FEATURES = 128
Head = Literal["object", "style", "background"]


class JudgeNet(nn.Module):
    """Seven convolutions deep, one linear head a question."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(3, 24, 1), *_convolution(24, 40, 2),
            *_convolution(40, 64, 2), *_convolution(64, 64, 1),
            *_convolution(64, 96, 2), *_convolution(96, 96, 1),
            *_convolution(96, 128, 2),
        )  # fmt: skip
        self.features = nn.Sequential(nn.Linear(256, FEATURES), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(found)) for name, found in CLASSES.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the features (n, 128) and the logits of each head for pictures (n, 3, 64, 64) in [-1, 1]."""
        maps = self.body(images)
        features = self.features(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))
        return features, {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Judge:
    """Looks at pictures in batches; each is judged for itself, whatever the batch."""

    net: JudgeNet
    temperatures: dict[str, float]
    """What the logits of each head are divided by, fitted on pictures that no training saw."""

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """Return the judge saved in `folder`."""
        path = folder / "judge.safetensors"
        with safe_open(path, "pt") as file:
            temperatures = {name: float(file.metadata()[name]) for name in CLASSES}
        net = JudgeNet()
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        )
        return cls(net=net.eval(), temperatures=temperatures)

    def objects(self, images: "Images") -> list[str]:
        """Return the object on each picture, or "none".

        Args:
            images: uint8 RGB (n, h, w, 3), a list of such (h, w, 3), or PIL images; other sizes than 64 x 64
                are resized.

        Raises:
            InvalidInput: not pictures.
        """
        return self.names("object", images)

    def styles(self, images: "Images") -> list[str]:
        """Return the style of each picture ("emoji" is none of the procedural ones), or "none"."""
        return self.names("style", images)

    def backgrounds(self, images: "Images") -> list[str]:
        """Return the background of each picture; "none" where the style brings its own, too."""
        return self.names("background", images)

    def names(self, head: Head, images: "Images") -> list[str]:
        """Return the most probable class of `head` for each picture."""
        return [CLASSES[head][i] for i in self.probabilities(head, images).argmax(1)]

    def probabilities(self, head: Head, images: "Images") -> NDArray[np.float32]:
        """Return (n, classes) of `CLASSES[head]`, calibrated; rows sum to 1.

        Raises:
            InvalidInput: not pictures, or no such head.
        """
        if head not in CLASSES:
            raise InvalidInput(one_of("head of the judge", str(head), tuple(CLASSES)))
        logits = self._look(images)[1][head]
        return (logits / self.temperatures[head]).softmax(1).numpy()

    def features(self, images: "Images") -> NDArray[np.float32]:
        """Return (n, 128) features, the ones that FID and KID compare."""
        return self._look(images)[0].numpy()

    @torch.no_grad()
    def _look(self, images: "Images") -> tuple[Tensor, dict[str, Tensor]]:
        x = as_tensor(images)
        parts = [self.net(part) for part in x.split(64)]
        if not parts:
            return torch.empty(0, FEATURES), {name: torch.empty(0, len(c)) for name, c in CLASSES.items()}
        return torch.cat([p[0] for p in parts]), {
            name: torch.cat([p[1][name] for p in parts]) for name in CLASSES
        }


Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | Sequence[Image.Image]


def as_tensor(images: Images) -> Tensor:
    """Return pictures as (n, 3, 64, 64) floats in [-1, 1].

    Raises:
        InvalidInput: not uint8 RGB pictures.
    """
    if isinstance(images, Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim == 3 == images.shape[-1]
    ):
        raise InvalidInput("the judge takes a batch of pictures; put a single one in a list")
    rows = []
    for image in images:
        if not isinstance(image, Image.Image):
            array = np.asarray(image)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
                raise InvalidInput(
                    f"a picture is uint8 RGB (height, width, 3), got {array.dtype} {array.shape}"
                )
            image = Image.fromarray(array)
        if image.size != (64, 64):
            image = image.resize((64, 64), Image.Resampling.BOX)
        rows.append(np.asarray(image.convert("RGB")))
    if not rows:
        return torch.empty(0, 3, 64, 64)
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
