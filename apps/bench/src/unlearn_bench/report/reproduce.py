"""How a row was made, so that it can be made again: command, configuration, environment, cost."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from unlearn_core.record import RunRecord


def row(record: RunRecord) -> dict[str, Any]:
    """Return command, configuration file (name and text, None without one), environment and cost of a run."""
    config = configuration(record.spec) if record.kind == "sd" else None
    name = f"{record.spec.get('technique', record.kind)}-{record.run_id}.json"
    if config:
        command = f"bench run --config {shlex.quote(name)}"
    elif record.kind == "klom":
        command = klom_command(record.spec)
    else:
        command = genmu_command(record.spec, record.environment.get("asked") or {})
    return {
        "command": command,
        "config": None if config is None else json.dumps(config, indent=1, ensure_ascii=False),
        "config_name": name,
        "typed": record.environment.get("command"),
        "environment": _environment(record.environment),
        "stages": {
            stage: f"{cost.seconds:.1f} s, {cost.peak_memory:.0f} MiB"
            + (f", {cost.peak_device_memory:.0f} MiB on the device" if cost.peak_device_memory else "")
            for stage, cost in record.stages.items()
        },
        "run_id": record.run_id,
        "created": f"{record.created:%Y-%m-%d %H:%M} UTC",
        "notes": record.notes,
        "files": record.files,
    }


def configuration(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of `bench run` whose run has this spec.

    Prompts of the model's world are named by their number, those of the Hub by id and commit; where they came from a
    file, its name is all that a record has, and the fingerprint in the spec says whether it is the same.
    """
    chain = spec["technique"].split("+")
    config = spec["config"] if len(chain) > 1 else {chain[0]: spec["config"]}
    prompts = {}
    for group, rows in spec["prompts"].items():
        prompts[group] = {"limit": rows["rows"]}
        if rows["revision"]:
            prompts[group]["source"] = f"{rows['name']}@{rows['revision']}"
    concept = {key: value for key, value in spec["concept"].items() if value not in ("", [])}
    return {
        "technique": [{"name": name, "preset": "none", "config": config[name]} for name in chain],
        "concept": concept,
        "model": spec["model"],
        "sampler": {key: value for key, value in spec["sampler"].items() if value is not None},
        "metrics": [{"name": name, "config": settings} for name, settings in spec["metrics"].items()],
        "prompts": prompts,
        "seed": spec["seed"],
        "dtype": spec["dtype"],
    }


def klom_command(spec: Mapping[str, Any]) -> str:
    """Return the command whose run has this spec."""
    words = ["bench", "klom", "run", "--method", spec["method"], "--dataset", spec["dataset"]["name"]]
    words += [
        "--forget-set",
        spec["forget_set"],
        "--n-models",
        spec["n_models"],
        "--variant",
        spec["variant"],
    ]
    words += ["--seed", spec["seed"]]
    if spec["config"]:
        words += ["--preset", "published"]
        for name, value in spec["config"].items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["--set", f"{name}={text}"]
    return shlex.join(str(word) for word in words)


def genmu_command(spec: Mapping[str, Any], asked: Mapping[str, int | None]) -> str:
    """Return the command whose run, or evaluation of a SUBMISSION whose folder no record knows, has this spec.

    Settings are given where they are the same for all targets.

    Args:
        spec: of a Genμ record.
        asked: "images" and "limit", as far as the user stated them.
    """
    anew = "submission" in spec
    words = ["bench", "genmu", *(["evaluate", "--submission", "SUBMISSION"] if anew else ["run"])]
    words += ["--model", spec["model"], "--concepts", ",".join(one["name"] for one in spec["concepts"])]
    for name, value in {"steps": spec["sampler"].get("steps"), **asked}.items():
        words += [] if value is None else [f"--{name}", value]
    words += [*_judges(spec["judge"]), "--dtype", spec["dtype"]]
    if known := spec.get("calibration"):
        words += ["--sensitivity", f"{known['seen']}/{known['with_concept']}"]
        words += ["--specificity", f"{known['clear']}/{known['without_concept']}"]
    words += ["--pictures"] if spec.get("source") == "pictures" else []
    if not anew:
        words += ["--strategy", spec["strategy"], "--technique", spec["technique"], "--seed", spec["seed"]]
        for order in spec["orders"] if spec["strategy"] == "continual" else ():
            words += ["--order", ",".join(order)]
        chain, config = spec["technique"].split("+"), spec["config"]
        if config.keys() == set(chain):
            words += ["--preset", "none"] if len(chain) == 1 else []
            for name, settings in config.items():
                words += _assignments("--set", f"{name}." if len(chain) > 1 else "", settings)
    return shlex.join(str(word) for word in words)


def _judges(found: Mapping[str, Any]) -> list[str]:
    panel = found.get("panel") or [found]
    words = ["--judge", ",".join(one["name"] for one in panel)]
    for one in panel:
        start = f"{one['name']}." if len(panel) > 1 else ""
        words += _assignments("--judge-set", start, one.get("settings") or {})
    return words


def _assignments(option: str, start: str, settings: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in settings.items():
        found += [option, f"{start}{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return found


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    git = found.get("git")
    commit = (
        "not in a checkout" if not git else git["commit"] + (" (with local changes)" if git["dirty"] else "")
    )
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    shown = {"device": found.get("device"), "commit": commit, "python": found.get("python"), "packages": packages,
             "platform": found.get("platform"), "processors": found.get("cpus")}  # fmt: skip
    return {name: str(value) for name, value in shown.items() if value}
