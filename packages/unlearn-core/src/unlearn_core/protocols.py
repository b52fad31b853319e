"""What the packages expect of each other: structural protocols, nothing to inherit, nothing to register.

Every unlearning algorithm has one shape, *model + what to forget -> model*, and never changes its argument.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score

Model = TypeVar("Model")
Model_contra = TypeVar("Model_contra", contravariant=True)
Split_contra = TypeVar("Split_contra", contravariant=True)

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@runtime_checkable
class Technique(Protocol[Model]):
    """Makes a text-to-image model forget concepts: a frozen dataclass whose fields are its settings."""

    def apply(
        self, model: Model, concepts: Sequence[Concept], *, seed: int, progress: Progress | None = None
    ) -> Model:
        """Return a model that forgot `concepts`; `model` stays as it was."""
        ...


@runtime_checkable
class Method(Protocol[Model, Split_contra]):
    """Makes classifiers forget examples: a frozen dataclass whose fields are its settings."""

    def steps(self, model: Model, split: Split_contra, *, seed: int) -> Iterator[Model]:
        """Yield the model after each epoch; the last is the result; `model` stays as it was."""
        ...


@runtime_checkable
class TextToImage(Protocol):
    """Draws prompts. The picture of a row depends on the row and the model alone, not on its batch."""

    fingerprint: str

    def generate(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """Return one uint8 RGB image (h, w, 3) per prompt."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Says whether a concept is seen in images."""

    revision: str

    def presence(self, images: Sequence[Any]) -> Sequence[float | None]:
        """Return a confidence in [0, 1] per image, None where it could not be judged."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Says what is in images, among fixed labels of one or more domains ("object", "style")."""

    revision: str
    domains: Mapping[str, Sequence[str]]
    """Domain -> its labels."""

    def classify(self, images: Sequence[Any], domain: str) -> Sequence[str | None]:
        """Return a label of `domain` per image, None where it could not be judged."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """Maps images to features, for distances between sets of them."""

    revision: str
    """Changes whenever the features of an image would."""

    def features(self, images: Sequence[Any]) -> Any:
        """Return the features (n, d) float32 of uint8 RGB images."""
        ...


@runtime_checkable
class Attack(Protocol[Model_contra]):
    """Turns prompts into prompts that bring a forgotten concept back."""

    def craft(
        self, model: Model_contra, prompts: PromptSet, *, seed: int, progress: Progress | None = None
    ) -> PromptSet:
        """Return adversarial prompts, one set of rows per row of `prompts`."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Rates images that exist; generates none."""

    prompts: tuple[str, ...]
    """Names of the prompt sets whose images it needs."""

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, against `reference` where the metric compares two sets."""
        ...
