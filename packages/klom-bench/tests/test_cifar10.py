"""Cifar10: the published files, from a folder and from a Hub, and everything that can be wrong with them."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from klom_bench import testing
from klom_bench.datasets import cifar10_files, cifar10_forget_sets, cifar10_images
from klom_bench.datasets.cifar10 import SPLITS, Cifar10, margin_path
from klom_bench.datasets.cifar10_forget_sets import FORGET_SETS, is_published, random_forget_set
from klom_bench.ensemble import initialise, unstack
from klom_bench.resnet9 import ResNet9
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.spec import build, canonical_json
from unlearn_core.testing.hub_server import HubServer

EASYDUB, KLOM_MODELS = "datasets/easydub/EasyDUB-dataset", "datasets/royrin/KLOM-models"
ALL = range(testing.N_MODELS)


@pytest.fixture
def tiny():
    return testing.tiny_margins()


@pytest.fixture
def folder(tmp_path, tiny):
    testing.write_easydub(tmp_path / "data", tiny)
    return tmp_path / "data"


@pytest.fixture
def local(folder, tmp_path):
    return Cifar10(data_dir=folder, cache_dir=tmp_path / "cache")


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    testing.write_klom_models(tmp_path / "old", testing.tiny_margins())
    with HubServer({EASYDUB: folder, KLOM_MODELS: tmp_path / "old"}) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        yield hub


@pytest.fixture
def remote(hub, tmp_path):
    return Cifar10(cache_dir=tmp_path / "cache")


def asked(hub):
    """Every request for one of our repositories; the client may also ask for things of its own."""
    return [path.partition("?")[0] for _, path in hub.requests if "datasets/" in path]


def packs(tmp_path):
    return sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file() and "revisions" not in p.parts)


@pytest.mark.parametrize("kind", ["pretrain", "oracle"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_margins_of_a_folder(tmp_path, tiny, kind, dtype):
    testing.write_easydub(tmp_path, tiny, dtype=dtype)
    tables = Cifar10(data_dir=tmp_path).margins(kind, 1, range(2, 7))
    assert list(tables) == list(SPLITS)
    for split, table in tables.items():
        assert table.dtype == np.float32
        expected = tiny.split(kind, split)[2:7].astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("kind", ["pretrain", "oracle"])
def test_hub_equals_folder_and_fetches_exactly_what_is_needed(kind, remote, local, hub, tmp_path):
    calls = []
    tables = remote.margins(kind, 1, range(5), progress=lambda done, total: calls.append((done, total)))
    for split, table in local.margins(kind, 1, range(5)).items():
        np.testing.assert_array_equal(tables[split], table)
    needed = [margin_path(kind, split, 1, i) for split in SPLITS for i in range(5)]
    assert hub.files() == sorted([*needed, "forget_sets/cifar10/forget_set_1.npy"])
    assert calls == [(i, 15) for i in range(1, 16)]
    assert isinstance(tables["val"].base, np.memmap) or isinstance(tables["val"], np.memmap)

    # Again: the same object asks nothing, a new one only what `main` is now; fewer models need no new pack.
    before, written = len(asked(hub)), packs(tmp_path)
    remote.margins(kind, 1, range(5))
    assert len(asked(hub)) == before
    part = Cifar10(cache_dir=tmp_path / "cache").margins(kind, 1, range(1, 4))
    np.testing.assert_array_equal(part["retain"], tables["retain"][1:4])
    assert asked(hub)[before:] == [f"/api/{EASYDUB}/revision/main"]
    assert packs(tmp_path) == written and len(written) == 3


def test_models_every_other(remote, tiny):
    remote.margins("oracle", 1, ALL)
    np.testing.assert_array_equal(remote.margins("oracle", 1, range(1, 8, 3))["val"], tiny.oracle[1:8:3, 60:])


def test_a_run_keeps_its_commit_when_main_moves(remote, hub, tiny, tmp_path):
    remote.margins("pretrain", 1, range(2))
    old = remote.recipe()
    testing.write_easydub(tmp_path / "new", testing.tiny_margins(seed=1))
    new = hub.publish(EASYDUB, tmp_path / "new")
    np.testing.assert_array_equal(remote.margins("oracle", 1, ALL)["val"], tiny.split("oracle", "val"))
    assert remote.recipe() == old
    later = Cifar10(cache_dir=tmp_path / "cache")
    assert later.recipe()["revision"] == new != old["revision"]
    assert not np.array_equal(later.margins("oracle", 1, ALL)["val"], tiny.split("oracle", "val"))
    pinned = Cifar10(cache_dir=tmp_path / "cache", revision=old["revision"])
    np.testing.assert_array_equal(pinned.margins("oracle", 1, ALL)["val"], tiny.split("oracle", "val"))


@pytest.mark.parametrize("kind", ["pretrain", "oracle"])
def test_older_source_has_the_same_margins(kind, remote, hub, tmp_path, tiny):
    old = Cifar10(source="klom-models", cache_dir=tmp_path / "cache")
    for split, table in old.margins(kind, 1, range(1, 6)).items():
        np.testing.assert_array_equal(table, tiny.split(kind, split)[1:6])
    assert not any(path.startswith("oracles/") for path in hub.files())
    np.testing.assert_array_equal(old.forget_indices(1), remote.forget_indices(1))
    with pytest.raises(InvalidInput, match="holds 8 models, ids 0 to 7; asked for 8"):
        old.margins(kind, 1, range(9))


def test_truncated_pack_is_rebuilt(remote, hub, tmp_path, tiny):
    remote.margins("oracle", 1, ALL)
    for path in packs(tmp_path):
        path.write_bytes(path.read_bytes()[:-100])
    before = len(asked(hub))
    np.testing.assert_array_equal(remote.margins("oracle", 1, ALL)["val"], tiny.split("oracle", "val"))
    assert len(asked(hub)) == before, "the Hub's files are still there"
    for path in packs(tmp_path):
        assert len(np.load(path)) == len(ALL)


def test_a_changed_folder_is_never_stale(local, folder):
    before = local.margins("oracle", 1, ALL)["val"].copy()
    np.save(folder / margin_path("oracle", "val", 1, 0), np.zeros(12, np.float32))
    assert (local.margins("oracle", 1, ALL)["val"][0] == 0).all() and (before[0] != 0).any()


def damaged(array, how):
    array = array.copy()
    array[2] = how
    return array


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda a: damaged(a, np.nan), "margin of model 3 for sample 2 is nan"),
        (lambda a: damaged(a, -np.inf), "margin of model 3 for sample 2 is -inf"),
        (lambda a: a[:-1], r"\(model 3\) has shape \(11,\), expected \(12,\)"),
        (lambda a: a[None], r"has shape \(1, 12\), expected \(12,\)"),
        (lambda a: a.astype(int), "holds int64, expected floats"),
        (lambda a: a.astype(object), "is truncated or damaged"),
        (b"<html>rate limited</html>", r"not a .npy file \(it starts with b'<html>"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x01\x00", "is truncated or damaged"),
        (-9, "is truncated or damaged"),
    ],
)
def test_damaged_margins_name_the_file(remote, local, folder, tmp_path, content, message):
    path = folder / margin_path("oracle", "val", 1, 3)
    whole, array = path.read_bytes(), np.load(path)
    if callable(content):
        np.save(path, content(array))
    else:
        path.write_bytes(whole[:content] if isinstance(content, int) else content)
    for data in (local, remote):
        with pytest.raises(InvalidInput, match=message) as error:
            data.margins("oracle", 1, ALL)
        assert "id_3_epoch_23.npy" in str(error.value) and "\n" not in str(error.value)
    left = packs(tmp_path)
    assert not [p for p in left if "/val/" in str(p) or p.suffix == ".part"], "no half-written pack"
    # Mend it as the message says: delete, fetch again.
    path.write_bytes(whole)
    np.testing.assert_array_equal(local.margins("oracle", 1, ALL)["val"][3], array)


def test_damaged_hub_file_can_be_mended_as_the_message_says(remote, tmp_path, tiny):
    from klom_bench import hub

    path = hub.snapshot("easydub/EasyDUB-dataset", remote.commit) / margin_path("oracle", "val", 1, 3)
    remote.margins("oracle", 1, ALL)
    for pack in packs(tmp_path):
        pack.unlink()
    path.resolve().write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidInput, match=f"delete {path.resolve()} and fetch it again"):
        remote.margins("oracle", 1, ALL)
    path.resolve().unlink()
    np.testing.assert_array_equal(remote.margins("oracle", 1, ALL)["val"], tiny.split("oracle", "val"))


def test_what_cannot_be_asked_for(local):
    with pytest.raises(InvalidInput, match="no forget set 11; CIFAR-10 has 1 to 10"):
        local.forget_indices(11)
    with pytest.raises(InvalidInput, match="no forget set 0"):
        local.split(0)
    with pytest.raises(InvalidInput, match=r"200 oracle models, ids 0 to 199; asked for range\(150, 201\)"):
        local.margins("oracle", 1, range(150, 201))
    with pytest.raises(InvalidInput, match="200 pretrain models"):
        local.pretrained(range(0))
    with pytest.raises(InvalidInput, match="unknown kind 'orakel'; did you mean 'oracle'"):
        local.margins("orakel", 1, ALL)
    with pytest.raises(InvalidInput, match="did you mean 'easydub'"):
        Cifar10(source="easydup")


def test_local_folder_without_the_file(local, tmp_path):
    with pytest.raises(Unavailable, match="has no margins/cifar10/oracle/forget_1/retain/resnet9/id_8"):
        local.margins("oracle", 1, range(9))
    with pytest.raises(Unavailable, match=r"has no forget_sets/cifar10/forget_set_2.npy"):
        local.forget_indices(2)
    with pytest.raises(
        Unavailable, match=r"nowhere has no .* laid out like https://huggingface.co/datasets/"
    ):
        Cifar10(data_dir=tmp_path / "nowhere").margins("oracle", 1, ALL)


def test_recipe_and_settings(local, remote, folder):
    assert remote.recipe() == {
        "name": "cifar10",
        "source": "easydub",
        "repo": "easydub/EasyDUB-dataset",
        "revision": remote.commit,
    }
    assert local.recipe()["repo"] == str(folder) and local.recipe()["revision"] == "local"
    canonical_json(local.recipe())
    built = build(Cifar10, {"data_dir": str(folder), "source": "easydub"})
    np.testing.assert_array_equal(built.forget_indices(1), testing.FORGET)
    with pytest.raises(InvalidInput, match="source"):
        build(Cifar10, {"source": "other"})


# Forget sets


def test_random_forget_sets_are_the_published_ones():
    published = [11841, 12363, 19602, 25747, 26128, 30346, 31902, 32490, 42642, 45519]  # the file itself
    assert random_forget_set(1).tolist() == published
    for number in (1, 2, 3):
        drawn = random_forget_set(number)
        assert drawn.dtype == np.int64 and is_published(drawn, number)
        assert len(drawn) == FORGET_SETS[number][0]
    # Facts of the public files, data-unlearning-bench.
    assert len(np.intersect1d(random_forget_set(1), random_forget_set(2))) == 1
    assert len(np.intersect1d(random_forget_set(2), random_forget_set(3))) == 2
    with pytest.raises(InvalidInput, match="only 1, 2 and 3"):
        random_forget_set(4)


def test_the_file_of_forget_set_1_has_the_published_hash(tmp_path):
    np.save(tmp_path / "a.npy", random_forget_set(1))
    assert hashlib.sha256((tmp_path / "a.npy").read_bytes()).hexdigest().startswith("343e9a73")


@pytest.mark.parametrize(
    ("number", "indices"),
    [
        (4, [3799, 9235, 22321, 22908, 23898, 28510, 29795, 33079, 45477, 46715]),
        (7, [10231, 11157, 14072, 21786, 23868, 33784, 33982, 36910, 44380, 47614]),
    ],
)
def test_hashes_are_those_of_the_published_indices(number, indices):
    assert is_published(np.array(indices), number) and is_published(np.array(indices, np.int32), number)
    assert not is_published(np.array(indices[::-1]), number)


def write_forget_set(folder, number, indices):
    np.save(folder / f"forget_sets/cifar10/forget_set_{number}.npy", indices)


def test_forget_set_that_is_not_the_published_one(local, folder):
    write_forget_set(folder, 2, random_forget_set(2).astype(np.int32))
    assert local.forget_indices(2).dtype == np.int64
    write_forget_set(folder, 2, random_forget_set(2)[::-1])
    with pytest.raises(InvalidInput, match=r"forget_set_2.npy is not the published forget set 2"):
        local.forget_indices(2)
    for indices, message in [([1, 1], "repeated"), ([-1, 2], "negative"), ([0.5], "expected integers")]:
        write_forget_set(folder, 3, np.array(indices))
        with pytest.raises(InvalidInput, match=message):
            local.forget_indices(3)


def test_real_and_tiny_data_do_not_mix(local, folder, monkeypatch):
    monkeypatch.setattr(cifar10_forget_sets, "N_TRAIN", testing.N_TRAIN)
    monkeypatch.setattr("klom_bench.datasets.cifar10.N_TRAIN", testing.N_TRAIN)
    with pytest.raises(InvalidInput, match=r"60 train and 12 .* not the published forget set 1"):
        local.margins("oracle", 1, ALL)
    monkeypatch.undo()
    write_forget_set(folder, 1, random_forget_set(1))
    with pytest.raises(InvalidInput, match=r"\(model 0\) has shape \(60,\), expected \(50000,\)"):
        local.margins("pretrain", 1, ALL)
    write_forget_set(folder, 1, np.array([3, 60, 4, 5, 6]))
    with pytest.raises(InvalidInput, match="names image 60 of only 60"):
        local.margins("pretrain", 1, ALL)


# Checkpoints


def test_pretrained_models_equal_single_ones(local, folder):
    testing.write_checkpoints(folder, [0])
    testing.write_checkpoints(folder, [1], prefix="module.")
    testing.write_checkpoints(folder, [2], prefix="model.module.")
    ensemble = local.pretrained(range(3))
    assert ensemble.n_models == 3 and not ensemble.training
    for model, state in enumerate(unstack(ensemble)):
        single = initialise(ResNet9(), [model]).state_dict()
        assert state.keys() == single.keys()
        assert all(torch.equal(state[k], single[k]) for k in single)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = ensemble(x.expand(3, *x.shape))[1]
        alone = initialise(ResNet9(), [1]).eval()(x)
    torch.testing.assert_close(together, alone)


def test_checkpoints_come_from_the_hub_and_only_they(hub, folder, tmp_path):
    testing.write_checkpoints(folder, [0, 1])
    hub.publish(EASYDUB, folder)
    data = Cifar10(cache_dir=tmp_path / "cache")
    data.pretrained(range(1, 2))
    assert hub.files() == ["models/cifar10/pretrain/resnet9/id_1_epoch_23.pt"]


def test_checkpoints_of_the_older_source(tmp_path):
    testing.write_checkpoints(tmp_path, [0])
    (tmp_path / "full_models/CIFAR10").mkdir(parents=True)
    written = tmp_path / "models/cifar10/pretrain/resnet9/id_0_epoch_23.pt"
    written.rename(tmp_path / "full_models/CIFAR10/sd_0____epoch_23.pt")
    model = Cifar10(data_dir=tmp_path, source="klom-models").pretrained(range(1))
    single = initialise(ResNet9(), [0]).state_dict()
    assert all(torch.equal(value, single[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("9.weight"), "has no tensor '9.weight'"),
        (lambda s: s.update(extra=torch.ones(1)), "has a tensor 'extra' that ResNet-9 does not have"),
        (
            lambda s: s.update({"9.weight": torch.ones(17, 128)}),
            r"'9.weight' has shape \(17, 128\), expected \(10, 128\)",
        ),
        (lambda s: s["9.weight"].fill_(torch.nan), "'9.weight' holds values that are not finite"),
        (lambda s: s.update({"9.weight": "text"}), "does not hold a state dict"),
    ],
)
def test_wrong_checkpoints_name_file_and_tensor(local, folder, edit, message):
    testing.write_checkpoints(folder, [0])
    path = folder / "models/cifar10/pretrain/resnet9/id_0_epoch_23.pt"
    state = torch.load(path)
    edit(state)
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=message) as error:
        local.pretrained(range(1))
    assert str(path) in str(error.value)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a file ran code",))


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Evil(), protocol=2), "truncated"])
def test_unsafe_or_damaged_checkpoints_are_refused(local, folder, content):
    testing.write_checkpoints(folder, [0])
    path = folder / "models/cifar10/pretrain/resnet9/id_0_epoch_23.pt"
    path.write_bytes(path.read_bytes()[:-1000] if content == "truncated" else content)
    with pytest.raises(InvalidInput, match=r"id_0_epoch_23.pt is not a whole torch file"):
        local.pretrained(range(1))


# Images


def test_split(local, folder):
    pixels, labels = testing.write_images(folder / "data")
    split = local.split(1)
    assert split.images.shape == (60, 3, 32, 32) and split.images.dtype == torch.float32
    assert split.val_labels.tolist() == labels[60:].tolist() and split.labels.tolist() == labels[:60].tolist()
    assert split.forget.tolist() == testing.FORGET.tolist() and len(split.retain) == 55
    mean = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    std = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)
    np.testing.assert_allclose(split.images[7], (pixels[7] / 255 - mean) / std, atol=1e-6)
    np.testing.assert_allclose(split.val_images[11], (pixels[71] / 255 - mean) / std, atol=1e-6)


def test_images_are_normalised_as_torchvision_does(tmp_path):
    transforms = pytest.importorskip("torchvision.transforms")
    pixels, _ = testing.write_images(tmp_path)
    images, _ = cifar10_images.load(tmp_path, train=True)
    steps = [transforms.ToTensor(), transforms.Normalize(cifar10_images.MEAN, cifar10_images.STD)]
    assert torch.equal(images[5], transforms.Compose(steps)(pixels[5].transpose(1, 2, 0)))


def test_no_images(local, folder):
    with pytest.raises(
        Unavailable, match=f"{folder}/data/cifar-10-batches-py has no data_batch_1; .* is expected"
    ):
        local.split(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a batch of CIFAR-10: EOFError"),
        (pickle.dumps(Evil(), protocol=2), "which no batch of CIFAR-10 needs"),
        (pickle.dumps({"data": 1}), "KeyError"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]}, protocol=2), "expected uint8"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, protocol=2), "outside 0 to 9"),
    ],
)
def test_images_that_are_none(local, folder, content, message):
    testing.write_images(folder / "data")
    (folder / "data/cifar-10-batches-py/data_batch_3").write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as error:
        local.split(1)
    assert "data_batch_3" in str(error.value)


def test_batches_written_by_python_2_are_read(tmp_path):
    # The published files: cPickle protocol 2 of Python 2, whose strings are bytes.
    pixels, _ = testing.write_images(tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    state = pixels[60:].tobytes()
    head = b"\x80\x02}(U\x06labels](" + b"".join(b"K" + bytes([i % 10]) for i in range(12)) + b"eU\x04data"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x0cM\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(state).to_bytes(4, "little") + state + b"tbu."
    )
    path.write_bytes(head + array)
    images, labels = cifar10_images.load(tmp_path, train=False)
    assert labels.tolist() == [*range(10), 0, 1]
    np.testing.assert_allclose(images[3, 0, 0, 0], (pixels[63, 0, 0, 0] / 255 - 0.4914) / 0.2023, atol=1e-6)


def test_real_size_must_be_the_published_file(tmp_path):
    testing.write_images(tmp_path)
    batch = {"data": np.zeros((10_000, 3072), np.uint8), "labels": [0] * 10_000}
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InvalidInput, match="test_batch is not the published file"):
        cifar10_images.load(tmp_path, train=False)


# At hand or not


def test_missing(local, remote, hub, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local.missing() is None
    assert "has no folder margins/cifar10/oracle" in Cifar10(data_dir=tmp_path).missing()
    assert "not downloaded: --dataset cifar10 fetches them" in remote.missing()
    assert asked(hub) == []
    remote.margins("oracle", 1, range(2))
    before = len(asked(hub))
    assert Cifar10(cache_dir=tmp_path / "cache").missing() is None
    assert len(asked(hub)) == before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local.missing() == "no CUDA device"


def test_packs_of_other_names_are_ignored(tmp_path):
    (tmp_path / "notes.npy").write_bytes(b"")
    assert cifar10_files.unpack(tmp_path, ALL) is None
    assert cifar10_files.unpack(tmp_path / "nowhere", ALL) is None


def test_published_sizes(tmp_path):
    """Two models at full size: 50,000 and 10,000 images, and the real forget set 1."""
    forget, rng = random_forget_set(1), np.random.default_rng(0)
    sizes = {
        "pretrain": {"retain": 50_000, "forget": 10, "val": 10_000},
        "oracle": {"retain": 49_990, "forget": 10, "val": 10_000},
    }
    written = {}
    for kind, splits in sizes.items():
        for split, n in splits.items():
            for model in (0, 1):
                path = tmp_path / margin_path(kind, split, 1, model)
                path.parent.mkdir(parents=True, exist_ok=True)
                written[kind, split, model] = rng.normal(size=n).astype(np.float32)
                np.save(path, written[kind, split, model])
    (tmp_path / "forget_sets/cifar10").mkdir(parents=True)
    write_forget_set(tmp_path, 1, forget)
    data = Cifar10(data_dir=tmp_path)
    pretrain, oracle = (data.margins(kind, 1, range(2)) for kind in sizes)
    assert {s: t.shape for s, t in pretrain.items()} == {s: t.shape for s, t in oracle.items()}
    retain = np.setdiff1d(np.arange(50_000), forget)
    np.testing.assert_array_equal(pretrain["retain"][1], written["pretrain", "retain", 1][retain])
    np.testing.assert_array_equal(oracle["retain"][1], written["oracle", "retain", 1])
    np.save(tmp_path / margin_path("oracle", "retain", 1, 0), written["pretrain", "retain", 0])
    with pytest.raises(InvalidInput, match=r"\(model 0\) has shape \(50000,\), expected \(49990,\)"):
        data.margins("oracle", 1, range(2))
