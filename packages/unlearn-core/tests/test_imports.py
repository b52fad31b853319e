import json
import pkgutil
import subprocess
import sys

import unlearn_core

HEAVY = ("torch", "numpy", "pydantic", "PIL", "pyarrow", "huggingface_hub", "pandas", "datasets", "requests")


def test_only_the_record_pulls_in_anything_and_never_torch_or_numpy():
    names = sorted(m.name for m in pkgutil.iter_modules(unlearn_core.__path__))
    assert {"record", "prompts", "samples", "score", "concept", "protocols", "registry"} <= set(names)
    code = (
        "import importlib, json, sys\n"
        "names, heavy = json.loads(sys.argv[1])\n"
        "loaded = {}\n"
        "for name in ['', *names]:\n"
        "    importlib.import_module('unlearn_core' + ('.' + name if name else ''))\n"
        "    loaded[name] = [m for m in heavy if m in sys.modules]\n"
        "print(json.dumps(loaded))\n"
    )
    order = [name for name in names if name != "record"] + ["record"]
    command = [sys.executable, "-c", code, json.dumps([order, HEAVY])]
    loaded = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert loaded.pop("record") == ["pydantic"]
    assert set(loaded) == {"", *names} - {"record"}
    assert not any(loaded.values()), loaded
