"""What acts during sampling: the three places of a technique that leaves the weights alone, and what they see.

A hook is a frozen dataclass, so that its settings are part of the model's fingerprint. Hooks compose in the order in
which they were added. They act inside `StableDiffusion.noise`, so whatever differentiates through it, such as a
white-box attack, goes through the defence as well.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearn_core.errors import UnlearnError

if TYPE_CHECKING:
    from unlearn_techniques.diffusion.model import StableDiffusion


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """What a batch carries from step to step: its embeddings, and the state of the hooks.

    Begin another one (`StableDiffusion.trajectory`) for every pass over the steps.
    """

    prompt: Tensor
    """(n, tokens, width)."""
    empty: Tensor
    """(1, tokens, width)."""
    extra: tuple[Tensor, ...]
    """(1, tokens, width) for each text of the guidances."""
    conditions: tuple[Any, ...]
    guidances: tuple[Any, ...]


@dataclass(kw_only=True)
class Step:
    """Where in a trajectory a prediction stands."""

    index: int
    """Steps done before this one."""
    total: int
    """Steps of the whole trajectory."""
    t: Tensor
    """Timestep, () or (n,), in [0, 1000)."""
    latents: Tensor
    """(n, 4, h, w), as the scheduler left them; a guidance may put others in their place."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The UNet's answers at one step, each (n, 4, h, w)."""

    empty: Tensor
    """For the empty prompt."""
    prompt: Tensor
    extra: tuple[Tensor, ...] = ()
    """For the texts that the guidance named."""
    x: Tensor | None = None
    """The latents that the UNet read, as the scheduler scaled them."""
    latents: Tensor | None = None
    """The same as the scheduler holds them, before any guidance moved them."""


class Condition(Protocol):
    """Changes what the UNet reads, such as SAFREE.

    One that changes the empty prompt too has ``prepare_empty(model, empty) -> Tensor``, both (1, tokens, width).
    """

    def prepare(
        self, model: "StableDiffusion", texts: Sequence[str] | None, embeddings: Tensor
    ) -> Callable[[Tensor, Step], Tensor]:
        """Return what maps embeddings (n, tokens, width) at each step of one trajectory.

        Args:
            model: the model that is sampled.
            texts: of the n prompts; None where somebody gave embeddings alone.
            embeddings: of the prompts, (n, tokens, width).
        """
        ...


class Guidance(Protocol):
    """Changes the direction of classifier-free guidance, such as SLD.

    One that states ``gradient = True``, such as TraSCE, may differentiate the predictions by `Predictions.x`, also
    while pictures are drawn without gradients. Keep the graph: other guidances use it too.
    """

    texts: tuple[str, ...]
    """Prompts whose noise is predicted in the same call of the UNet."""

    def start(self) -> Callable[[Tensor, Predictions, Step], Tensor]:
        """Return what maps a direction (n, 4, h, w) at each step of one trajectory, with a state of its own.

        The direction is ``prompt - empty`` as the hooks before left it; the model adds the guidance scale times it.
        """
        ...


class Activation(Protocol):
    """Changes activations of the UNet on their way to the noise, such as SAeUron.

    One that states ``on = "input"`` is given what its modules read, not what they return. One that states
    ``original = True``, such as SAFREE's, finds the rows "original" too: the prompt as no condition has changed it.
    They are the rows "prompt" at a step at which no condition changes it.
    """

    modules: tuple[str, ...]
    """Names of modules of the UNet; what they return is given to the call."""

    def __call__(self, output: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        """Return what takes the place of `output`.

        Args:
            output: of one of the modules; the first dimension holds the rows below.
            rows: "empty", "prompt" and "extra" -> their rows; "empty" is not there where no guidance needs it.
            step: where in the trajectory this is.
        """
        ...


def branches(
    prompt: Tensor, trajectory: Trajectory, activations: Sequence[Activation], *, guided: bool
) -> tuple[Tensor, dict[str, slice]]:
    """Return what one call of the UNet reads, (rows, tokens, width), and the rows of each branch.

    Args:
        prompt: (n, tokens, width), as the conditions left it.
        trajectory: with the other embeddings.
        activations: of the model; one of them may compare with the prompt as no condition has changed it.
        guided: whether the empty prompt and the texts of the guidances are asked.
    """
    n, reads = len(prompt), [prompt]
    rows = {"prompt": slice(0, n)}
    if guided:
        empty, *extra = (e.expand_as(prompt) for e in (trajectory.empty, *trajectory.extra))
        reads = [empty, prompt, *extra]
        rows = {"empty": slice(0, n), "prompt": slice(n, 2 * n), "extra": slice(2 * n, len(reads) * n)}
    if any(getattr(hook, "original", False) for hook in activations):
        rows["original"] = rows["prompt"]
        if prompt is not trajectory.prompt:
            rows["original"] = slice(len(reads) * n, (len(reads) + 1) * n)
            reads.append(trajectory.prompt)
    return reads[0] if len(reads) == 1 else torch.cat(reads), rows


@contextlib.contextmanager
def differentiable(x: Tensor, guidances: Sequence[Guidance]) -> Iterator[Tensor]:
    """Give the latents that the UNet reads; its graph is recorded from them where a guidance differentiates by them."""
    if not any(getattr(hook, "gradient", False) for hook in guidances):
        yield x
        return
    # Gradients of that gradient, as for a white-box attack, exist only for attention that is written out.
    written_out = sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else contextlib.nullcontext()
    with torch.enable_grad(), written_out:
        yield x if x.requires_grad else x.detach().requires_grad_()


@contextlib.contextmanager
def hooked(
    unet: nn.Module, activations: Sequence[Activation], rows: Mapping[str, slice], step: Step
) -> Iterator[None]:
    """Let activation hooks act for the time of one call of the UNet.

    Raises:
        UnlearnError: a hook names a module that is not there.
    """
    if not activations:
        yield
        return
    modules = dict(unet.named_modules())

    def hook(activation: Activation) -> Any:
        def change(module: nn.Module, inputs: Any, output: Any = None) -> Any:
            tensor = inputs if output is None else output
            if isinstance(tensor, tuple):  # transformers inside the UNet return (states,)
                return (activation(tensor[0], rows, step), *tensor[1:])
            return activation(tensor, rows, step)

        return change

    handles = []
    try:
        for activation in activations:
            for name in activation.modules:
                if name not in modules:
                    raise UnlearnError(f"{type(activation).__name__}: the UNet has no module {name!r}")
                reads = getattr(activation, "on", "output") == "input"
                register = (
                    modules[name].register_forward_pre_hook if reads else modules[name].register_forward_hook
                )
                handles.append(register(hook(activation)))
        yield
    finally:
        for handle in handles:
            handle.remove()
