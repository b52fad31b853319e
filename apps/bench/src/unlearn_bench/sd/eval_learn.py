"""eval-learn's configuration files, understood as they stand: each of its keys becomes ours by a row of a table.

What a file leaves out means what it means there; what is read otherwise than it stands is a note; what has no
meaning here is an error that says what to write instead.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unlearn_bench.sd import eval_learn_keys as keys
from unlearn_bench.sd.config import Config
from unlearn_bench.sd.eval_learn_values import Key
from unlearn_core import registry
from unlearn_core.errors import InvalidInput, one_of


def recognises(mapping: Any) -> bool:
    """Return whether `mapping` is in eval-learn's schema; one with a key of ours alone is not."""
    if not isinstance(mapping, dict) or set(mapping) & (set(Config.model_fields) - set(keys.TOP)):
        return False
    metrics = mapping.get("metrics")
    plugs = [mapping.get("technique"), *(metrics if isinstance(metrics, list) else [])]
    plugs = [plug for plug in plugs if isinstance(plug, dict)]
    settings = {key for plug in plugs if isinstance(plug.get("config"), dict) for key in plug["config"]}
    known = {"output_dir", "metric"} & set(mapping) or keys.THEIRS & settings
    return bool(known) or any(plug.get("name") == "free_run" for plug in plugs)


def translate(mapping: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return a configuration of eval-learn as a mapping in our schema, with `notes` on what is read otherwise.

    Args:
        mapping: the content of the file.
        place: the file, for messages.

    Raises:
        InvalidInput: a key that does not exist or no longer means anything, a value of the wrong type, two concepts.
    """
    reading = _Reading()
    try:
        plugs = reading.read("", mapping, keys.TOP)
        if ("metric" in plugs) == ("metrics" in plugs):
            raise InvalidInput("state either metric, a mapping, or metrics, a list of them")
        metrics = plugs.get("metrics", [plugs.get("metric")])
        if not isinstance(metrics, list):
            raise InvalidInput(
                f"metrics is a list of mappings with name and config, got {reprlib.repr(metrics)}"
            )
        technique = _technique(plugs.get("technique"), reading)
        reading.config |= {
            "technique": technique,
            "metrics": [_metric(metric, reading) for metric in metrics],
        }
        _share_labels(reading.config["metrics"])
        _agree(reading)
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None
    return {**reading.config, "notes": reading.notes}


@dataclass
class _Reading:
    """What has been understood so far."""

    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    concepts: dict[str, list[str]] = field(default_factory=dict)
    """Who states a concept -> its name, then other words for it."""

    def read(self, where: str, settings: Mapping[str, Any], table: Mapping[str, Key]) -> dict[str, Any]:
        """Put every setting in its place; return those that stay with their technique or metric."""
        own: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in table and (value is not None or name not in keys.GONE):
                gone = f"{name}: {keys.GONE[name]}" if name in keys.GONE else one_of("key", str(name), table)
                raise InvalidInput(where + gone)
            if value is None:  # as good as not stated, in eval-learn too
                continue
            key = table[name]
            try:
                new = key.convert(value)
                self._put(key.to, new, where, own)
            except InvalidInput as error:
                raise InvalidInput(f"{where}{name}: {error}") from None
            if key.why and new != value:
                here = "" if new is None else f"{key.to.rpartition('.')[2]}: {new} here, "
                self.note(f"{where}{name}: {value} is {here}{key.why}")
        return own

    def note(self, said: str) -> None:
        """Remember what the user should know, once."""
        if said not in self.notes:
            self.notes.append(said)

    def _put(self, to: str, value: Any, where: str, own: dict[str, Any]) -> None:
        first, _, rest = to.partition(".")
        if to == "concept":
            if self.concepts.setdefault(where, value) != value:
                raise InvalidInput(f"{value[0]!r}, but before it {self.concepts[where][0]!r}; state one")
        elif first == "unread":
            name = where.removesuffix(": ")
            self.note(where + keys.UNREAD[name])
        elif first == "automatic":
            self.note("batch_size and device of metrics are not needed: they are found automatically")
        elif first == "rows":
            source = self.config.setdefault("prompts", {}).setdefault(rest, {})
            if source.setdefault("limit", value) != value:
                source["limit"] = max(value, source["limit"])
                self.note(f"{where}metrics share the {rest} prompts: {source['limit']} rows for all of them")
        elif value is not None:
            place, path = (own, rest) if first == "own" else (self.config, to)
            *steps, last = path.split(".")
            for step in steps:
                place = place.setdefault(step, {})
            place[last] = value


def _plug(what: str, value: Any) -> tuple[str, dict[str, Any]]:
    plug = {"name": value} if isinstance(value, str) else value
    if not isinstance(plug, dict) or not isinstance(plug.get("name"), str):
        raise InvalidInput(f"{what} is a mapping with name and config, got {reprlib.repr(value)}")
    name = plug["name"].lower()
    for key in plug:
        if key not in ("name", "config"):
            raise InvalidInput(f"{name}: " + one_of("key", str(key), ("name", "config")))
    config = {} if plug.get("config") is None else plug["config"]
    if not isinstance(config, dict):
        raise InvalidInput(f"{name}: config is a mapping, got {reprlib.repr(config)}")
    return name, config


def _technique(value: Any, reading: _Reading) -> dict[str, Any]:
    name, settings = _plug("technique", value)
    stated = {key for key, setting in settings.items() if setting is not None}
    if name in keys.NEEDED and not stated & set(keys.NEEDED[name]):
        raise InvalidInput(f"{name}: state {' or '.join(keys.NEEDED[name])}")
    unstated = {key: default for key, default in keys.UNSTATED.get(name, {}).items() if key not in stated}
    if name not in keys.NEEDED and not stated & {"erase_concept", "concept"}:
        unstated["erase_concept"] = "nudity"
    if unstated:
        said = ", ".join(f"{key}: {default}" for key, default in unstated.items())
        reading.note(f"{name}: not stated, so as eval-learn's defaults: {said}")
    table = keys.TECHNIQUES.get(name, {key: Key(f"own.{key}") for key in settings if key not in keys.COMMON})
    own = reading.read(f"{name}: ", {**settings, **unstated}, {**keys.COMMON, **table})
    names = reading.concepts.get(f"{name}: ", [""])
    plug = {"name": "none" if name == "free_run" else name, "config": own}
    if name == "esd":
        _esd(own, names, reading)
    elif name == "sld":
        plug["preset"] = _sld(own, names, reading)
    elif name == "safree":
        if "lra_filter" in own and own.setdefault("lra", "high") != "off":
            own["lra"] = own["lra_filter"]
        own.pop("lra_filter", None)
        scales = [own.pop(key, default) for key, default in keys.LRA_SCALES.items()]
        own["lra_scales"] = scales
        own.setdefault("lra", "high")
        if "phrases" in own:  # whose threshold is not calibrated, says eval-learn
            own.setdefault("svf", "off")
    elif name == "ssd":
        plug["preset"] = "eval-learn"
    elif name == "cogfd":
        _cogfd(own, names)
    if len(names) > 1:
        reading.note(f"{name}: {', '.join(names)} are read as words for one concept, {names[0]!r}")
        if name in ("esd", "uce"):  # the others take all words of a concept
            own["phrases"] = True
    return plug


def _esd(own: dict[str, Any], names: list[str], reading: _Reading) -> None:
    if own.get("erase_from", "").strip().casefold() == names[0].strip().casefold():
        del own["erase_from"]
    if "erase_from" in own:  # there the guidance is not shifted
        return
    if own["eta"] < 1:
        raise InvalidInput(
            f"esd: negative_guidance: it is at least 1, where nothing is erased, got {own['eta']}"
        )
    reading.note(f"esd: negative_guidance: {own['eta']} is eta: {own['eta'] - 1} here, the paper's")
    own["eta"] -= 1


def _cogfd(own: dict[str, Any], names: list[str]) -> None:
    combinations, components = own.pop("combinations", []), own.pop("components", [])
    if combinations or components:
        parts = {component: {} for component in components}
        own["graph"] = {names[0]: {"entailment": combinations, **parts}}


def _sld(own: dict[str, Any], names: list[str], reading: _Reading) -> str:
    preset: str = own.pop("preset")
    if preset == "none":
        own |= {**keys.SLD_OFF, **own}
    if names[0].lower() in keys.SLD_CONCEPTS:
        own["text"] = "paper"
        reading.note(
            f"sld: steers away from the paper's nineteen words, as in eval-learn, not from {names[0]!r} alone"
        )
    return preset


def _metric(value: Any, reading: _Reading) -> dict[str, Any]:
    name, settings = _plug("a metric", value)
    if name not in keys.METRICS:
        return {"name": name, "config": settings}
    own = reading.read(f"{name}: ", settings, {**keys.METRICS[name], **keys.ANYWHERE})
    if name in keys.NOTES:
        reading.note(f"{name}: {keys.NOTES[name]}")
    if name.startswith("asr_"):
        own = _asr(name, own, reading)
    elif name == "err":
        own = _err(own)
    elif name == "ua_ira":
        own = _ua_ira(own, reading)
    return {"name": name, "config": own}


def _err(own: dict[str, Any]) -> dict[str, Any]:
    model = own.pop("model", None)
    return {**own, **({"classifier_settings": {"model": model}} if model else {})}


def _share_labels(metrics: list[dict[str, Any]]) -> None:
    """Let err choose among the labels of ua_ira: it rates the same retained rows, which have one label here."""
    plugs = {metric["name"]: metric["config"] for metric in metrics}
    labels = plugs.get("ua_ira", {}).get("classifier_settings", {}).get("labels")
    if labels and "err" in plugs:
        plugs["err"].setdefault("classifier_settings", {})["labels"] = labels


def _asr(name: str, own: dict[str, Any], reading: _Reading) -> dict[str, Any]:
    from unlearn_metrics.detectors.nudenet import CONCEPTS

    detector = own.pop("detector", "auto").lower()
    known = ["auto", "vlm", *registry.names("unlearn.detectors")]
    if detector not in known:
        raise InvalidInput(f"{name}: " + one_of("detector", detector, known))
    (concept, *_) = next(iter(reading.concepts.values()), ["nudity"])
    if detector == "nudenet" and concept.lower() not in CONCEPTS:
        raise InvalidInput(f"{name}: nudenet detects nudity, not {concept!r}; write detector: auto")
    settings = dict(keys.DETECTORS.get(detector, {"detector": detector}))
    for key, only in keys.DETECTOR_OF.items():
        if key in own and detector != only:
            reading.note(f"{name}: {key} is for the detector {only} and says nothing to {detector}")
        elif key == "clip_model_id" and key in own:
            settings["detector_settings"] = {**settings["detector_settings"], "model": own[key]}
        elif key in own and detector in ("q16", "vlm"):
            reading.note(f"{name}: {key}: {own[key]} is left aside, see detector")
        elif key in own:
            raise InvalidInput(
                f"{name}: {key}: write threshold, the confidence from which a picture counts, 0 to 1"
            )
        own.pop(key, None)
    if detector in keys.DETECTOR_NOTES:
        reading.note(f"{name}: detector {detector}: {keys.DETECTOR_NOTES[detector]}")
    return {**settings, **own}


def _ua_ira(own: dict[str, Any], reading: _Reading) -> dict[str, Any]:
    prompts = reading.config.get("prompts", {})
    stated = {
        f"{group}_{word}": prompts.get(group, {}).get(key)
        for word, key in (("prompts_path", "source"), ("concept", "label"))
        for group in ("target", "retain")
    }
    missing = [key for key, found in stated.items() if found is None]
    if 0 < len(missing) < len(stated):
        raise InvalidInput(f"ua_ira: state {' and '.join(missing)} as well")
    settings: dict[str, Any] = {}
    if not missing:
        # Of two labels one must be the answer: a picture of neither would count as one of them.
        target, retain = stated["target_concept"], stated["retain_concept"]
        settings = {"labels": {"concept": [target, retain, "noise"]}, "template": "image of {}"}
        reading.note(
            f"ua_ira: CLIP chooses among {target!r}, {retain!r} and noise; in eval-learn of the first two"
        )
    settings |= {"model": own["model"]} if "model" in own else {}
    return {"classifier": "clip", "classifier_settings": settings} if settings else {}


def _agree(reading: _Reading) -> None:
    """Set the one concept that technique and metrics speak of."""
    for who, names in reading.concepts.items():
        first, known = next(iter(reading.concepts.items()))
        if names[0].casefold() not in map(str.casefold, known):
            raise InvalidInput(
                f"{who}concept {names[0]!r}, but {first}concept {known[0]!r}; a run forgets and rates the same one"
            )
    if reading.concepts:
        (name, *phrases) = next(iter(reading.concepts.values()))
        more = {"phrases": phrases} if phrases else {}
        reading.config["concept"] = {**reading.config.get("concept", {}), "name": name, **more}
