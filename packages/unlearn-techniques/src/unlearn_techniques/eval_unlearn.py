"""Techniques written for eval-unlearn, as they are: the classes of its entry-point group.

    technique = EvalUnlearn.of("theirs", {"strength": 2})
    pictures = list(technique.apply(model, [concept], seed=0).generate(prompts, Sampler(steps=25)))

Such a class is a black box: ``__init__(**config)`` loads a model of its own and makes it forget, and
``generate(prompts, seed=...)`` returns PIL images. It shows neither weights nor noise: its pictures are rated like
anybody's, but no other technique goes on top of it, and no white-box attack can look inside.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, NotRegistered, UnlearnError, UnlearnWarning, one_of
from unlearn_core.prompts import Prompt
from unlearn_core.spec import fingerprint

if TYPE_CHECKING:  # imported late: a command asks here who has a name, before it needs torch
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from unlearn_techniques.diffusion.model import StableDiffusion
    from unlearn_techniques.diffusion.sampling import Sampler

GROUP = "eval_unlearn.techniques"
PREFIX = "eval_unlearn_"


def find(name: str) -> str | None:
    """Return the name registered there for NAME or "eval_unlearn_NAME", in whatever case; None if there is none."""
    asked = name.removeprefix(PREFIX).casefold()
    return next((known for known in registry.names(GROUP) if known.casefold() == asked), None)


@dataclass(frozen=True, kw_only=True)
class EvalUnlearn:
    """A technique of eval-unlearn's interface, which draws with a model of its own."""

    name: str
    """As it is registered."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What its constructor is given besides `erase_concept`, `device` and `use_fp16`, which the run decides."""
    revision: str = ""
    """Version of its package and hash of its file: other code, another result."""

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> Self:
        """Return the technique of a name that `find` understands; text that is a number becomes one.

        Raises:
            NotRegistered: there is none.
            UnlearnError: it does not import.
            InvalidInput: it has no `generate`, or its constructor has no such setting.
        """
        known = find(name)
        if known is None:
            asked = name.removeprefix(PREFIX)
            raise NotRegistered(one_of("technique of eval-unlearn", asked, registry.names(GROUP)))
        theirs = registry.load(GROUP, known)
        if not callable(getattr(theirs, "generate", None)):
            raise InvalidInput(f"{known}: a technique of eval-unlearn has generate(prompts, seed=...)")
        takes = _taken_by(theirs, config)
        if wrong := next((key for key in config if key not in takes), None):
            settings = [p for p in inspect.signature(theirs).parameters if p not in ("args", "kwargs")]
            raise InvalidInput(f"{known}: " + one_of("setting", wrong, settings))
        return cls(
            name=known, config={k: _value(v) for k, v in config.items()}, revision=_revision(known, theirs)
        )

    def apply(
        self, model: "StableDiffusion", concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> "BlackBox":
        """Return what draws; it loads and unlearns when the first picture is asked for.

        Raises:
            InvalidInput: more than one concept.

        Warns:
            UnlearnWarning: always, of what cannot be compared.
        """
        if len(concepts) != 1:
            raise InvalidInput(f"{self.name} is told one concept to forget, got {len(concepts)}")
        decided = {
            "erase_concept": concepts[0].name,
            "device": str(model.device),
            "use_fp16": str(model.dtype) == "torch.float16",
        }
        takes = _taken_by(registry.load(GROUP, self.name), decided)
        said = (
            f"{self.name} draws with a model and noise of its own: the pictures before are of {model.source}, and "
            "the change is not paired"
        )
        if "erase_concept" not in {*takes, *self.config}:
            said += "; its constructor takes no erase_concept, so what it forgets is its own choice"
        warnings.warn(said, UnlearnWarning, stacklevel=2)
        config = {**{key: decided[key] for key in takes}, **self.config}
        return BlackBox(technique=self, config=config, seed=seed, base=model)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlackBox:
    """What draws in the place of a model: a technique that holds its own."""

    technique: EvalUnlearn
    config: Mapping[str, Any]
    """All that its constructor is given."""
    seed: int
    base: "StableDiffusion"
    """The unmodified model of the run, for its device and size; it draws nothing here."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of its name, code, settings and seed: its weights are nobody's to see."""
        return fingerprint([self.technique.name, self.technique.revision, dict(self.config), self.seed])

    @property
    def hooks(self) -> tuple[Any, ...]:
        """What acts while it draws: all of it, so there is no delta of weights."""
        return (self.technique,)

    @property
    def device(self) -> "torch.device":
        """Where the run is."""
        return self.base.device

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Return the latent shape of the unmodified model."""
        return self.base.latent_shape(height, width)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampler: "Sampler | None" = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> "Iterator[NDArray[np.uint8]]":
        """Yield one uint8 RGB picture (h, w, 3) per prompt, in order.

        Each is drawn in a call of its own with the seed of its row, so that it does not depend on its company. Their
        scheduler is their own; steps, guidance and size are said where their `generate` takes them.

        Raises:
            InvalidInput: a prompt that is sexual and mentions a minor.
            UnlearnError: theirs fails, or returns something else than one picture.
        """
        for prompt in prompts:
            if prompt.refused:
                raise InvalidInput(
                    f"the prompt {prompt.id!r} is sexual and mentions a minor: it is not drawn"
                )
        from unlearn_techniques.diffusion.sampling import Sampler

        sampler = sampler or Sampler()
        for done, prompt in enumerate(prompts, start=1):
            scale = sampler.guidance_scale if prompt.guidance is None else prompt.guidance
            said = {
                "num_inference_steps": sampler.steps, "guidance_scale": scale, "height": sampler.height,
                "width": sampler.width,
            }  # fmt: skip
            said = {key: value for key, value in said.items() if value is not None}
            taken = {key: said[key] for key in _taken_by(self._theirs.generate, said)}
            with self._explained("drawing"):
                # NumPy's generators end at 32 bits.
                drawn = self._theirs.generate([prompt.text], seed=prompt.seed % 2**32, **taken)
            yield self._picture(drawn)
            if progress:
                progress(done, len(prompts))

    @functools.cached_property
    def _theirs(self) -> Any:
        import torch

        start = time.monotonic()
        with torch.random.fork_rng(), self._explained("loading and unlearning"):
            torch.manual_seed(self.seed)  # foreign training reads the global generator
            theirs = registry.load(GROUP, self.technique.name)(**self.config)
        spent = time.monotonic() - start
        warnings.warn(
            f"{self.technique.name}: loading and unlearning took {spent:.0f} s, counted as drawing",
            UnlearnWarning,
            stacklevel=2,
        )
        return theirs

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except UnlearnError:
            raise
        except Exception as error:
            # Foreign code may raise anything; its user is told who and when.
            name = self.technique.name
            raise UnlearnError(f"{name} failed while {doing}: {type(error).__name__}: {error}") from error

    def _picture(self, drawn: Any) -> "NDArray[np.uint8]":
        pictures = list(drawn) if isinstance(drawn, Sequence) else [drawn]
        if len(pictures) != 1 or not hasattr(pictures[0], "convert"):
            raise UnlearnError(
                f"{self.technique.name}: generate returns one PIL image for one prompt, got "
                + (f"{len(pictures)} of them" if len(pictures) != 1 else type(pictures[0]).__name__)
            )
        import numpy as np

        return np.asarray(pictures[0].convert("RGB"))


def _taken_by(function: Any, names: Iterable[str]) -> list[str]:
    """Return those of `names` that can be given to a function or class by name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(names)
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return [name for name in names if name in known]


def _value(value: Any) -> Any:
    """Return a number or truth value for the text of one, as the command line gives; else the argument."""
    try:
        found = json.loads(value.lower()) if isinstance(value, str) else value
    except ValueError:
        return value
    return found if isinstance(found, bool | int | float) else value


def _revision(name: str, theirs: type) -> str:
    """Return "DISTRIBUTION VERSION HASH", the hash that of the file that defines the class."""
    owner = next(iter(entry_points(group=GROUP, name=name))).dist
    source = hashlib.sha256(Path(inspect.getfile(theirs)).read_bytes()).hexdigest()[:12]
    return f"{owner.name} {owner.version} {source}" if owner else source
