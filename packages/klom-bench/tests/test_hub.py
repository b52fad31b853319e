"""Downloads: resumed, exact, one message per failure; against a Hub on the loopback device."""

import json
import socket
import tarfile
import urllib.request

import huggingface_hub
import numpy as np
import pytest

from klom_bench import hub as client
from klom_bench import testing
from klom_bench.datasets import cifar10_images
from klom_bench.datasets.cifar10 import Cifar10, margin_path
from unlearn_core.errors import Unavailable
from unlearn_core.testing.hub_server import HubServer

REPO = "easydub/EasyDUB-dataset"
FILE = margin_path("oracle", "retain", 1, 2)


@pytest.fixture
def folder(tmp_path):
    testing.write_easydub(tmp_path / "data", testing.tiny_margins())
    (tmp_path / "data/README.md").write_text("# tiny\n")
    return tmp_path / "data"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with HubServer({f"datasets/{REPO}": folder}, page=7) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        yield hub


@pytest.fixture
def data(hub, tmp_path):
    return Cifar10(cache_dir=tmp_path / "cache")


def left_behind(tmp_path):
    """Packs, whole or not; the Hub's own cache is the client's business."""
    return [p for p in (tmp_path / "cache/packed").rglob("*") if p.is_file()]


def test_a_dropped_connection_resumes_where_it_stopped(data, hub, folder, tmp_path):
    hub.drop_after(FILE, 150)
    tables = data.margins("oracle", 1, range(8))
    np.testing.assert_array_equal(tables["retain"], testing.tiny_margins().split("oracle", "retain"))
    assert hub.files().count(FILE) == 2, "the second time with a Range"
    assert (folder / FILE).stat().st_size > 150 and len(left_behind(tmp_path)) == 3


def test_an_interrupted_run_fetches_only_the_rest(data, hub, tmp_path):
    def stop(done, total):
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.margins("oracle", 1, range(8), progress=stop)
    assert left_behind(tmp_path) == []
    done = hub.files()
    assert 10 <= len(done) < 25, "waiting files are dropped, not fetched"
    data.margins("oracle", 1, range(8))
    assert len(hub.files()) == len(set(hub.files())) == 25, "nothing was fetched twice"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            lambda hub: hub.fail(FILE, status=404),
            "^the data set easydub/EasyDUB-dataset has no file .*id_2_epoch_23",
        ),
        (
            lambda hub: hub.fail(FILE, status=403),
            r"refuses .*id_2_epoch_23.npy.*\(403\).* set HF_TOKEN to a token",
        ),
        (lambda hub: hub.fail(FILE, status=403, code=""), r"refuses .*id_2_epoch_23.npy.*\(403\)"),
        (
            lambda hub: hub.fail(FILE, status=401),
            r"refuses .*\(401\); if it is private or gated, accept its terms",
        ),
        (lambda hub: hub.fail(FILE, status=410), "answered 410 for .*id_2_epoch_23.npy.*; try again later"),
        (lambda hub: hub.truncate(FILE, 100), "id_2_epoch_23.npy .* arrived truncated and was thrown away"),
    ],
)
def test_a_file_that_cannot_be_had(data, hub, tmp_path, fault, message):
    fault(hub)
    with pytest.raises(Unavailable, match=message) as error:
        data.margins("oracle", 1, range(8))
    assert "\n" not in str(error.value)
    assert left_behind(tmp_path) == []
    hub.mend()
    retain = data.margins("oracle", 1, range(8))["retain"]
    np.testing.assert_array_equal(retain, testing.tiny_margins().split("oracle", "retain"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda hub: hub.require_token("secret"), r"refuses revision 'main' .* \(401\)"),
        (lambda hub: hub.fail("revision/main", status=404, code="RepoNotFound"), r"refuses .* \(404\)"),
        (
            lambda hub: hub.fail("revision/main", status=404, code="RevisionNotFound"),
            "no such revision: revision 'main'",
        ),
        (lambda hub: hub.fail("revision/main", status=503), "answered 503 for revision 'main'"),
    ],
)
def test_a_repository_that_cannot_be_had(data, hub, fault, message):
    fault(hub)
    with pytest.raises(Unavailable, match=message):
        data.recipe()


def test_token_is_sent(data, hub, monkeypatch):
    hub.require_token("secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert data.forget_indices(1).tolist() == testing.FORGET.tolist()


def test_wrong_revision(hub, tmp_path):
    with pytest.raises(Unavailable, match="no such revision: revision 'v9' of the data set easydub"):
        Cifar10(revision="v9", cache_dir=tmp_path).recipe()
    with pytest.raises(Unavailable, match=r"no such revision: .* at 00000000"):
        Cifar10(revision="0" * 40, cache_dir=tmp_path).forget_indices(1)


def unplug(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)


def test_no_connection(data, tmp_path, monkeypatch):
    unplug(monkeypatch)
    with pytest.raises(
        Unavailable, match=r"^no connection to http://127.0.0.1.*--data-dir, or use --dataset digits"
    ):
        data.margins("oracle", 1, range(2))
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("offline", [True, False])
def test_what_was_fetched_works_without_connection(data, hub, tmp_path, monkeypatch, offline):
    before = data.margins("oracle", 1, range(2))
    if offline:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        unplug(monkeypatch)
    asked = len(hub.requests)
    later = Cifar10(cache_dir=tmp_path / "cache")
    assert later.recipe() == data.recipe()
    np.testing.assert_array_equal(later.margins("oracle", 1, range(2))["val"], before["val"])
    assert len(hub.requests) == asked
    if offline:
        with pytest.raises(Unavailable, match="is not downloaded and HF_HUB_OFFLINE is set; unset it"):
            later.margins("pretrain", 1, range(2))


def test_a_ref_of_huggingface_hub_serves_too(hub, tmp_path, monkeypatch):
    huggingface_hub.hf_hub_download(REPO, "README.md", repo_type="dataset")
    unplug(monkeypatch)
    commit = client.resolve(REPO, "main", tmp_path / "notes")
    assert (client.snapshot(REPO, commit) / "README.md").read_text() == "# tiny\n"


def test_progress_bars_are_as_before(data):
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled("huggingface_hub.http_get")
    data.forget_indices(1)
    assert are_progress_bars_disabled("huggingface_hub.http_get") == before


# The server itself, by its other client: huggingface_hub's own functions


def test_server_lists_in_pages_and_serves_snapshots(hub, folder):
    api = huggingface_hub.HfApi()
    everything = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert len(everything) == 50
    listed = [f for f in api.list_repo_tree(REPO, recursive=True, repo_type="dataset")]
    assert sorted(f.path for f in listed) == everything
    assert sum("/tree/" in path for _, path in hub.requests) == 8
    assert sorted(api.dataset_info(REPO).siblings, key=lambda s: s.rfilename)[0].rfilename == "README.md"
    top = {f.path for f in api.list_repo_tree(REPO, repo_type="dataset")}
    assert top == {"README.md", "margins", "forget_sets"}
    inside = [f.path for f in api.list_repo_tree(REPO, "margins/cifar10", repo_type="dataset")]
    assert inside == ["margins/cifar10/oracle", "margins/cifar10/pretrain"]
    (info,) = api.get_paths_info(REPO, [FILE, "no/such"], repo_type="dataset")
    assert info.size == info.lfs.size == (folder / FILE).stat().st_size
    local = huggingface_hub.snapshot_download(REPO, repo_type="dataset", allow_patterns="*/forget_set_1.npy")
    assert hub.files() == ["forget_sets/cifar10/forget_set_1.npy"]
    np.testing.assert_array_equal(np.load(f"{local}/{hub.files()[0]}"), testing.FORGET)


def test_server_stays_inside_its_folder(hub, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{hub.url}/datasets/{REPO}/resolve/main/..%2fsecret")
    with urllib.request.urlopen(
        f"{hub.url}/api/datasets/{REPO}/paths-info/main", data=b"paths=../secret"
    ) as answer:
        assert json.load(answer) == []


# The images' archive


@pytest.fixture
def archive(tmp_path, monkeypatch):
    testing.write_images(tmp_path / "made")
    (tmp_path / "site").mkdir()
    with tarfile.open(tmp_path / "site/cifar.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made/cifar-10-batches-py", "cifar-10-batches-py")
    content = (tmp_path / "site/cifar.tar.gz").read_bytes()
    with HubServer({"datasets/a/b": tmp_path / "site"}) as site:
        monkeypatch.setattr(cifar10_images, "URL", f"{site.url}/datasets/a/b/resolve/main/cifar.tar.gz")
        monkeypatch.setattr(cifar10_images, "ARCHIVE_MD5", cifar10_images.hashlib.md5(content).hexdigest())
        yield site


def test_images_are_downloaded_once(archive, data):
    split = data.split(1)
    assert len(split.images) == 60 and len(split.val_images) == 12
    data.split(1)
    assert archive.files() == ["cifar.tar.gz"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda site: site.truncate("cifar.tar.gz", 1000), "arrived damaged"),
        (lambda site: site.drop_after("cifar.tar.gz", 1000), "arrived damaged|cannot fetch"),
        (lambda site: site.fail("cifar.tar.gz", status=404), "cannot fetch .* 404.*--data-dir"),
    ],
)
def test_images_that_cannot_be_had(archive, data, tmp_path, fault, message):
    fault(archive)
    with pytest.raises(Unavailable, match=message):
        data.split(1)
    assert not [p for p in (tmp_path / "cache/data").rglob("*") if p.is_file()]


def test_images_offline(archive, data, monkeypatch):
    data.forget_indices(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
        data.split(1)
