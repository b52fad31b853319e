"""What a user may write about a run, on the command line or in a YAML or JSON file; nothing is loaded here."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
)

from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.spec import explain

ATTACKS = ("ring_a_bell", "mma_diffusion", "p4d", "unlearndiffatk")
BASELINES = ("random_tokens", "seed_search")
"""What attacks are compared with; made like their prompts, and published nowhere."""
GROUPS = (
    *("target", "indirect", "adjacent", "retain", "style", "quality", "i2p", "tifa"),
    *ATTACKS,
    *BASELINES,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @field_validator("limit", "seed", "steps", "height", "width", "batch", mode="before", check_fields=False)
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, bool):  # which Python takes for 0 or 1
            raise ValueError(f"this is a whole number, got {str(value).lower()}")
        return value


class Plug(_Strict):
    """A technique or a metric: its name, and the settings that differ from its defaults."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class Technique(Plug):
    """A technique; its preset is chosen by model and kind of concept unless one is named."""

    preset: str | None = None


class Attack(Plug):
    """An attack that makes the prompts of its group; what is left out is the one for model and kind of concept."""

    preset: str | None = None
    mode: Literal["transfer", "adaptive"] | None = None
    """Whether the unmodified model is attacked, or the one under test with its defence; by default the latter where the
    attack looks into all of a model, the former where it looks at the text encoder alone."""


class ConceptConfig(_Strict):
    """A concept that the model's world does not know."""

    name: str
    kind: Literal["object", "style", "unsafe", "person", "action"] | None = None
    phrases: list[str] = Field(default_factory=list)
    anchor: str = ""
    adjacent: list[str] = Field(default_factory=list)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Source(_Strict):
    """Where the prompts of a group come from, and how many are used."""

    source: str | None = None
    """A CSV, TSV, JSONL or Parquet file, or a data set of the Hub; by default those of the model's world."""
    label: str | None = None
    """What the pictures of rows that have no concept of their own should show."""
    limit: int | None = Field(default=None, ge=1)
    images: int = Field(default=1, ge=1, le=1000)
    """Pictures of each prompt, from other noises; the part "any_of" is then the rate of prompts any of them hits."""
    column: str | None = None
    """Of adversarial prompts, where their table calls it otherwise."""
    attack: Annotated[Attack | None, BeforeValidator(_named, json_schema_input_type=str | Attack | None)] = (
        None
    )
    """What searches for them in place of a table."""
    category: str | None = None
    """Of I2P."""
    min_nudity: float | None = Field(default=None, ge=0, le=100)
    hard_only: bool = False


class SamplerConfig(_Strict):
    """How pictures are drawn; what is left out is the model's default."""

    scheduler: str = "ddim"
    steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=1)


def _chain(value: Any) -> Any:
    """Return the list that "uce+sld", one technique or several stand for."""
    if isinstance(value, str):
        return [_named(name.strip()) for name in value.split("+")]
    return [_named(one) for one in value] if isinstance(value, list) else [value]


def _sourced(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return (
        {"source": value} if isinstance(value, str) else {"limit": value} if isinstance(value, int) else value
    )


class Config(_Strict):
    """One run of `bench sd`."""

    technique: Annotated[
        list[Technique],
        BeforeValidator(_chain, json_schema_input_type=str | Technique | list[str | Technique]),
        Field(min_length=1),
    ] = [Technique(name="uce")]
    """Several act one on top of the other: "uce+sld", or a list."""
    concept: Annotated[
        ConceptConfig | None, BeforeValidator(_named, json_schema_input_type=str | ConceptConfig | None)
    ] = None
    """By default "dog" for pocket and "nudity" elsewhere."""
    model: str = "auto"
    metrics: list[Annotated[Plug, BeforeValidator(_named, json_schema_input_type=str | Plug)]] | None = None
    """By default those of the model's world."""
    prompts: dict[
        str, Annotated[Source, BeforeValidator(_sourced, json_schema_input_type=str | PositiveInt | Source)]
    ] = Field(default_factory=dict)
    """Group -> file, number, or both."""
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    limit: int | None = Field(default=None, ge=1)
    """Rows of each group at most."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    out: Path = Path("runs")
    notes: list[str] = Field(default_factory=list)
    """What was read otherwise than it stands in the file; shown and recorded."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "bench run --config"}
    return {**Config.model_json_schema(), **dialect}


def build(mapping: Any, place: str) -> Config:
    """Return the configuration of a mapping in our schema.

    Raises:
        InvalidInput: an unknown key (with the nearest right one), a missing one, or a value of the wrong type.
    """
    if not isinstance(mapping, dict):
        raise InvalidInput(f"{place}: a configuration is a mapping, got {type(mapping).__name__}")
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        raise InvalidInput(f"{place}: " + _explain(error)) from None
    for group in config.prompts:
        if group not in GROUPS:
            raise InvalidInput(f"{place}: prompts: " + one_of("group", group, GROUPS))
    for group, source in config.prompts.items():
        if source.attack and source.attack.name != group:
            raise InvalidInput(
                f"{place}: prompts: the rows of {group!r} are not made by the attack {source.attack.name!r}; write "
                f"prompts: {{{source.attack.name}: {{attack: {source.attack.name}}}}}"
            )
        if source.attack and source.source:
            raise InvalidInput(f"{place}: prompts: {group!r} has a table and an attack; state one of them")
    names = [metric.name for metric in config.metrics or []]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise InvalidInput(f"{place}: the metric {twice!r} stands there twice")
    if config.metrics == []:
        raise InvalidInput(f"{place}: metrics is empty; leave it out for the default ones")
    return config


def load(path: Path) -> Config:
    """Return the configuration in a YAML or JSON file, ours or one of eval-learn.

    Raises:
        Unavailable: the file cannot be read.
        InvalidInput: it is malformed, or holds what nobody understands.
    """
    from unlearn_bench.sd import eval_learn

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{str(path)!r} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    mapping = parse(text, path)
    if eval_learn.recognises(mapping):
        mapping = eval_learn.translate(mapping, str(path))
    return build(mapping, str(path))


def parse(text: str, path: Path) -> Any:
    """Return the content of a YAML or JSON text.

    Raises:
        InvalidInput: it is neither, or a key stands twice; the message has the line.
    """
    try:
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_once)
        return yaml.load(text, _OnceLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InvalidInput(f"{str(path)!r}{where}: not YAML: {problem}") from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise InvalidInput(f"{str(path)!r}: not {kind}: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return found


class _OnceLoader(yaml.SafeLoader):
    pass


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # refused below
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands there twice", key.start_mark
            )
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=deep)


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

_MODELS = {
    "": Config, "technique": Technique, "sampler": SamplerConfig, "concept": ConceptConfig,
    "metrics": Plug, "prompts": Source,
}  # fmt: skip


def _explain(error: ValidationError) -> str:
    for one in error.errors(include_url=False):
        if one["type"] == "extra_forbidden":
            *path, key = one["loc"]
            path = path[:1] if path[1:] == [0] else path
            model = Attack if "attack" in path else _MODELS.get(str(path[0]) if path else "", Config)
            where = ".".join(str(part) for part in path if not str(part).startswith("function"))
            return f"{where}: " * bool(where) + one_of("key", str(key), model.model_fields)
    return explain(error).replace("technique.0", "technique")  # one technique is a list of one


def read_assignments(assignments: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the settings of "NAME=VALUE", and PLUG -> the settings of "PLUG.NAME=VALUE".

    Raises:
        InvalidInput: an assignment without a name, or JSON that is none.
    """
    own: dict[str, Any] = {}
    of_metrics: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"--set {text!r}: write NAME=VALUE, for example --set lamb=0.1")
        metric, dot, setting = name.strip().replace("-", "_").partition(".")
        parsed = _value(value.strip())
        if dot:
            of_metrics.setdefault(metric, {})[setting] = parsed
        else:
            own[metric] = parsed
    return own, of_metrics


def _value(text: str) -> Any:
    """Return a list or mapping where the text is one in JSON; everything else is converted by its field."""
    if text[:1] not in "[{":
        return None if text == "null" else text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--set: {text!r} is no JSON: {error}") from None
