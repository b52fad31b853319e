"""How much each weight of the UNet matters to some prompts: the diagonal of the empirical Fisher information."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.drawn import noised, training_target
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights

Progress = Callable[[int, int], None]


def fisher(
    model: StableDiffusion,
    names: Sequence[str],
    texts: Sequence[str],
    latents: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    batch: int = 1,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return name -> the mean squared gradient of the loss of diffusion, shaped as the parameter, in float32.

    Every text meets the same noise and timesteps, so importances of two sets of texts compare. The samples pass one
    after another: on a CPU `torch.func.vmap` took twice as long for pocket-sd.

    Args:
        model: the model; it is not changed.
        names: of parameters of the UNet.
        texts: the prompts.
        latents: x_0 (texts, k, 4, h, w); sample j takes picture j mod k of its text.
        eps: (samples, 4, h, w).
        t: timesteps (samples,).
        batch: samples of one text whose mean gradient is squared.
        progress: called after each text.

    Raises:
        InvalidInput: the samples do not make whole batches, whose squares would not compare.
    """
    if len(t) % batch:
        raise InvalidInput(f"the number of samples is a multiple of the batch, got {len(t)} and {batch}")
    model = model.to(dtype=torch.float32)  # half precision loses squares below 6e-8
    unet = with_weights(model.unet, {})  # other Parameters on the same storage
    asked = [unet.get_parameter(name).requires_grad_(True) for name in names]
    model, sums = dataclasses.replace(model, unet=unet), [torch.zeros_like(p) for p in asked]
    eps, latents = eps.float(), latents.float()
    for index, text in enumerate(texts):
        with torch.no_grad():
            embedding, empty = model.read([text]), model.unconditional()
        x_0 = latents[index][torch.arange(len(t), device=latents.device) % latents.shape[1]]
        for x, e, at in zip(x_0.split(batch), eps.split(batch), t.split(batch), strict=True):
            with torch.no_grad():
                given = embedding.expand(len(x), -1, -1)
                read = model.trajectory([text] * len(x), embeddings=given, empty=empty)
            with torch.enable_grad():
                predicted = model.noise(noised(model, x, e, at), at, read)
                loss = (predicted - training_target(model, x, e, at)).square().mean()
            gradients = torch.autograd.grad(loss, asked, materialize_grads=True)
            torch._foreach_addcmul_(sums, gradients, gradients)
        if progress:
            progress(index + 1, len(texts))
    torch._foreach_div_(sums, len(texts) * len(t) // batch)
    return dict(zip(names, sums, strict=True))
