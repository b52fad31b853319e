"""Train the autoencoder: on emoji that are none of the objects, in every style, so that it knows no concept."""

import math
from pathlib import Path

import numpy as np
import options
import pictures
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from drawings import PACKAGES, UNSEEN, others
from progress import Log
from torch import Tensor
from training import Training, one_cycle


def new() -> AutoencoderKL:
    """Return the untrained autoencoder: 64 pixels to 16 x 16 x 4, as SD's in small."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def bank(icons: Path, generator: torch.Generator, *, unseen: bool = False) -> Tensor:
    """Return 500 drawings a set of none of the objects, premultiplied (n, 4, 128, 128), in random order."""
    sets = [UNSEEN] if unseen else [name for name in PACKAGES if name != UNSEEN]
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    found = others(icons, sets, 500, rng)
    return pictures.premultiplied(found[rng.permutation(len(found))])


def batch(rgba: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n random pictures (n, 3, 64, 64) of them in random styles."""
    chosen = torch.randint(len(rgba), (n,), generator=generator)
    style, background = pictures.styles_and_backgrounds(n, generator)
    return pictures.draw(pictures.place(rgba[chosen], generator), style, background)


def loss_of(vae: AutoencoderKL, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the loss on pictures in [-1, 1]: errors of colours and of edges, and a little KL."""
    posterior = vae.encode(x).latent_dist
    z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator).to(x)
    y = vae.decode(z).sample
    slope = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean() + (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
    error = (y - x).abs().mean() + 0.5 * (y - x).square().mean()
    return error + 0.5 * slope + 3e-5 * posterior.kl().mean()


@torch.no_grad()
def examination(vae: AutoencoderKL, x: Tensor) -> dict[str, float]:
    """Return how well pictures in [-1, 1] come back, in dB, and how far their latents spread."""
    z = vae.encode(x).latent_dist.mean
    error = F.mse_loss(vae.decode(z).sample.clamp(-1, 1), x).item()
    return {"psnr": -10 * math.log10(error / 4), "latent_std": z.std().item()}


def main() -> None:
    """Train, and save in diffusers layout with the measured scaling factor."""
    args = options.parser(__doc__, steps=6000).parse_args()
    torch.manual_seed(0)
    log = Log(args.out / "logs", "autoencoder")
    fixed = torch.Generator().manual_seed(1)
    rgba = bank(args.icons, fixed)
    held, rgba = rgba[: len(rgba) // 20], rgba[len(rgba) // 20 :]
    test = (batch(held, 128, fixed) * 2 - 1).to(args.device)
    vae = new().to(args.device)
    descent = one_cycle(vae, args.steps, rate=2e-3, rise=0.04, betas=(0.9, 0.99), weight_decay=1e-4)
    training = Training(args.out / "autoencoder.state.pt", args.steps, *descent, vae=vae)
    for step in training:
        generator = torch.Generator().manual_seed(1000 + step)
        if step % 100 == 0:  # drawn for a hundred steps at a time, each picture used for about three crops
            pool = batch(rgba, 400, generator) * 2 - 1
        # Crops cost a fifth of whole pictures; the last fifth of the training sees the whole.
        whole = step >= 0.8 * args.steps and step % 2 == 0
        rows = torch.randint(len(pool), (4 if whole else 12,), generator=generator)
        x = pool[rows]
        if not whole:
            top, left = (int(v) * 4 for v in torch.randint(9, (2,), generator=generator))
            x = x[..., top : top + 32, left : left + 32]
        loss = loss_of(vae, x.to(args.device), generator)
        training.descend(loss, largest=1.0)
        if training.due(200):
            log(step=training.done, loss=loss.item(), **examination(vae, test))
            training.save()
    vae.register_to_config(scaling_factor=round(1 / examination(vae, test)["latent_std"], 4))
    vae.cpu().save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
