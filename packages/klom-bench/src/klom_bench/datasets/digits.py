"""The embedded data set: UCI optical digits and a small network, trained on the spot.

1,797 images of 8 x 8 pixels (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0; see
assets/DIGITS.md): 500 to train on, 1,297 to validate. An MLP 64-64-64-10 trained for 120 epochs without
weight decay memorises enough for a forget set to matter, as on CIFAR-10 (docs/klom.md has the runs that
settled this). 100 pretrain models, and 200 oracles per forget set, so that a hundred are held out.

Ten forget sets mirror EasyDUB's: 1-3 random, 4-6 and 7-9 extremes along the first two principal
components of the pretrain ensemble's last hidden layer, 10 the nearest neighbours of one image there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from klom_bench.cache import block_tensors, blocks, rows
from klom_bench.ensemble import ensemble_margins
from klom_bench.folders import cache_root
from klom_bench.methods.retrain import Retrain
from klom_bench.mlp import MLP
from klom_bench.split import Split
from klom_bench.training import last
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint, settings_of

N_TRAIN = 500
TRAINING = Retrain(**Retrain.presets["digits"])


@dataclass(frozen=True, kw_only=True)
class Digits:
    """UCI optical digits, trained on first use in half a minute; needs no network.

    Attributes:
        cache_dir: where ensembles are kept.
        ensemble_seed: root of all initialisations and data orders.
    """

    cache_dir: Path | None = None
    ensemble_seed: int = 0

    name: ClassVar[str] = "digits"
    n_models: ClassVar[int] = 100
    n_oracles: ClassVar[int] = 200
    n_forget_sets: ClassVar[int] = 10
    block: ClassVar[int] = 25

    def recipe(self) -> dict[str, Any]:
        """Return what the ensembles are made of; its hash names their folder."""
        return {
            "name": self.name,
            "data": "uci-optdigits-500",
            "network": "mlp-64-64-64-10",
            "training": settings_of(TRAINING),
            "ensemble_seed": self.ensemble_seed,
        }

    def missing(self) -> str | None:
        """Return None: everything is in the package."""
        return None

    def forget_indices(self, forget_set: int) -> NDArray[np.int64]:
        """Return the indices of a forget set (1 to 10) into the train set, ascending int64."""
        if not 1 <= forget_set <= self.n_forget_sets:
            raise InvalidInput(
                f"forget set {forget_set} does not exist: digits has 1 to {self.n_forget_sets}"
            )
        return self._arrays[f"forget_{forget_set}"].astype(np.int64)

    def split(self, forget_set: int) -> Split:
        """Return images as (n, 64) float32, pixel / 16 minus the mean of the train set."""
        return self._split(self.forget_indices(forget_set))

    def pretrained(self, models: range, *, progress: Callable[[int, int], None] | None = None) -> MLP:
        """Return the ensemble of these pretrain models, training it if need be.

        Raises:
            InvalidInput: a model id that does not exist.
        """
        self._check("pretrain", models)
        covered, parts = self._ensemble("pretrain", np.array([], np.int64), models, progress)
        ensemble = MLP(len(models))
        n = self.block
        ensemble.load_state_dict(
            {
                name: rows([p[name].view(n, -1) for p in parts], covered, models).reshape(like.shape)
                for name, like in ensemble.state_dict().items()
            }
        )
        return ensemble

    def margins(
        self,
        kind: Literal["pretrain", "oracle"],
        forget_set: int,
        models: range,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Return {"retain", "forget", "val"}: margins (models, samples) of these models, training them if need be.

        Raises:
            InvalidInput: a model id or forget set that does not exist.
        """
        self._check(kind, models)
        forget = self.forget_indices(forget_set)
        left_out = forget if kind == "oracle" else np.array([], np.int64)
        covered, parts = self._ensemble(kind, left_out, models, progress)
        table = rows([p["margins"] for p in parts], covered, models).numpy()
        retain = np.setdiff1d(np.arange(N_TRAIN), forget)
        return {"retain": table[:, retain], "forget": table[:, forget], "val": table[:, N_TRAIN:]}

    def _check(self, kind: str, models: range) -> None:
        limit = self.n_models if kind == "pretrain" else self.n_oracles
        if models.step != 1 or not 0 <= models.start < models.stop <= limit:
            raise InvalidInput(f"digits has {kind} models 0 to {limit - 1}, not {models}")

    def _ensemble(
        self,
        kind: str,
        left_out: NDArray[np.int64],
        models: range,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[list[range], list[dict[str, torch.Tensor]]]:
        """Return the blocks that cover `models` and their tensors: parameters, and margins on all images."""
        folder = self.cache_dir or cache_root() / "digits"
        # Oracles are named by what they never saw, so two sets with the same indices share them.
        folder = folder / fingerprint({**self.recipe(), "left_out": left_out.tolist()})[:12] / kind
        covered = blocks(models, self.block)
        split = self._split(left_out)
        images = torch.cat([split.images, split.val_images])
        labels = torch.cat([split.labels, split.val_labels])
        total = len(covered) * TRAINING.epochs

        def train(i: int, ids: range) -> dict[str, torch.Tensor]:
            def report(done: int, _: int) -> None:
                if progress:
                    progress(i * TRAINING.epochs + done, total)

            model = last(
                TRAINING.steps(MLP(len(ids)), split, seed=self.ensemble_seed, ids=ids, progress=report)
            )
            return {**model.state_dict(), "margins": ensemble_margins(model, images, labels)}

        # An oracle differs from the pretrain model of its id in everything: no accidental pairing.
        offset = 0 if kind == "pretrain" else 1_000_000
        parts = []
        for i, ids in enumerate(covered):
            shifted = range(ids.start + offset, ids.stop + offset)
            parts.append(block_tensors(folder, ids, lambda i=i, shifted=shifted: train(i, shifted)))  # type: ignore[misc]
            if progress:
                progress((i + 1) * TRAINING.epochs, total)
        return covered, parts

    def _split(self, forget: NDArray[np.int64]) -> Split:
        pixels = torch.from_numpy(self._arrays["images"].reshape(-1, 64).astype(np.float32) / 16)
        pixels = pixels - pixels[:N_TRAIN].mean()
        labels = torch.from_numpy(self._arrays["labels"].astype(np.int64))
        return Split.of(
            pixels[:N_TRAIN], labels[:N_TRAIN], torch.from_numpy(forget), pixels[N_TRAIN:], labels[N_TRAIN:]
        )

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        with files("klom_bench").joinpath("assets/digits.npz").open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
