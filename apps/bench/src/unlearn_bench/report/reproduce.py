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
    command = f"bench run --config {shlex.quote(name)}" if config else klom_command(record.spec)
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


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    git = found.get("git")
    commit = (
        "not in a checkout" if not git else git["commit"] + (" (with local changes)" if git["dirty"] else "")
    )
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    shown = {"device": found.get("device"), "commit": commit, "python": found.get("python"), "packages": packages,
             "platform": found.get("platform"), "processors": found.get("cpus")}  # fmt: skip
    return {name: str(value) for name, value in shown.items() if value}
