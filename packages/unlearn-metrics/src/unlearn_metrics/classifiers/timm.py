"""Trained image classifiers of timm and transformers, with labels from a file or of their own.

UnlearnCanvas: model="vit_large_patch16_224.augreg_in21k", weights= its style or object checkpoint as safetensors,
label_file= the 51 styles or 20 objects, preprocessing={"crop_pct": 1.0, "interpolation": "bilinear"}.
"""

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable, one_of
from unlearn_core.spec import canonical_json, fingerprint

PREPROCESSING = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


@dataclass(frozen=True, kw_only=True)
class TimmClassifier:
    """Names the label that a trained classifier of timm or transformers gives most weight.

    Raises:
        InvalidInput: an empty label file, weights that are no safetensors or lack a label file, settings that
            the library does not have, a batch below 1.
        Unavailable: the label file cannot be read.
    """

    model: str
    """timm: a name ("resnet50.a1_in1k"), ``hf-hub:owner/name`` or ``local-dir:/path``; transformers: a Hub id or
    a folder."""
    library: Literal["timm", "transformers"] = "timm"
    weights: Path | None = None
    """A safetensors file for the architecture `model` of timm, with as many outputs as labels."""
    label_file: Path | None = None
    """A label a line, in the order of the outputs; several outputs may share one ("dog" for every breed). None:
    the model's own names, each up to its first comma."""
    domain: str = "object"
    """What the labels are labels of."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """timm: what differs from the model's own input_size, interpolation, mean, std, crop_pct, crop_mode."""
    device: str = "auto"
    batch: int = 32

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one image, got {self.batch}")
        if self.library == "transformers" and (self.weights or self.preprocessing):
            raise InvalidInput(
                "weights and preprocessing are settings of timm; transformers has both in its folder"
            )
        for name in self.preprocessing:
            if name not in PREPROCESSING:
                raise InvalidInput("preprocessing: " + one_of("setting", name, PREPROCESSING))
        if self.weights is not None:
            if Path(self.weights).suffix != ".safetensors":
                raise InvalidInput(
                    f"{str(self.weights)!r} is no safetensors file, and pickles may run code: convert it with "
                    "safetensors.torch.save_file(torch.load(path, weights_only=True), 'new.safetensors')"
                )
            if self.label_file is None:
                raise InvalidInput("weights need a label_file: nothing else says what their outputs mean")
        if self.label_file is not None:
            _labels(Path(self.label_file))

    @property
    def domains(self) -> Mapping[str, tuple[str, ...]]:
        """The one domain with its labels, each once; loads the model unless there is a label file."""
        labels = self._loaded.labels if self.label_file is None else _labels(Path(self.label_file))
        return {self.domain: tuple(dict.fromkeys(labels))}

    @functools.cached_property
    def revision(self) -> str:
        """Of weights, preprocessing and labels; loads the model."""
        from unlearn_metrics.loading import weights_hash

        net, _, preprocessing, labels = self._loaded
        what = {"weights": weights_hash(net), "preprocessing": preprocessing, "labels": labels}
        return f"{self.library} {Path(self.model).name} {fingerprint(what)[:16]}"

    def classify(self, images: Sequence[Any], domain: str) -> list[str | None]:
        """Return the label of each uint8 RGB image (h, w, 3); None where the outputs are not finite.

        Raises:
            InvalidInput: another domain, no such model, one whose head is not trained, or other labels than outputs.
            Unavailable: the weights cannot be read or downloaded.
            MissingExtra: transformers is not installed.
        """
        _, _, _, labels = self._loaded
        found: list[str | None] = []
        for row in self._logits(images, domain):
            found.append(labels[int(row.argmax())] if bool(row.isfinite().all()) else None)
        return found

    def probabilities(self, images: Sequence[Any], domain: str) -> Any:
        """Return float64 (n, labels of the domain) for uint8 RGB images (h, w, 3); rows sum to 1, or are NaN.

        Outputs that share a label are added up. Raises as `classify`.
        """
        import numpy as np

        _, _, _, labels = self._loaded
        (names,) = self.domains.values()
        column = [names.index(label) for label in labels]
        found = np.zeros((len(images), len(names)))
        for i, row in enumerate(self._logits(images, domain)):
            np.add.at(found[i], column, row.double().softmax(-1).numpy())
        return found

    def _logits(self, images: Sequence[Any], domain: str) -> Iterator[Any]:
        """Yield the outputs for each image, float32 on the CPU."""
        if domain != self.domain:
            raise InvalidInput(one_of("domain", domain, [self.domain]))
        import torch
        from PIL import Image

        net, transform, _, _ = self._loaded
        device = next(net.parameters()).device
        for start in range(0, len(images), self.batch):
            pictures = [Image.fromarray(image).convert("RGB") for image in images[start : start + self.batch]]
            with torch.inference_mode():
                out = net(transform(pictures).to(device))
            yield from getattr(out, "logits", out).float().cpu()

    @functools.cached_property
    def _loaded(self) -> "_Loaded":
        from unlearn_metrics.loading import device_of

        device = device_of(self.device)
        load = _from_timm if self.library == "timm" else _from_transformers
        net, transform, preprocessing, own = load(self)
        labels = own if self.label_file is None else _labels(Path(self.label_file))
        if not labels:
            raise InvalidInput(f"the model {self.model!r} names no classes: give it a label_file")
        if len(labels) != len(own):
            raise InvalidInput(
                f"the model {self.model!r} has {len(own)} outputs, the label file {len(labels)} lines"
            )
        return _Loaded(net.eval().requires_grad_(False).to(device), transform, preprocessing, labels)


class _Loaded(NamedTuple):
    net: Any
    transform: Callable[[list[Any]], Any]
    """PIL images -> the network's input."""
    preprocessing: str
    """What `transform` does, in words that differ whenever it does."""
    labels: tuple[str, ...]
    """One an output."""


def _from_timm(settings: TimmClassifier) -> _Loaded:
    import timm
    import torch
    from timm.data import create_transform, resolve_model_data_config

    name = settings.model
    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5, cutoff=0.3)
        raise InvalidInput(
            f"timm has no model {name!r}; the nearest are: {', '.join(near) or 'none'}. "
            "A model of the Hub is written hf-hub:owner/name, a folder local-dir:/path"
        )
    try:
        if settings.weights is None:
            net = timm.create_model(name, pretrained=True)
        else:
            from safetensors.torch import load_file

            n = len(_labels(Path(settings.label_file or "")))
            net = timm.create_model(name, pretrained=False, num_classes=n)
            net.load_state_dict(load_file(settings.weights))
    except Exception as error:
        raise _unavailable(settings, error) from error
    config = resolve_model_data_config(net, args=settings.preprocessing)
    each = create_transform(**config)
    own = ("",) * net.num_classes if settings.label_file else _timm_names(net)
    return _Loaded(
        net, lambda pictures: torch.stack([each(p) for p in pictures]), canonical_json(config), own
    )


def _timm_names(net: Any) -> tuple[str, ...]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    names = (getattr(net, "pretrained_cfg", None) or {}).get("label_names")
    if names is None and (subset := infer_imagenet_subset(net)):
        info = ImageNetInfo(subset)
        names = [info.index_to_description(i) for i in range(net.num_classes)]
    return tuple(name.partition(",")[0].strip() for name in names or ())


def _from_transformers(settings: TimmClassifier) -> _Loaded:
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise MissingExtra("this needs transformers: pip install 'unlearn-metrics[transformers]'") from error
    try:
        net, info = AutoModelForImageClassification.from_pretrained(
            settings.model, use_safetensors=True, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(settings.model)
    except Exception as error:
        raise _unavailable(settings, error) from error
    if missing := sorted(info["missing_keys"]):  # transformers makes them up and only warns
        raise InvalidInput(
            f"the model {settings.model!r} is no trained classifier: it lacks {', '.join(missing[:4])}"
        )
    names = net.config.id2label
    return _Loaded(
        net,
        lambda pictures: processor(images=pictures, return_tensors="pt")["pixel_values"],
        canonical_json(processor.to_dict()),
        tuple(str(names[i]).partition(",")[0].strip() for i in range(net.config.num_labels)),
    )


def _unavailable(settings: TimmClassifier, error: Exception) -> Unavailable:
    # Either library raises a dozen unrelated types (HTTP, safetensors, shapes, …); none is a defect of ours.
    reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or type(error).__name__
    weights = f" with the weights {str(settings.weights)!r}" if settings.weights else ""
    return Unavailable(
        f"cannot load the classifier {settings.model!r}{weights} of {settings.library}: {reason}"
    )


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise Unavailable(f"cannot read the label file {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise InvalidInput(f"the label file {str(path)!r} is not UTF-8; save it as UTF-8") from None
    labels = tuple(line.strip() for line in lines)
    if not labels or "" in labels:
        where = f"line {labels.index('') + 1} is blank" if labels else "it is empty"
        raise InvalidInput(
            f"the label file {str(path)!r} has a label a line, in the order of the outputs: {where}"
        )
    return labels
