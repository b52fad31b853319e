import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from unlearn_core import registry
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_metrics import verdict_cache

settings.register_profile(
    "metrics",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("metrics")
torch.set_num_threads(1)

SIZE = 32
"""Side of the images that the tiny CLIP takes."""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Point the cache of everything computed into a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("UNLEARN_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_verdicts(tmp_path, monkeypatch):
    """Give each test verdicts of its own: judges of tests share names and answer differently."""
    monkeypatch.setattr(verdict_cache, "cache_folder", lambda: tmp_path / "verdicts")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """Return "local-dir:/path" of a CLIP with random weights: images of 32 pixels, 24 dimensions."""
    import open_clip
    from safetensors.torch import save_file

    architecture = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**{k: v for k, v in architecture.items()})
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture
def pictures():
    """Return a function to n different random images, uint8 RGB (n, size, size, 3)."""

    def make(n, size=SIZE, seed=0):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(
            0, 256, (n, 4, 4, 3), np.uint8
        )  # noise of single pixels looks the same to any net
        return coarse.repeat(size // 4, 1).repeat(size // 4, 2)

    return make


@pytest.fixture
def png():
    """Return a function from an array or a PIL image to the bytes of a PNG."""

    def make(image):
        buffer = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def sample_set(tmp_path, png):
    """Return a function to a SampleSet: images, and texts or prompts; other arguments are fields of each."""
    made = []

    def make(images, texts=None, *, group="quality", folder=None, **fields):
        made.append(folder)
        samples = SampleSet(folder or tmp_path / f"samples-{len(made)}")
        for i, image in enumerate(images):
            text = f"picture number {i}" if texts is None else texts[i]
            row = {"id": f"{group}-{i}", "text": text, "seed": i, "group": group, **fields}
            prompt = text if isinstance(text, Prompt) else Prompt(**row)
            samples.add(prompt, png(image))
        return samples

    return make


@pytest.fixture
def damage():
    """Return a function that cuts the image file of a sample in half, as recorded: its hash is the new one."""

    def cut(samples: SampleSet, index: int) -> SampleSet:
        import hashlib

        sample = list(samples)[index]
        data = sample.path.read_bytes()
        sample.path.write_bytes(data[: len(data) // 2])
        new = hashlib.sha256(sample.path.read_bytes()).hexdigest()
        lines = Path(samples.folder / "metadata.jsonl")
        lines.write_text(lines.read_text().replace(sample.sha256, new))
        return SampleSet(samples.folder)

    return cut


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """The confidence in thousandths is 256 red + green; blue 255 cannot be judged. It sees dogs and nothing else."""

    concept: str
    revision: str = "1"

    def presence(self, images):
        if self.concept != "dog":
            raise InvalidInput(f"it sees dogs, not {self.concept}")
        pixels = [image[0, 0].astype(int) for image in images]
        return [None if p[2] == 255 else (256 * p[0] + p[1]) / 1000 for p in pixels]


@pytest.fixture
def plugs(monkeypatch):
    """Return a mapping name -> class; what is put there is found in every group, beside what is installed."""
    found = {}
    load, names = registry.load, registry.names
    monkeypatch.setattr(registry, "load", lambda group, name: found.get(name) or load(group, name))
    monkeypatch.setattr(registry, "names", lambda group: sorted({*names(group), *found}))
    return found


@pytest.fixture
def pixel_detector(plugs):
    """Return the class of the detector "pixel"."""
    plugs["pixel"] = Pixel
    return Pixel


@pytest.fixture
def drawn(tmp_path, png):
    """Return a function from confidences in thousandths (None: cannot be judged, "black") to a SampleSet."""
    made = []

    def make(confidences, texts=None, *, group="target", concept="dog", samples=None):
        made.append(group)
        samples = samples or SampleSet(tmp_path / f"drawn-{len(made)}")
        for i, confidence in enumerate(confidences):
            image = np.full((2, 2, 3), 1, np.uint8)
            image[1, 1, 0] = i  # no two files alike
            if confidence == "black":
                image[:] = 0
            else:
                image[0, 0] = (0, 0, 255) if confidence is None else (*divmod(confidence, 256), 0)
            text = texts[i] if texts else f"picture {i}"
            prompt = Prompt(id=f"{group}-{i:03d}", text=text, seed=i, group=group, concept=concept)
            samples.add(prompt, png(image))
        return samples

    return make
