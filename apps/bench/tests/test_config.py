"""What may stand in a configuration file: everything else is a mistake with a place and a nearest name."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_bench.sd import config
from unlearn_core.errors import InvalidInput, Unavailable

FULL = """\
technique: {name: esd, preset: style, config: {lr: 1e-5}}
concept: {name: Monet, kind: style, phrases: [impressionism], anchor: art, adjacent: [Manet]}
model: pocket
metrics: [clip_score, {name: asr_i2p, config: {threshold: 0.6}}]
prompts:
  target: rows.csv
  retain: 12
  i2p: {source: AIML-TUDA/i2p, limit: 5, category: sexual, min_nudity: 50, hard_only: true}
sampler: {scheduler: pndm, steps: 20, guidance_scale: 4, height: 64, width: 96, batch: 2}
limit: 10
seed: 7
device: cuda:1
dtype: fp16
out: results
notes: [mine]
"""


@pytest.fixture
def load(tmp_path):
    """Return a function that reads a text as a file with that suffix."""

    def read(text, suffix=".yaml"):
        path = tmp_path / f"c{suffix}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config.load(path)

    return read


def test_everything_that_may_be_said(load):
    read = load(FULL)
    assert set(config.Config.model_fields) == read.model_fields_set, "FULL states every field"
    assert read.technique[0].config == {"lr": "1e-5"}, "a number once the technique's own field is known"
    assert [metric.name for metric in read.metrics] == ["clip_score", "asr_i2p"]
    assert read.prompts["target"].source == "rows.csv" and read.prompts["retain"].limit == 12
    assert read.prompts["i2p"].min_nudity == 50 and read.prompts["i2p"].hard_only
    assert (read.sampler.height, read.sampler.width, read.sampler.guidance_scale) == (64, 96, 4)
    assert (read.seed, read.out, read.dtype) == (7, Path("results"), "fp16")


def test_what_is_said_survives_json(load):
    read = load(FULL)
    assert load(read.model_dump_json(), ".json") == read


def test_nothing_needs_to_be_said(load):
    read = load("{}")
    assert read == config.Config() and read.technique[0].name == "uce" and read.metrics is None


def test_short_forms(load):
    assert load("technique: sld\nconcept: dog\nmetrics: [fid]\nprompts: {target: 5}") == load(
        "technique: [{name: sld}]\nconcept: {name: dog}\nmetrics: [{name: fid, config: {}}]\n"
        "prompts: {target: {limit: 5}}"
    )


@pytest.mark.parametrize("number", ["1e-5", "1.0e-5", "0.00001", '"1e-5"'])
def test_1e_5_is_a_number(load, number):
    assert load(f"sampler: {{guidance_scale: {number}}}").sampler.guidance_scale == 0.00001


# ---- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "unknown key 'sed'; did you mean 'seed'? Known: concept, device, "),
        (
            "technique: {nam: uce}",
            "technique: unknown key 'nam'; did you mean 'name'? Known: config, name, preset",
        ),
        ("technique: {name: uce, prset: object}", "technique: unknown key 'prset'; did you mean 'preset'?"),
        ("concept: {name: dog, adjacnt: [cat]}", "concept: unknown key 'adjacnt'; did you mean 'adjacent'?"),
        ("metrics: [fid, {name: kid, confg: {}}]", "metrics.1: unknown key 'confg'; did you mean 'config'?"),
        ("sampler: {step: 5}", "sampler: unknown key 'step'; did you mean 'steps'?"),
        ("prompts: {target: {sorce: a.csv}}", "prompts.target: unknown key 'sorce'; did you mean 'source'?"),
        ("prompts: {targt: a.csv}", "prompts: unknown group 'targt'; did you mean 'target'?"),
        ("technique: 5", "technique: "),
        ("technique: {config: {}}", "technique.name: Field required"),
        ("technique: {name: uce, config: [1]}", "technique.config: .*dictionary.*[1]"),
        ("concept: {kind: style}", "concept.name: Field required"),
        ("concept: {name: dog, kind: pet}", "kind: Input should be 'object', 'style', "),
        ("concept: {name: dog, adjacent: cat}", "adjacent: .*list.*'cat'"),
        ("metrics: fid", "metrics: .*list.*'fid'"),
        ("metrics: []", "metrics is empty; leave it out for the default ones"),
        ("metrics: [fid, {name: fid}]", "the metric 'fid' stands there twice"),
        ("prompts: [a.csv]", "prompts: .*dictionary"),
        ("prompts: {target: true}", "prompts.target: .*True"),
        ("prompts: {target: 0}", "prompts.target.limit: .*greater than or equal to 1, got 0"),
        ("prompts: {i2p: {min_nudity: 101}}", "prompts.i2p.min_nudity: .*less than or equal to 100"),
        ("limit: true", "limit: .*whole number, got true"),
        ("seed: false", "seed: .*whole number, got false"),
        ("sampler: {steps: true}", "sampler.steps: .*whole number, got true"),
        ("sampler: {steps: 0}", "sampler.steps: .*greater than or equal to 1, got 0"),
        ("sampler: {guidance_scale: .nan}", "sampler.guidance_scale: .*got nan"),
        ("sampler: {guidance_scale: high}", "sampler.guidance_scale: .*number.*'high'"),
        ("limit: 0", "limit: .*greater than or equal to 1"),
        ("seed: -1", "seed: .*greater than or equal to 0"),
        ("seed: 9223372036854775808", "seed: .*less than 9223372036854775808"),
        ("seed: 1.5", "seed: .*integer.*1.5"),
        ("dtype: fp17", "dtype: Input should be 'auto', 'fp32', 'fp16' or 'bf16', got 'fp17'"),
        ("device: 0", "device: .*string, got 0"),
        ("model: null", "model: .*string, got None"),
        ("out: 5", "out: .*path.*5"),
        ("1: 2", "1: Keys should be strings"),
        ("[technique]", "a configuration is a mapping, got list"),
        ("uce", "a configuration is a mapping, got str"),
        ("", "a configuration is a mapping, got NoneType"),
    ],
)
def test_mistakes_of_content(load, tmp_path, text, message):
    start, *rest = message.split(".*")
    with pytest.raises(InvalidInput) as caught:
        load(text)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/c.yaml: ") and start in line and "\n" not in line
    assert all(part in line[line.index(start) :] for part in rest), line


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("seed: 1\ndtype: auto\nseed: 2", ".yaml", "c.yaml', line 3: not YAML: the key 'seed' stands there twice"),
        ("sampler: {steps: 1, steps: 2}", ".yml", "line 1: not YAML: the key 'steps' stands there twice"),
        ('{"seed": 1, "seed": 2}', ".json", "c.json': not JSON: the key 'seed' stands there twice"),
        ('{"sampler": {"steps": 1, "steps": 1}}', ".json", "the key 'steps' stands there twice"),
        ("technique: uce\n  seed: 1", ".yaml", "line 2: not YAML: mapping values are not allowed here"),
        ("technique: [uce", ".yaml", "not YAML"),
        ("\tseed: 1", ".yaml", "line 1: not YAML"),
        ("seed: \x00", ".yaml", "not YAML: unacceptable character"),
        ("? [a]\n: 1", ".yaml", "line 1: not YAML: found unhashable key"),
        ("seed: 2020-13-45", ".yaml", "c.yaml': not YAML: month must be in 1..12"),
        ("seed: 1\n---\nseed: 2", ".yaml", "line 2: not YAML: but found another document"),
        ("technique: &t {name: esd, config: *t}", ".yaml", "not YAML: found unconstructable recursive node"),
        ("a: !!python/object/apply:os.system [touch executed]", ".yaml", "not YAML: could not determine a constructor"),
        ("{" * 1000, ".yaml", "not YAML"),
        ("[" * 100_000, ".json", "c.json': not JSON: "),
        ("seed: 1", ".json", "c.json': not JSON: Expecting value: line 1"),
        ("{'seed': 1}", ".json", "not JSON: Expecting property name"),
        ("", ".json", "not JSON"),
        (b"\xff\xfes\x00", ".yaml", "c.yaml' is not UTF-8; save it as UTF-8"),
        ("concept: caf\xe9".encode("latin-1"), ".json", "is not UTF-8"),
    ],
)  # fmt: skip
def test_mistakes_of_form(load, tmp_path, text, suffix, message):
    with pytest.raises(InvalidInput) as caught:
        load(text, suffix)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(Unavailable, match=r"cannot read '.*none.yaml': No such file or directory"):
        config.load(tmp_path / "none.yaml")
    with pytest.raises(Unavailable, match="cannot read '.*': Is a directory"):
        config.load(tmp_path)


KEYS = [*config.Config.model_fields, *config.Source.model_fields, *config.GROUPS, "name", "config"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(KEYS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_content_is_a_configuration_or_a_mistake(value):
    try:
        assert isinstance(config.build(value, "a.yaml"), config.Config)
    except InvalidInput as error:
        assert str(error).startswith("a.yaml: ")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="{}[]:,&*!?-\"'#\n abc1e.<", max_size=20), st.sampled_from([".yaml", ".json"]))
def test_any_text_is_content_or_a_mistake(text, suffix):
    try:
        config.parse(text, Path(f"a{suffix}"))
    except InvalidInput as error:
        assert f"a{suffix}" in str(error) and "\n" not in str(error)


# ---- for editors ----------------------------------------------------------------------------------------------

MODELS = (
    config.Config,
    config.Technique,
    config.Plug,
    config.Attack,
    config.ConceptConfig,
    config.Source,
    config.SamplerConfig,
)


def test_the_schema_has_every_field_and_no_other():
    schema = json.loads(json.dumps(config.schema(), allow_nan=False))
    found = {"Config": schema, **schema["$defs"]}
    assert set(found) == {model.__name__ for model in MODELS}
    for model in MODELS:
        part = found[model.__name__]
        assert set(part["properties"]) == set(model.model_fields) and part["additionalProperties"] is False
    assert schema["properties"]["concept"]["description"].startswith('By default "dog" for pocket')


def test_every_reference_of_the_schema_leads_somewhere():
    schema = config.schema()

    def references(part):
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        own = [part["$ref"]] if isinstance(part, dict) and "$ref" in part else []
        return own + list(itertools.chain.from_iterable(map(references, inner)))

    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} == set(schema["$defs"])


TAKEN = (
    FULL,
    "{}",
    "technique: uce",
    "concept: dog",
    "metrics: [fid]",
    "prompts: {i2p: 5, target: a.csv}",
    "limit: 3",
)
REFUSED = ("sed: 1", "technique: {}", "technique: 5", "metrics: fid", "prompts: {i2p: {limt: 5}}", "dtype: fp17",
           "prompts: {i2p: 0}", "sampler: {steps: 0}", "seed: -1", "concept: {name: x, kind: pet}")  # fmt: skip


@pytest.mark.parametrize(("text", "good"), [*((t, True) for t in TAKEN), *((t, False) for t in REFUSED)])
def test_editors_and_we_agree(text, good):
    jsonschema = pytest.importorskip("jsonschema")
    schema, content = config.schema(), config.parse(text, Path("a.yaml"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(content) is good
    try:
        config.build(content, "a.yaml")
    except InvalidInput:
        assert not good
    else:
        assert good
