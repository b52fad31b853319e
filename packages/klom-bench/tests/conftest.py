import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from klom_bench.split import Split

settings.register_profile("klom", deadline=None, max_examples=60)
settings.load_profile("klom")
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Point the cache of everything computed into a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["UNLEARN_BENCH_CACHE"])


@pytest.fixture(scope="session")
def reference():
    with np.load(Path(__file__).parent / "klom_reference.npz") as arrays:
        return dict(arrays)


def make_split(shape, n=40, forget=10, n_val=12, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n + n_val, *shape, generator=generator)
    labels = torch.randint(classes, (n + n_val,), generator=generator)
    chosen = torch.randperm(n, generator=generator)[:forget]
    return Split.of(images[:n], labels[:n], chosen, images[n:], labels[n:])


@pytest.fixture
def vectors():
    """Return a split of 40 vectors of 6 numbers, 10 of them to forget, 4 classes."""
    return make_split((6,))


@pytest.fixture
def pictures():
    """Return a split of 24 images of 3 x 16 x 16 (the least ResNet-9 takes with more than one pixel left)."""
    return make_split((3, 16, 16), n=24, forget=8)


@pytest.fixture
def quick_digits(tmp_path, monkeypatch):
    """Return the digits data set with two epochs of training and a cache of its own."""
    from klom_bench.datasets import digits
    from klom_bench.methods.retrain import Retrain

    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    training = Retrain(epochs=2, lr=0.05, weight_decay=0.0, batch_size=100, peak_epoch=0.0)
    monkeypatch.setattr(digits, "TRAINING", training)
    return digits.Digits()


@pytest.fixture
def trained(monkeypatch):
    """Return the list of id ranges that Retrain was asked to train, as the test goes on."""
    from klom_bench.methods.retrain import Retrain

    asked, steps = [], Retrain.steps

    def counted(self, model, split, *, seed=0, ids=None, **options):
        asked.append(
            (ids.start % 1_000_000, ids.stop % 1_000_000, "oracle" if ids.start >= 1_000_000 else "pretrain")
        )
        return steps(self, model, split, seed=seed, ids=ids, **options)

    monkeypatch.setattr(Retrain, "steps", counted)
    return asked
