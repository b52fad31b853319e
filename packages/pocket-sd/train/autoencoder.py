"""Train the autoencoder: on emoji that are none of the objects, in every style, so that it knows no concept."""

import argparse
from pathlib import Path

import numpy as np
import pictures
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from drawings import PACKAGES, UNSEEN, others
from progress import Log, load_state, save_state
from torch import Tensor


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


def main() -> None:
    """Train, and save in diffusers layout with the measured scaling factor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    log = Log(args.out / "logs", "autoencoder")
    fixed = torch.Generator().manual_seed(1)
    rgba = bank(args.icons, fixed)
    held, rgba = rgba[: len(rgba) // 20], rgba[len(rgba) // 20 :]
    test = batch(held, 128, fixed) * 2 - 1
    vae = new().to(args.device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps, pct_start=0.04)
    state_path, start = args.out / "autoencoder.state.pt", 0
    if state := load_state(state_path):
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]
    for step in range(start, args.steps):
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
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 199 or step == args.steps - 1:
            with torch.no_grad():
                z = vae.encode(test.to(args.device)).latent_dist.mean
                error = F.mse_loss(vae.decode(z).sample.clamp(-1, 1).cpu(), test).item()
            log(step=step + 1, loss=loss.item(), psnr=-10 * np.log10(error / 4), latent_std=z.std().item())
            save_state(
                state_path, vae=vae.state_dict(), optimizer=optimizer.state_dict(),
                schedule=schedule.state_dict(), step=step + 1,
            )  # fmt: skip
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 4))
    vae.cpu().save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
