"""Blocks on disk."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klom_bench.cache import block_tensors, blocks, rows
from klom_bench.folders import cache_root
from unlearn_core.errors import Unavailable


def test_the_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", "~/there")
    assert cache_root() == Path.home() / "there"
    monkeypatch.delenv("UNLEARN_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root().name == "unlearn-bench"


@given(start=st.integers(0, 80), length=st.integers(1, 80), size=st.integers(1, 30))
def test_blocks_cover_and_rows_pick(start, length, size):
    models = range(start, start + length)
    covered = blocks(models, size)
    assert all(b.start % size == 0 and len(b) == size for b in covered)
    ids = [i for b in covered for i in b]
    assert ids == list(range(ids[0], ids[-1] + 1)) and set(models) <= set(ids)
    assert covered[0].stop > start and covered[-1].start < models.stop  # no block too many
    tables = [torch.tensor([[i, -i] for i in b]) for b in covered]
    assert rows(tables, covered, models).tolist() == [[i, -i] for i in models]


def counting(calls, value=1.0):
    def compute():
        calls.append(value)
        return {"a": torch.full((2, 3), value).T, "b": torch.tensor(7)}

    return compute


def test_computed_once_and_found_again(tmp_path):
    calls = []
    first = block_tensors(tmp_path / "f", range(25, 50), counting(calls))
    again = block_tensors(tmp_path / "f", range(25, 50), counting(calls, 2.0))
    assert calls == [1.0] and all(torch.equal(first[k], again[k]) for k in ("a", "b"))
    assert again["a"].shape == (3, 2) and again["b"].item() == 7
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["025-049.safetensors"]
    block_tensors(tmp_path / "f", range(50, 75), counting(calls))
    block_tensors(tmp_path / "g", range(25, 50), counting(calls))
    assert len(calls) == 3


def test_force_computes_again(tmp_path):
    calls = []
    block_tensors(tmp_path, range(2), counting(calls))
    assert block_tensors(tmp_path, range(2), counting(calls, 2.0), force=True)["a"][0, 0] == 2
    assert block_tensors(tmp_path, range(2), counting(calls, 3.0))["a"][0, 0] == 2
    assert calls == [1.0, 2.0]


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\0\0\0\0\0\0\0{}", b"\xff" * 100])
def test_a_damaged_file_is_replaced(tmp_path, content):
    calls = []
    block_tensors(tmp_path, range(2), counting(calls))
    path = tmp_path / "000-001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(content)
    assert block_tensors(tmp_path, range(2), counting(calls))["a"][0, 0] == 1
    assert len(calls) == 2 and path.read_bytes() == whole


def test_whoever_is_interrupted_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block_tensors(tmp_path, range(2), interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot write"):
        block_tensors(tmp_path / "file" / "f", range(2), counting([]))


def work(folder, barrier, value, queue):
    def compute():
        barrier.wait(30)  # both have found nothing there
        return {"a": torch.full((300, 300), value)}

    queue.put(block_tensors(folder, range(2), compute)["a"].unique().tolist())


def test_two_processes_at_once_leave_one_whole_file(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    both = [context.Process(target=work, args=(tmp_path, barrier, v, queue)) for v in (1.0, 2.0)]
    for process in both:
        process.start()
    assert sorted(queue.get(timeout=30) + queue.get(timeout=30)) == [1.0, 2.0]
    for process in both:
        process.join(timeout=30)
    calls = []
    assert block_tensors(tmp_path, range(2), counting(calls))["a"].unique().tolist() in ([1.0], [2.0])
    assert calls == [] and [p.name for p in tmp_path.iterdir()] == ["000-001.safetensors"]
