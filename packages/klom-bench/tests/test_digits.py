"""Digits: what is in the package, its forget sets, and ensembles that do not depend on who asked first."""

import multiprocessing
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
import torch

from klom_bench.datasets.digits import N_TRAIN, TRAINING, Digits
from klom_bench.ensemble import ensemble_margins, unstack
from klom_bench.methods.retrain import Retrain
from klom_bench.mlp import MLP
from klom_bench.training import last
from unlearn_core.errors import InvalidInput
from unlearn_core.registry import load
from unlearn_core.spec import build, canonical_json

SIZES = [10, 20, 50, 10, 20, 50, 10, 20, 50, 20]


@pytest.fixture(scope="module")
def assets():
    with files("klom_bench").joinpath("assets/digits.npz").open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def test_the_images_are_those_of_uci(assets):
    assert assets["images"].shape == (1797, 8, 8) and assets["images"].dtype == np.uint8
    assert assets["images"].min() == 0 and assets["images"].max() == 16
    assert sorted(assets["source_index"]) == list(range(1797))
    # class counts of optdigits.tes, UCI's own description
    assert Counter(assets["labels"].tolist()) == dict(
        enumerate([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    )
    # optdigits.tes, line 1: a zero, rows as published
    first = assets["images"][np.flatnonzero(assets["source_index"] == 0)[0]]
    assert first[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and first[7].tolist() == [0, 0, 6, 13, 10, 0, 0, 0]
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(assets["source_index"], order)


def test_forget_sets_have_these_sizes_and_fit():
    data = Digits()
    for number, size in enumerate(SIZES, start=1):
        forget = data.forget_indices(number)
        assert forget.shape == (size,) and forget.dtype == np.int64
        assert (np.diff(forget) > 0).all() and forget[0] >= 0 and forget[-1] < N_TRAIN
        split = data.split(number)
        assert split.forget.tolist() == forget.tolist()
        assert sorted([*split.forget.tolist(), *split.retain.tolist()]) == list(range(N_TRAIN))
    with pytest.raises(InvalidInput, match="forget set 11 does not exist: digits has 1 to 10"):
        data.forget_indices(11)
    with pytest.raises(InvalidInput, match="forget set 0 does not exist"):
        data.split(0)


@pytest.mark.parametrize(("number", "seed", "size"), [(1, 0, 10), (2, 1, 20), (3, 2, 50)])
def test_random_sets_come_from_numpys_legacy_generator(number, seed, size):
    drawn = np.random.RandomState(seed).choice(500, size, replace=False)
    assert Digits().forget_indices(number).tolist() == sorted(drawn)


def test_extremes_are_nested_and_the_sets_differ():
    sets = {i: set(Digits().forget_indices(i).tolist()) for i in range(1, 11)}
    assert sets[4] < sets[5] and sets[7] < sets[8]
    assert sets[5] < sets[6] and sets[8] < sets[9]  # 6 and 9 hold both ends, 25 each
    assert sets[4] <= sets[6] and sets[7] <= sets[9]
    assert 6 in sets[10]  # an image is its own nearest neighbour
    assert len({frozenset(s) for s in sets.values()}) == 10


def test_the_split_is_what_the_network_is_trained_on(assets):
    split = Digits().split(1)
    assert split.images.shape == (500, 64) and split.val_images.shape == (1297, 64)
    assert split.images.dtype == torch.float32 and split.labels.dtype == torch.int64
    assert split.images.mean().item() == pytest.approx(0, abs=1e-6)
    mean = (assets["images"][:500] / 16).mean()
    for mine, rows in ((split.images, slice(500)), (split.val_images, slice(500, None))):
        expected = assets["images"][rows].reshape(-1, 64) / 16 - mean
        np.testing.assert_allclose(mine, expected, atol=1e-6)
    assert split.labels.tolist() == assets["labels"][:500].tolist()
    assert split.val_labels.tolist() == assets["labels"][500:].tolist()


def test_it_is_registered_and_needs_nothing():
    assert load("unlearn.datasets", "digits") is Digits
    assert Digits().missing() is None
    assert build(Digits, {"ensemble_seed": "3"}) == Digits(ensemble_seed=3)
    assert Retrain(**Retrain.presets["digits"]) == TRAINING


def test_the_recipe_names_everything_that_decides_the_models(quick_digits, monkeypatch):
    recipe = canonical_json(quick_digits.recipe())
    assert canonical_json(Digits(ensemble_seed=1).recipe()) != recipe
    monkeypatch.setattr("klom_bench.datasets.digits.TRAINING", TRAINING)
    assert canonical_json(Digits().recipe()) != recipe
    assert Digits(cache_dir="elsewhere").recipe() == Digits().recipe()


# ---- ensembles ----------------------------------------------------------------------------------------------


def equal(a, b):
    return all(np.array_equal(a[s], b[s]) for s in ("retain", "forget", "val"))


def test_ten_and_then_thirty_models_have_the_same_first_ten(quick_digits, trained):
    ten = quick_digits.margins("oracle", 1, range(10))
    assert trained == [(0, 25, "oracle")]
    thirty = quick_digits.margins("oracle", 1, range(30))
    assert trained == [(0, 25, "oracle"), (25, 50, "oracle")]
    assert equal(ten, {k: v[:10] for k, v in thirty.items()})
    assert equal(quick_digits.margins("oracle", 1, range(20, 30)), {k: v[20:] for k, v in thirty.items()})
    assert len(trained) == 2
    assert {k: v.shape for k, v in thirty.items()} == {
        "retain": (30, 490),
        "forget": (30, 10),
        "val": (30, 1297),
    }
    assert all(v.dtype == np.float32 for v in thirty.values())
    spread = thirty["val"].std(axis=0)
    assert spread.min() > 0  # thirty models, not one thirty times


def test_blocks_hold_what_their_ids_say(quick_digits):
    """Model 27 is trained alone, by the recipe, to the same margins: no place in a block enters."""
    from klom_bench.datasets import digits

    split = quick_digits.split(1)
    for kind, id_, given in (("pretrain", 27, np.array([], np.int64)), ("oracle", 1_000_027, None)):
        own = quick_digits.split(1) if given is None else quick_digits._split(given)
        model = last(digits.TRAINING.steps(MLP(1), own, seed=0, ids=[id_]))
        expected = ensemble_margins(model, split.val_images, split.val_labels)[0]
        got = quick_digits.margins(kind, 1, range(27, 28))["val"][0]
        np.testing.assert_allclose(got, expected, atol=1e-4)
        forget = ensemble_margins(model, split.images[split.forget], split.labels[split.forget])[0]
        np.testing.assert_allclose(
            quick_digits.margins(kind, 1, range(27, 28))["forget"][0], forget, atol=1e-4
        )


def test_pretrained_models_have_the_pretrain_margins(quick_digits, trained):
    margins = quick_digits.margins("pretrain", 2, range(20, 40))
    model = quick_digits.pretrained(range(20, 40))
    split = quick_digits.split(2)
    assert model.n_models == 20 and trained == [(0, 25, "pretrain"), (25, 50, "pretrain")]
    for name, images, labels in (
        ("retain", split.images[split.retain], split.labels[split.retain]),
        ("forget", split.images[split.forget], split.labels[split.forget]),
        ("val", split.val_images, split.val_labels),
    ):
        np.testing.assert_allclose(ensemble_margins(model, images, labels), margins[name], atol=1e-4)
    one = quick_digits.pretrained(range(39, 40))
    expected = list(unstack(model))[-1]
    assert all(torch.equal(v, expected[k]) for k, v in one.state_dict().items())


def test_pretrain_models_are_shared_by_forget_sets_and_oracles_are_not(quick_digits, trained):
    first, second = (quick_digits.margins("pretrain", f, range(5)) for f in (1, 2))
    np.testing.assert_array_equal(first["val"], second["val"])
    assert trained == [(0, 25, "pretrain")]
    first, second = (quick_digits.margins("oracle", f, range(5)) for f in (1, 2))
    assert not np.allclose(first["val"], second["val"])
    assert not np.allclose(quick_digits.margins("pretrain", 1, range(5))["val"], first["val"])
    assert len(trained) == 3


def test_another_ensemble_seed_is_another_ensemble(quick_digits, trained):
    first = quick_digits.margins("pretrain", 1, range(5))
    second = Digits(ensemble_seed=1).margins("pretrain", 1, range(5))
    assert len(trained) == 2 and not np.allclose(first["val"], second["val"])


@pytest.mark.parametrize(
    ("kind", "models"),
    [
        ("pretrain", range(101)), ("pretrain", range(100, 101)), ("oracle", range(201)), ("oracle", range(-1, 5)),
        ("pretrain", range(0)), ("oracle", range(0, 10, 2)),
    ],
)  # fmt: skip
def test_models_that_do_not_exist_are_an_error_before_training(quick_digits, trained, kind, models):
    with pytest.raises(
        InvalidInput, match=f"digits has {kind} models 0 to {99 if kind == 'pretrain' else 199}, not"
    ):
        quick_digits.margins(kind, 1, models)
    if kind == "pretrain":
        with pytest.raises(InvalidInput, match="digits has pretrain models 0 to 99"):
            quick_digits.pretrained(models)
    assert trained == []


def test_the_last_models_there_are(quick_digits, trained):
    assert quick_digits.margins("pretrain", 1, range(95, 100))["val"].shape[0] == 5
    assert quick_digits.margins("oracle", 1, range(195, 200))["val"].shape[0] == 5
    assert trained == [(75, 100, "pretrain"), (175, 200, "oracle")]


def test_a_damaged_file_is_computed_again(quick_digits, trained, tmp_path):
    before = quick_digits.margins("pretrain", 1, range(5))
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole[: len(whole) - 4], b"\xff" * 64):
        path.write_bytes(damaged)
        assert equal(before, quick_digits.margins("pretrain", 1, range(5)))
        assert path.read_bytes() == whole
    assert trained == [(0, 25, "pretrain")] * 5


def test_progress_runs_to_its_end(quick_digits):
    told = []
    quick_digits.margins("pretrain", 1, range(30), progress=lambda *x: told.append(x))
    assert told[0] == (1, 4) and told[-1] == (4, 4) and [d for d, _ in told] == sorted(d for d, _ in told)
    told.clear()
    quick_digits.margins("pretrain", 1, range(30), progress=lambda *x: told.append(x))
    assert told[-1] == (4, 4)


def train_in_another_process(cache, training, queue):
    from klom_bench.datasets import digits

    torch.set_num_threads(1)
    digits.TRAINING = training
    queue.put(Digits(cache_dir=cache).margins("pretrain", 1, range(25))["val"])


def test_two_processes_at_once_agree(quick_digits, tmp_path):
    from klom_bench.datasets import digits

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (tmp_path / "shared", digits.TRAINING, queue)
    both = [context.Process(target=train_in_another_process, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    first, second = queue.get(timeout=60), queue.get(timeout=60)
    for process in both:
        process.join(timeout=60)
        assert process.exitcode == 0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(
        first, Digits(cache_dir=tmp_path / "shared").margins("pretrain", 1, range(25))["val"]
    )
    assert [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()] == [
        "000-024.safetensors"
    ]
