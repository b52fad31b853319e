"""Scoring a table must not need what drawing pictures needs."""

import json
import subprocess
import sys

CODE = """
import importlib, json, pkgutil, sys
import genmu_eval
names = [m.name for m in pkgutil.iter_modules(genmu_eval.__path__)]
for name in names:
    importlib.import_module(f"genmu_eval.{name}")
print(json.dumps([names, sorted({m.partition(".")[0] for m in sys.modules})]))
"""


def test_nothing_heavy_is_imported():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    names, loaded = json.loads(done.stdout)
    assert {"err", "tie_break", "submission", "lint", "continual"} <= set(names)
    heavy = {
        "torch",
        "pandas",
        "scipy",
        "safetensors",
        "diffusers",
        "transformers",
        "huggingface_hub",
        "PIL",
        "pydantic",
    }
    assert not heavy & set(loaded)
