"""Makes assets/digits.npz: the images of scikit-learn's copy of UCI optdigits, and the ten forget sets.

    uv run --with scikit-learn packages/klom-bench/recipes/digits.py

Run twice from scratch: the principal components come from the pretrain ensemble, which needs the images.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from klom_bench.datasets.digits import N_TRAIN, Digits

ASSET = Path(__file__).parents[1] / "src/klom_bench/assets/digits.npz"


def images() -> dict[str, np.ndarray]:
    """Return the images and labels in a fixed random order: the source lists them writer by writer."""
    source = load_digits()
    order = np.random.RandomState(0).permutation(len(source.images))
    return {
        "images": source.images[order].astype(np.uint8),
        "labels": source.target[order].astype(np.uint8),
        "source_index": order.astype(np.uint16),
    }


def random_sets() -> dict[str, np.ndarray]:
    """Return sets 1-3 by EasyDUB's own recipe (numpy's legacy generator, seeds 0, 1, 2)."""
    draw = [
        np.random.RandomState(s).choice(N_TRAIN, n, replace=False) for s, n in ((0, 10), (1, 20), (2, 50))
    ]
    return {f"forget_{i}": np.sort(d).astype(np.uint16) for i, d in enumerate(draw, start=1)}


def structured_sets(hidden: torch.Tensor) -> dict[str, np.ndarray]:
    """Return sets 4-10 from the last hidden layer (models, train images, units) of the pretrain ensemble."""
    centred = hidden - hidden.mean(1, keepdim=True)
    gram = torch.einsum("mif,mjf->ij", centred, centred)
    _, vectors = torch.linalg.eigh(gram)
    sets = {}
    for first, component in ((4, vectors[:, -1]), (7, vectors[:, -2])):
        if component[component.abs().argmax()] < 0:  # an eigenvector has no sign of its own
            component = -component
        order = component.argsort(descending=True)
        sets[f"forget_{first}"] = order[:10]
        sets[f"forget_{first + 1}"] = order[:20]
        sets[f"forget_{first + 2}"] = torch.cat([order[:25], order[-25:]])
    distance = gram.diag() - 2 * gram[6] + gram[6, 6]
    sets["forget_10"] = distance.argsort()[:20]
    return {k: v.sort().values.numpy().astype(np.uint16) for k, v in sets.items()}


def last_hidden_layer() -> torch.Tensor:
    """Return the activations (100, N_TRAIN, 64) of the pretrain ensemble before its last layer."""
    data = Digits()
    split, ensemble = data.split(1), data.pretrained(range(data.n_models))
    *body, _ = ensemble.children()
    x = split.images.expand(data.n_models, *split.images.shape)
    with torch.inference_mode():
        for layer in body:
            x = layer(x)
    return x.double()


if __name__ == "__main__":
    np.savez_compressed(ASSET, **images(), **random_sets())
    np.savez_compressed(ASSET, **images(), **random_sets(), **structured_sets(last_hidden_layer()))
    print(f"{ASSET}: {ASSET.stat().st_size} bytes")
