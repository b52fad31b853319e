"""CIFAR-10 with the published ensembles: 200 pretrain models and 200 oracles for each of 10 forget sets.

Sources (both MIT, see docs/klom.md): the Hub data sets easydub/EasyDUB-dataset, one file per model and split,
and royrin/KLOM-models, the older one, one matrix per split. Of the older one only `oracle_models/` is ever
read: the oracles in its `oracles/` had seen their forget set.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from klom_bench import hub
from klom_bench.datasets import cifar10_files as files
from klom_bench.datasets.cifar10_forget_sets import FORGET_SETS, N_TRAIN, is_published
from klom_bench.folders import cache_root
from klom_bench.hub import Progress
from unlearn_core.errors import InvalidInput, Unavailable, one_of

if TYPE_CHECKING:  # torch takes seconds to import; margins and forget sets do without it
    from klom_bench.resnet9 import ResNet9
    from klom_bench.split import Split

N_VAL = 10_000
REPOS = {"easydub": "easydub/EasyDUB-dataset", "klom-models": "royrin/KLOM-models"}
SPLITS = ("retain", "forget", "val")


def margin_path(kind: str, split: str, forget_set: int | None, model: int) -> str:
    """Return the path of one model's margins in easydub/EasyDUB-dataset.

    `split` "retain" of kind "pretrain" is the whole train set; `forget_set` matters wherever the file depends
    on it: to oracles and to the split "forget".

    Raises:
        InvalidInput: an unknown kind or split, or no forget set where one is needed.
    """
    for what, name, options in (("kind", kind, ("pretrain", "oracle")), ("split", split, SPLITS)):
        if name not in options:
            raise InvalidInput(one_of(what, name, options))
    if forget_set is None and (kind == "oracle" or split == "forget"):
        raise InvalidInput(f"{kind} margins on {split!r} belong to a forget set; give its number, 1 to 10")
    of_set = f"forget_{forget_set}"
    if kind == "oracle":
        folder = f"oracle/{of_set}/{split}"
    else:
        folder = f"pretrain/{of_set if split == 'forget' else split}"
    return f"margins/cifar10/{folder}/resnet9/id_{model}_epoch_23.npy"


@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """CIFAR-10, ResNet-9 and the forget sets of EasyDUB: real models, fetched file by file as needed.

    Attributes:
        data_dir: a local copy of the source's files; nothing is downloaded then.
        source: which of the two public collections.
        revision: branch, tag or commit on the Hub; resolved once to a commit.
        cache_dir: where packed margins and the images go; huggingface_hub's own files are in HF_HUB_CACHE.
    """

    data_dir: Path | None = None
    source: Literal["easydub", "klom-models"] = "easydub"
    revision: str = "main"
    cache_dir: Path | None = None

    name: ClassVar[str] = "cifar10"
    n_models: ClassVar[int] = 200  # the older source has 160 to 200 oracles per forget set
    n_oracles: ClassVar[int] = 200
    n_forget_sets: ClassVar[int] = 10
    block: ClassVar[int] = 10  # networks unlearned together: 10 x 256 images a step fit into 16 GiB

    def __post_init__(self) -> None:
        if self.source not in REPOS:
            raise InvalidInput(one_of("source of CIFAR-10 models", self.source, REPOS))
        for name in ("data_dir", "cache_dir"):
            if (folder := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(folder).expanduser())

    def recipe(self) -> dict[str, str]:
        """Return what identifies the data, for the spec of a run; asks the Hub unless `data_dir` is set."""
        if self.data_dir:
            where = {"repo": str(self.data_dir.resolve()), "revision": "local"}
        else:
            where = {"repo": REPOS[self.source], "revision": self.commit}
        return {"name": self.name, "source": self.source, **where}

    @functools.cached_property
    def commit(self) -> str:
        """The commit of `revision`, asked for once, so that a run never mixes two revisions."""
        return hub.resolve(REPOS[self.source], self.revision, self._cache / "revisions")

    def forget_indices(self, forget_set: int) -> np.ndarray:
        """Return the indices of a forget set into the train set, (n_forget,) int64 in file order.

        Raises:
            InvalidInput: no such forget set, or the file is damaged or not the published one.
            Unavailable: the file is not there and cannot be fetched.
        """
        if forget_set not in FORGET_SETS:
            raise InvalidInput(f"there is no forget set {forget_set}; CIFAR-10 has 1 to {self.n_forget_sets}")
        folder = "forget_sets/cifar10" if self.source == "easydub" else "forget_set_indices/CIFAR10"
        (path,) = self._fetch([f"{folder}/forget_set_{forget_set}.npy"])
        indices = files.read_indices(path)
        # A set of another size belongs to a small stand-in (tests); `_check_size` looks at it again.
        if len(indices) == FORGET_SETS[forget_set][0] and not is_published(indices, forget_set):
            raise InvalidInput(f"{path} is not the published forget set {forget_set}; {files.again(path)}")
        return indices

    def margins(
        self,
        kind: Literal["pretrain", "oracle"],
        forget_set: int,
        models: range,
        *,
        progress: Progress | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the margins of published models after their last epoch, fetching what is not there.

        Args:
            kind: "pretrain" (trained on everything) or "oracle" (trained without the forget set).
            forget_set: 1 to 10.
            models: model ids.
            progress: called with (files done, files to fetch).

        Returns:
            "retain" (n_models, n_retain), "forget" (n_models, n_forget) and "val" (n_models, n_val), float32.
            Columns are the same samples in both kinds: ascending train index without the forget set; the
            order of `forget_indices`; validation index. Arrays may be read-only and memory-mapped.

        Raises:
            InvalidInput: no such models or forget set; a file is damaged, of the wrong shape or not finite.
            Unavailable: a file is not there and cannot be fetched.
        """
        self._check_models(kind, models)
        forget = self.forget_indices(forget_set)
        if self.source == "easydub":
            tables = self._easydub_tables(kind, forget_set, forget, models, progress)
        else:
            tables = self._klom_models_tables(kind, forget_set, models, progress)
        whole = kind == "pretrain" or self.source == "klom-models"  # "retain" still holds all train images
        n_train = tables["retain"].shape[1] + (0 if whole else len(forget))
        self._check_size(n_train, tables["val"].shape[1], forget_set, forget)
        if self.source == "klom-models":
            tables["forget"] = tables["retain"][:, forget]
        if whole:
            tables["retain"] = np.delete(tables["retain"], forget, axis=1)
        return tables

    def pretrained(self, models: range, *, progress: Progress | None = None) -> "ResNet9":
        """Return the pretrain models as one ensemble of `len(models)` networks, in eval mode, on the CPU.

        Raises:
            InvalidInput: no such models, or a checkpoint is damaged or of another network.
            Unavailable: a checkpoint (9 MB each) is not there and cannot be fetched.
        """
        from klom_bench.ensemble import per_model
        from klom_bench.resnet9 import ResNet9

        self._check_models("pretrain", models)
        path = {
            "easydub": "models/cifar10/pretrain/resnet9/id_{}_epoch_23.pt",
            "klom-models": "full_models/CIFAR10/sd_{}____epoch_23.pt",
        }[self.source]
        expected = ResNet9().state_dict()
        ensemble = ResNet9(len(models))
        tensors = ensemble.state_dict()
        # Copied one by one: stacking 100 state dicts would need their 0.9 GB three times.
        for m, file in enumerate(self._fetch([path.format(i) for i in models], progress)):
            for key, value in files.read_checkpoint(file, expected).items():
                # Scalars are the step counters of batch norm, the same in all models of a recipe.
                if value.dim():
                    per_model(tensors[key], len(models))[m] = value.flatten()
                else:
                    tensors[key].copy_(value)
        return ensemble.eval()

    def split(self, forget_set: int) -> "Split":
        """Return the `klom_bench.split.Split` of a forget set: images, labels and indices.

        The images come from `data_dir`/data, or are downloaded (170 MB) to `cache_dir`/data.

        Raises:
            InvalidInput: no such forget set, or a file is damaged.
            Unavailable: a file is not there and cannot be fetched.
        """
        import torch

        from klom_bench.datasets import cifar10_images
        from klom_bench.split import Split

        forget = self.forget_indices(forget_set)
        root = (self.data_dir or self._cache) / "data"
        if not self.data_dir:
            cifar10_images.download(root)
        images, labels = cifar10_images.load(root, train=True)
        val_images, val_labels = cifar10_images.load(root, train=False)
        self._check_size(len(images), len(val_images), forget_set, forget)
        return Split.of(images, labels, torch.from_numpy(forget), val_images, val_labels)

    def missing(self) -> str | None:
        """Return why this data set cannot be used here and now, None if it can; never asks the network."""
        import torch

        if not torch.cuda.is_available():
            return "no CUDA device"
        repo = REPOS[self.source]
        oracles = {"easydub": "margins/cifar10/oracle", "klom-models": "oracle_models/CIFAR10/only_margins"}
        below = oracles[self.source]
        if self.data_dir:
            there = (self.data_dir / below).is_dir()
            return None if there else f"{self.data_dir} has no folder {below}"
        commit = hub.resolved_before(repo, self.revision, self._cache / "revisions")
        places = [hub.snapshot(repo, commit), self._packs(commit)] if commit else []
        if any(any((place / below).glob("forget_*")) for place in places):
            return None
        return "its margins are not downloaded: --dataset cifar10 fetches them, --data-dir reads a local copy"

    @property
    def _cache(self) -> Path:
        return self.cache_dir or cache_root() / "cifar10"

    def _packs(self, commit: str) -> Path:
        return self._cache / "packed" / commit

    def _fetch(self, paths: Sequence[str], progress: Progress | None = None) -> list[Path]:
        """Return local files for `paths` of the source's repository: in place, or from the Hub."""
        if not self.data_dir:
            return hub.download(REPOS[self.source], self.commit, paths, progress=progress)
        for path in paths:
            if not (self.data_dir / path).is_file():
                raise Unavailable(
                    f"{self.data_dir} has no {path}; it should be laid out like "
                    f"https://huggingface.co/datasets/{REPOS[self.source]}"
                )
        return [self.data_dir / path for path in paths]

    def _easydub_tables(
        self, kind: str, forget_set: int, forget: np.ndarray, models: range, progress: Progress | None
    ) -> dict[str, np.ndarray]:
        """Return the margins as the files have them: "retain" of pretrain models is the whole train set."""
        n_retain = N_TRAIN - (0 if kind == "pretrain" else len(forget))
        real = is_published(forget, forget_set)
        widths = {
            "retain": n_retain if real else None,
            "forget": len(forget),
            "val": N_VAL if real else None,
        }
        paths = {s: [margin_path(kind, s, forget_set, m) for m in models] for s in SPLITS}
        # A local folder may change under us, and reading it is fast: only files of a commit are packed.
        folders = {}
        if not self.data_dir:
            folders = {s: self._packs(self.commit) / Path(paths[s][0]).parent for s in SPLITS}
        found = {s: files.unpack(folder, models) for s, folder in folders.items()}
        absent = [s for s in SPLITS if found.get(s) is None]
        local = iter(self._fetch([p for s in absent for p in paths[s]], progress))
        for s in absent:
            width, rows = widths[s], []
            for model in models:
                rows.append(files.read_margins(next(local), model=model, width=width))
                width = len(rows[0])
            table = np.stack(rows)
            found[s] = files.pack(folders[s], models, table) if folders else table
        return {s: found[s] for s in SPLITS}  # type: ignore[misc]

    def _klom_models_tables(
        self, kind: str, forget_set: int, models: range, progress: Progress | None
    ) -> dict[str, np.ndarray]:
        """Return the margins on the whole train set (as "retain") and on the validation set."""
        folder = (
            "full_models/CIFAR10"
            if kind == "pretrain"
            else f"oracle_models/CIFAR10/only_margins/forget_set_{forget_set}"
        )
        paths = self._fetch([f"{folder}/{s}_margins_all.pt" for s in ("train", "val")], progress)
        return {s: files.read_table(p, models) for s, p in zip(("retain", "val"), paths, strict=True)}

    def _check_models(self, kind: str, models: range) -> None:
        if kind not in ("pretrain", "oracle"):
            raise InvalidInput(one_of("kind", kind, ("pretrain", "oracle")))
        n = self.n_models if kind == "pretrain" else self.n_oracles
        if not len(models) or min(models) < 0 or max(models) >= n:
            raise InvalidInput(f"there are {n} {kind} models, ids 0 to {n - 1}; asked for {models}")

    def _check_size(self, n_train: int, n_val: int, forget_set: int, forget: np.ndarray) -> None:
        """Raise unless the data are the real ones or, of another size throughout, a stand-in."""
        if forget.max() >= n_train:
            raise InvalidInput(f"forget set {forget_set} names image {forget.max()} of only {n_train}")
        real = is_published(forget, forget_set)
        if (n_train == N_TRAIN) != real or (real and n_val != N_VAL):
            raise InvalidInput(
                f"found {n_train} train and {n_val} validation images and "
                f"{'the' if real else 'not the'} published forget set {forget_set} of CIFAR-10, "
                f"which belongs to {N_TRAIN} and {N_VAL}"
            )
