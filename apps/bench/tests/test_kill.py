"""Ctrl-C and kill -9 in the middle: nothing broken, and the same command goes on from there."""

import dataclasses
import json
import signal
import time

import pytest

RUN = ("klom", "run", "--dataset", "digits", "--n-models", 4, "--json")
EPOCHS = 40  # a block takes a second: long enough to be hit in the middle


@pytest.fixture
def stop_after_first_block(process, tmp_path):
    """Return a function that starts the run and sends `how` while the second block is trained."""

    def stop(how):
        child = process(*RUN, epochs=EPOCHS)
        deadline = time.monotonic() + 60
        while not (blocks := sorted((tmp_path / "cache").rglob("*.safetensors"))):
            assert child.poll() is None and time.monotonic() < deadline, child.communicate()
            time.sleep(0.01)
        time.sleep(0.2)
        child.send_signal(how)
        out, err = child.communicate(timeout=30)
        return child.returncode, out, err, blocks

    return stop


@pytest.fixture
def finish(digits, no_picture, monkeypatch, json_of):
    """Return a function that runs the same command to its end, in this process."""
    monkeypatch.setattr(digits, "TRAINING", dataclasses.replace(digits.TRAINING, epochs=EPOCHS))
    return lambda: json_of(*RUN[:-1])


def check_goes_on(finish, tmp_path, blocks):
    assert len(blocks) == 1 and not list((tmp_path / "runs").rglob("record.json"))
    before = blocks[0].stat()
    document = finish()
    after = blocks[0].stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino), (
        "it was not trained again"
    )
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3, "pretrain, oracles, unlearned"
    assert list(document["scores"]) == ["do_nothing", "noisy_descent", "oracle"]
    json.loads(next((tmp_path / "runs").rglob("record.json")).read_text())


def test_ctrl_c(stop_after_first_block, finish, tmp_path):
    code, out, err, blocks = stop_after_first_block(signal.SIGINT)
    assert (code, out, err) == (130, "", "stopped; the same command goes on from here\n")
    assert not list(tmp_path.rglob("*.part"))
    check_goes_on(finish, tmp_path, blocks)


def test_kill(stop_after_first_block, finish, tmp_path):
    code, out, err, blocks = stop_after_first_block(signal.SIGKILL)
    assert (code, out, err) == (-signal.SIGKILL, "", "")
    # What a process killed while it writes leaves behind: part of a block, under another name.
    stale = blocks[0].with_name(f".{blocks[0].name}.killed.part")
    stale.write_bytes(blocks[0].read_bytes()[:1000])
    check_goes_on(finish, tmp_path, blocks)


def test_ctrl_c_at_any_stage(bench, digits, no_picture, json_of, tmp_path, monkeypatch):
    """Interrupt a run after each of its blocks in turn; the next run gets one further, the last one through."""
    from klom_bench import cache

    def stored():
        return len(list((tmp_path / "cache").rglob("*.safetensors")))

    for finished in range(3):

        def interrupted(*arguments, before=finished, **settings):
            result = cache.block_tensors(*arguments, **settings)
            if stored() > before:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            for module in ("experiment", "datasets.digits"):
                patch.setattr(f"klom_bench.{module}.block_tensors", interrupted)
            result = bench(*RUN)
        assert (result.code, result.out) == (130, "") and len(result.err.splitlines()) == 1
        assert stored() == finished + 1
    assert json_of(*RUN[:-1])["reused"] is False
