"""What acts during sampling: the three places of a technique that leaves the weights alone, and what they see.

A hook is a frozen dataclass, so that its settings are part of the model's fingerprint. Hooks compose in the order in
which they were added. They act inside `StableDiffusion.noise`, so whatever differentiates through it, such as a
white-box attack, goes through the defence as well.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from unlearn_core.errors import UnlearnError

if TYPE_CHECKING:
    from unlearn_techniques.diffusion.model import StableDiffusion


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


class Condition(Protocol):
    """Changes what the UNet reads, such as SAFREE."""

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
    """Changes the direction of classifier-free guidance, such as SLD."""

    texts: tuple[str, ...]
    """Prompts whose noise is predicted in the same call of the UNet."""

    def start(self) -> Callable[[Tensor, Predictions, Step], Tensor]:
        """Return what maps a direction (n, 4, h, w) at each step of one trajectory, with a state of its own.

        The direction is ``prompt - empty`` as the hooks before left it; the model adds the guidance scale times it.
        """
        ...


class Activation(Protocol):
    """Changes activations of the UNet on their way to the noise, such as SAeUron."""

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
        def change(module: nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):  # transformers inside the UNet return (states,)
                return (activation(output[0], rows, step), *output[1:])
            return activation(output, rows, step)

        return change

    handles = []
    try:
        for activation in activations:
            for name in activation.modules:
                if name not in modules:
                    raise UnlearnError(f"{type(activation).__name__}: the UNet has no module {name!r}")
                handles.append(modules[name].register_forward_hook(hook(activation)))
        yield
    finally:
        for handle in handles:
            handle.remove()
