import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, MissingExtra
from unlearn_core.spec import build, canonical_json, fingerprint, settings_of


@dataclass(frozen=True, kw_only=True)
class Toy:
    rate: float = 0.1
    steps: int = 10
    name: str = "toy"
    layers: tuple[str, ...] = ()
    fast: bool = False
    made: int = field(default=0, init=False)

    def __post_init__(self):
        if self.steps < 0:
            raise InvalidInput(f"steps are at least 0, got {self.steps}")
        if self.name == "extra":
            raise MissingExtra("pip install toy")


def test_build_converts_text_where_a_number_is_meant():
    toy = build(Toy, {"rate": "1e-3", "steps": "3", "fast": "true", "layers": ["a", "b"]})
    assert toy == Toy(rate=0.001, steps=3, fast=True, layers=("a", "b"))
    assert type(toy.steps) is int


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"step": 3},
            "Toy: unknown setting 'step'; did you mean 'steps'? Known: fast, layers, name, rate, steps",
        ),
        ({"made": 3}, "Toy: unknown setting 'made'"),
        ({"steps": "many"}, "Toy: steps: "),
        ({"steps": 1.5}, "got 1.5"),
        ({"name": 3}, "Toy: name: "),
        ({"layers": "abc"}, "Toy: layers: "),
        ({"steps": -1}, "Toy: steps are at least 0, got -1"),
    ],
)
def test_build_says_what_was_wrong(settings, message):
    with pytest.raises(InvalidInput) as caught:
        build(Toy, settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_range_error_of_a_dataclass_stands_alone():
    with pytest.raises(InvalidInput) as caught:
        build(Toy, {"steps": -1})
    assert (
        str(caught.value) == "Toy: steps are at least 0, got -1"
    )  # no "Value error," and no dump of the input


def test_other_errors_pass_through_build():
    with pytest.raises(MissingExtra, match="pip install toy"):
        build(Toy, {"name": "extra"})


def test_a_message_does_not_repeat_a_long_input():
    with pytest.raises(InvalidInput) as caught:
        build(Toy, {"steps": "x" * 10_000})
    assert len(str(caught.value)) < 300


@given(
    st.builds(
        Toy,
        rate=st.floats(allow_nan=False, allow_infinity=False),
        steps=st.integers(0, 2**70),
        name=st.text(st.characters(exclude_categories=("Cs",))).filter(lambda s: s != "extra"),
        layers=st.lists(st.text(st.characters(exclude_categories=("Cs",)))).map(tuple),
        fast=st.booleans(),
    )
)
def test_settings_survive_json(toy):
    assert build(Toy, json.loads(canonical_json(settings_of(toy)))) == toy


def test_canonical_json_is_what_the_sha256_tool_hashes():
    value = {"b": {"c": True}, "a": (1.5, None, "é")}
    assert canonical_json(value) == '{"a":[1.5,null,"é"],"b":{"c":true}}'
    # printf '%s' '{"a":[1.5,null,"é"],"b":{"c":true}}' | sha256sum
    assert fingerprint(value) == "d6dd10a7d73a611613ae6574bfe732bf307850d7dd3f02af48136d3d7faf97c7"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcé", max_size=3), json_values, max_size=5), st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({k: value[k] for k in keys}) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", {"a": ["\ud800"]}])
def test_what_json_cannot_express_is_refused(value):
    with pytest.raises(InvalidInput, match="not expressible as JSON"):
        fingerprint(value)
