import json
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core import record as module
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.record import RunRecord, run_id
from unlearn_core.score import Score, wilson

SPEC = {"method": "scrub", "settings": {"rate": 0.1}, "seeds": [1, 2]}


@pytest.fixture
def record():
    return RunRecord.of("klom", SPEC)


def edited(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_record_comes_back_as_it_was(record, tmp_path):
    with record.stage("train"):
        pass
    score = Score(metric="rate", value=0.5, direction="down", n_scored=4, interval=wilson(2, 4))
    record.scores["rate"] = score.to_mapping()
    record.notes.append("Größe")
    record.files["margins"] = "margins.npy"
    record.write(tmp_path / "run" / "record.json")
    again = RunRecord.read(tmp_path / "run" / "record.json")
    assert again == record
    assert Score.from_mapping(again.scores["rate"]) == score
    assert abs(again.created - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_spec_alone_names_the_run(record):
    # printf '%s' '{"method":"scrub","seeds":[1,2],"settings":{"rate":0.1}}' | sha256sum
    assert run_id(SPEC) == record.run_id == "2eb421f13d58"
    assert run_id(dict(reversed(SPEC.items()))) == record.run_id
    assert run_id({**SPEC, "seeds": [2, 1]}) != record.run_id


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(spec=st.dictionaries(texts, values | texts | st.lists(values | texts, max_size=3), max_size=4))
def test_any_spec_survives_the_file(spec, tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "record.json"
    written = RunRecord(run_id=run_id(spec), kind="sd", spec=spec, environment={}, created=datetime.now(UTC))
    written.write(path)
    assert RunRecord.read(path) == written


def test_an_edited_spec_is_refused(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    edited(path, lambda data: data["spec"]["settings"].update(rate=0.2))
    with pytest.raises(InvalidInput, match="was edited after the run"):
        RunRecord.read(path)


def test_another_schema_is_named_before_its_fields_are_complained_about(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    edited(path, lambda data: data.update(schema_number=2, new_field=1, stages="changed"))
    with pytest.raises(InvalidInput, match="has schema 2, this version reads schema 1"):
        RunRecord.read(path)


def test_an_unknown_field_is_refused(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    edited(path, lambda data: data.update(extra=1))
    with pytest.raises(InvalidInput, match="is not a run record: extra: "):
        RunRecord.read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage " * 10_000,
        b"\x89PNG\r\n\x1a\n\x00\xff",
        b"\0" * 100,
        b"[]",
        b"{}",
        b'{"schema_number":1}',
    ],
)
def test_what_is_no_record_is_one_short_message(tmp_path, data):
    path = tmp_path / "record.json"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="is not a run record") as caught:
        RunRecord.read(path)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


def test_no_file_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="No such file"):
        RunRecord.read(tmp_path / "none.json")
    with pytest.raises(Unavailable, match="Is a directory"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_score_that_is_no_number_is_not_written_as_null(record, tmp_path, value):
    record.scores = {"klom": {"p95": value}}
    with pytest.raises(InvalidInput, match="not expressible as JSON"):
        record.write(tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_a_stage_adds_up_even_when_it_fails(record, monkeypatch):
    clock = iter([10.0, 12.5, 100.0, 101.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with record.stage("train"):
        pass
    with pytest.raises(RuntimeError), record.stage("train"):
        raise RuntimeError
    assert record.stages["train"].seconds == 3.5
    assert list(record.stages) == ["train"]


def test_peak_memory_is_this_process_in_mib(record, monkeypatch):
    with record.stage("train"):
        held = b"x" * 2**26  # 64 MiB
    stage = record.stages["train"]
    assert 64 < stage.peak_memory < 100_000
    assert len(held) == 2**26
    fake = type(sys)("torch")
    fake.cuda = type("cuda", (), {"is_available": lambda: True, "max_memory_allocated": lambda: 3 * 2**20})
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert module._peak_memory()[1] == 3.0
    monkeypatch.setitem(sys.modules, "torch", None)
    assert module._peak_memory()[1] is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_each_stage_has_a_peak_of_its_own(record):
    with record.stage("large"):
        page = bytearray(b"1") * (256 * 2**20)
        del page
    with record.stage("small"):
        pass
    assert record.stages["large"].peak_memory - record.stages["small"].peak_memory > 200
