import os
import subprocess
import sys

import pytest

from unlearn_core import hub
from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_core.prompts import PromptSet

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("AIML-TUDA/i2p", True),
        ("owner/name@main", True),
        ("owner/name@refs/convert:a/b.parquet", True),
        ("owner/name:data/prompts.csv", True),
        ("owner/v1.5-prompts", True),
        ("prompts", False),
        ("prompts.csv", False),
        ("data/prompts.csv", False),
        ("./owner/name", False),
        ("../owner", False),
        ("/owner/name", False),
        ("a/b/c", False),
    ],
)
def test_what_is_a_hub_id(source, expected):
    assert hub.is_hub_id(source) is expected


class Client:
    """The two calls of huggingface_hub that are used, over a mapping (repo, revision) -> file -> bytes."""

    def __init__(self, folder, content):
        self.folder, self.content = folder, content

    def HfApi(self):
        return self

    def _files(self, repo, revision, repo_type):
        assert repo_type == "dataset"
        try:
            return self.content[repo, revision]
        except KeyError:
            raise RuntimeError(f"404 Client Error for {repo}\n\nlong explanation") from None

    def list_repo_files(self, repo, *, revision=None, repo_type=None):
        return list(self._files(repo, revision, repo_type))

    def hf_hub_download(self, repo, filename, *, repo_type=None, revision=None):
        path = self.folder / "snapshots" / COMMIT / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._files(repo, revision, repo_type)[filename])
        return str(path)


@pytest.fixture
def client(tmp_path, monkeypatch):
    one, two = b"prompt\na dog\n", b"prompt\na cat\n"
    content = {
        ("owner/one", None): {"README.md": b"", "data/train.csv": one},
        ("owner/one", "v2"): {"train.csv": two},
        ("owner/two", None): {"a.csv": one, "b.csv": two},
    }
    monkeypatch.setitem(sys.modules, "huggingface_hub", Client(tmp_path, content))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("client")
def test_the_only_table_of_a_data_set_is_found():
    loaded = PromptSet.load("owner/one", group="quality")
    assert (loaded.name, loaded.revision) == ("owner/one", COMMIT)
    assert [(p.text, p.group) for p in loaded] == [("a dog", "quality")]


@pytest.mark.usefixtures("client")
def test_a_revision_and_a_file_can_be_named():
    assert PromptSet.load("owner/one@v2").rows[0].text == "a cat"
    assert PromptSet.load("owner/two:b.csv").rows[0].text == "a cat"
    assert PromptSet.load("owner/two:a.csv", name="two").name == "two"


@pytest.mark.usefixtures("client")
def test_what_the_hub_cannot_give_is_one_message():
    with pytest.raises(InvalidInput, match=r"'owner/two' holds 2 tables; say which: a.csv, b.csv"):
        PromptSet.load("owner/two")
    with pytest.raises(Unavailable) as caught:
        PromptSet.load("owner/three")
    assert str(caught.value) == (
        "cannot fetch 'owner/three' from the Hugging Face Hub: 404 Client Error for owner/three"
    )


@pytest.mark.usefixtures("client")
def test_a_path_that_exists_wins(tmp_path):
    (tmp_path / "owner" / "one").mkdir(parents=True)
    (tmp_path / "owner" / "one" / "mine.csv").write_text("text\nmine\n")
    loaded = PromptSet.load("owner/one")
    assert (loaded.rows[0].text, loaded.revision) == ("mine", "")


def test_without_the_client_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra) as caught:
        PromptSet.load("owner/name")
    assert str(caught.value) == 'this needs huggingface_hub: pip install "unlearn-core[hub]"'


def test_the_real_client_finds_a_fetched_file_without_a_network(tmp_path):
    pytest.importorskip("huggingface_hub")
    repo = tmp_path / "datasets--owner--one"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT / "data").mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "data" / "train.csv").write_text("prompt\na dog\n")
    code = (  # the client reads its settings when it is imported
        "from unlearn_core.errors import Unavailable\n"
        "from unlearn_core.prompts import PromptSet\n"
        "loaded = PromptSet.load('owner/one:data/train.csv')\n"
        "print(loaded.rows[0].text, loaded.revision)\n"
        "for source in ('owner/one:data/other.csv', 'owner/one', 'owner/one--two:x.csv'):\n"
        "    try:\n"
        "        PromptSet.load(source)\n"
        "    except Unavailable as error:\n"
        "        print(error)\n"
    )
    settings = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    first, *refusals = result.stdout.splitlines()
    assert first == f"a dog {COMMIT}"
    assert [line.split(" from the Hugging Face Hub: ")[0] for line in refusals] == [
        "cannot fetch 'owner/one:data/other.csv'",
        "cannot fetch 'owner/one'",
        "cannot fetch 'owner/one--two:x.csv'",
    ]
    assert all(len(line) > 60 for line in refusals)  # each with the client's reason
