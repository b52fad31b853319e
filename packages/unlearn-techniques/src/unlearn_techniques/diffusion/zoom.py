"""Pictures at another size, with the prompt that says so and the mask of where a picture is: CA's augmentation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_techniques.diffusion.model import StableDiffusion

FAR, NEAR = ("a far away", "very small"), ("zoomed in", "close up")


@torch.no_grad()
def zoomed(
    model: StableDiffusion, latents: Tensor, texts: Sequence[str], generator: torch.Generator
) -> tuple[Tensor, Tensor, list[str]]:
    """Return latents at random sizes, a mask of where there is a picture, and texts that say the size.

    Decoded, mirrored in half of the cases, and resized: in two of three cases to between a third and the whole of the
    side, on a grey canvas, else to 1.2 to 1.4 times the side and cut. Below 0.6 and above 1 the text says so.

    Args:
        model: whose autoencoder reads and writes.
        latents: (n, 4, h, w).
        texts: n prompts.
        generator: of the CPU.

    Returns:
        The latents (n, 4, h, w); the mask (n, 1, h, w) of 0 and 1, without a border of one latent; the texts.
    """
    scaling = model.vae.config.scaling_factor
    pixels = model.vae.decode(latents / scaling).sample.float()
    (height, width), (h, w) = pixels.shape[2:], latents.shape[2:]
    mask, said, canvases = torch.ones(len(latents), 1, h, w), [], []
    for i, (picture, text) in enumerate(zip(pixels, texts, strict=True)):
        mirror, small, size, across, down = torch.rand(5, generator=generator).tolist()
        ratio = 1 / 3 + size * 2 / 3 if small < 0.66 else 1.2 + 0.2 * size
        if mirror < 0.5:
            picture = picture.flip(-1)
        rows, columns = round(height * ratio), round(width * ratio)
        resized = functional.interpolate(picture[None], (rows, columns), mode="bicubic", antialias=True)[0]
        top, left = int(down * (abs(height - rows) + 1)), int(across * (abs(width - columns) + 1))
        if ratio > 1:
            canvas = resized[:, top : top + height, left : left + width]
        else:
            canvas = torch.zeros_like(picture)
            canvas[:, top : top + rows, left : left + columns] = resized
            f = height // h
            mask[i] = 0
            mask[i, :, top // f + 1 : (top + rows) // f - 1, left // f + 1 : (left + columns) // f - 1] = 1
        canvases.append(canvas.clamp(-1, 1))
        words = FAR if ratio < 0.6 else NEAR if ratio > 1 else None
        choice = int(torch.randint(2, (), generator=generator))
        said.append(f"{words[choice]} {text}" if words else text)
    encoded = model.vae.encode(torch.stack(canvases).to(latents.dtype)).latent_dist.mode() * scaling
    return encoded, mask.to(latents), said


def masked_error(predicted: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of predictions (n, 4, h, w) where the mask (n, 1, h, w) is 1.

    As in both codes of CA it is summed over channels and divided by places: four times an ordinary mean.
    """
    error = mask * (predicted - wanted).float().square()
    return (error.sum((1, 2, 3)) / mask.float().sum((1, 2, 3)).clamp(min=1)).mean()
