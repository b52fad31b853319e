import errno
import os
import subprocess
import sys
import threading

import pytest

from unlearn_core import atomic
from unlearn_core.errors import Unavailable


def test_a_new_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    atomic.write_text(path, "Grüße\r\n")
    assert path.read_bytes() == "Grüße\r\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_the_old_file(tmp_path, kind):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(kind), atomic.replacing(path) as file:
        file.write(b"half of the ne")
        file.flush()
        assert path.read_text() == "old"
        raise kind
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from unlearn_core import atomic\n"
        "with atomic.replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ("fsync", errno.ENOSPC, "the disk is full"),
        ("fsync", errno.EDQUOT, "the disk quota is used up"),
        ("fsync", errno.EIO, "Input/output error"),
    ],
)
def test_a_full_disk_is_explained_and_leaves_the_old_file(tmp_path, monkeypatch, call, code, reason):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Unavailable) as caught:
        atomic.write_text(path, "new")
    assert str(caught.value) == f"cannot write {str(path)!r}: {reason}"
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_read_only_file_system_is_explained(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(Unavailable, match="read-only"):
        atomic.make_folder(tmp_path / "new")
    with pytest.raises(Unavailable, match="read-only"):
        atomic.write_text(tmp_path / "file", "x")
    assert not (tmp_path / "file").exists()


def test_a_path_under_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="a part of the path is a file"):
        atomic.write_text(tmp_path / "file" / "sub" / "x", "x")
    with pytest.raises(Unavailable, match="it is a file, not a folder"):
        atomic.make_folder(tmp_path / "file")
    with (
        pytest.raises(Unavailable, match="it is a file, not a folder"),
        atomic.appending(tmp_path / "file" / "x"),
    ):
        pass


def test_concurrent_writers_leave_one_of_their_files_whole(tmp_path):
    path = tmp_path / "file"
    texts = [letter * 200_000 for letter in "abcd"]
    seen = set()

    def write(text):
        for _ in range(5):
            atomic.write_text(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            seen.add(path.read_text())
    for thread in threads:
        thread.join()
    seen.add(path.read_text())
    assert seen <= set(texts)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_appending_keeps_the_lines_of_several_processes_whole(tmp_path):
    path = tmp_path / "lines"
    code = (
        "import sys; from pathlib import Path; from unlearn_core import atomic\n"
        "for _ in range(10):\n"
        "    with atomic.appending(Path(sys.argv[1])) as file:\n"
        "        for part in range(4):\n"
        "            file.write(sys.argv[2].encode() * 5000); file.flush()\n"
        "        file.write(b'\\n')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    assert sorted(path.read_text().splitlines()) == ["a" * 20_000] * 10 + ["b" * 20_000] * 10


def test_appending_can_read_what_is_there(tmp_path):
    path = tmp_path / "lines"
    path.write_text("one\n")
    with atomic.appending(path) as file:
        file.seek(0)
        assert file.read() == b"one\n"
        file.write(b"two\n")
    assert path.read_text() == "one\ntwo\n"
