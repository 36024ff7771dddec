"""Which part may know which: the arrows of the design, read from the code's own imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Every module of a part may import only these parts of `app`; its own part is always allowed.
ALLOWED = {
    "app.errors": set(),
    "app.settings": set(),
    "app.metrics": set(),
    "app.images": {"app.errors"},
    "app.inference.latents": set(),
    "app.inference.batching": {"app.errors"},
    "app.inference.workers": set(),
    "app.inference.admission": {"app.errors"},
    "app.inference.faults": {"app.errors", "app.inference.batching"},
    "app.inference.allocator": set(),
    "app.inference.machine": {"app.images.png", "app.inference.latents"},
    "app.inference.cuda": set(),
    "app.inference.sampling": {
        "app.checkpoints.manifest",
        "app.errors",
        "app.inference.latents",
        "app.inference.runtime",
    },
    "app.inference.stages": {
        "app.checkpoints.manifest",
        "app.checkpoints.store",
        "app.inference.runtime",
    },
    "app.inference.walks": {
        "app.checkpoints.manifest",
        "app.errors",
        "app.inference.latents",
        "app.inference.runtime",
        "app.inference.sampling",
    },
    "app.inference.runtime": {
        "app.checkpoints.manifest",
        "app.errors",
        "app.inference.cuda",
        "app.inference.faults",
        "app.inference.machine",
    },
    "app.checkpoints.manifest": set(),
    "app.checkpoints.checks": {"app.checkpoints.manifest", "app.errors", "app.inference.runtime"},
    "app.checkpoints.store": {
        "app.checkpoints.checks",
        "app.checkpoints.manifest",
        "app.errors",
        "app.inference.faults",
        "app.inference.runtime",
    },
    "app.inference.engine": {
        "app.checkpoints",
        "app.errors",
        "app.inference.admission",
        "app.inference.batching",
        "app.inference.faults",
        "app.inference.latents",
        "app.inference.runtime",
        "app.inference.sampling",
        "app.inference.stages",
        "app.inference.workers",
        "app.metrics",
        "app.settings",
    },
    "app.calibrate": {"app.checkpoints.store", "app.inference.latents", "app.inference.runtime", "app.settings"},
    "app.readiness": {"app.errors", "app.inference.engine"},
    "app.loading": {
        "app.checkpoints.store",
        "app.errors",
        "app.inference",
        "app.metrics",
        "app.readiness",
        "app.settings",
    },
    "app.server": {"app.descriptors", "app.main", "app.protocol", "app.readiness", "app.settings"},
    "app.api": {"app"},
    "app.main": {"app"},
    "app.descriptors": set(),
    "app.heads": set(),
    "app.logs": set(),
    "app.refusals": {"app.api.middleware", "app.errors"},
    "app.outlet": set(),
    "app.backlog": set(),
    "app.protocol": {
        "app.api.admission",
        "app.api.middleware",
        "app.backlog",
        "app.heads",
        "app.outlet",
        "app.refusals",
    },
    "app.__main__": {"app"},
    "training": {"app.checkpoints"},
}
TORCHSCRIPT = {"app/inference/runtime.py", "training/archive.py"}


def modules() -> Iterator[tuple[str, Path]]:
    for folder in ("app", "training"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, as `module` or `module.name`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"app", "benchmarks", "training"}}


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@pytest.mark.parametrize(("module", "path"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_a_module_imports_only_what_its_place_allows(module, path):
    places = [place for place in ALLOWED if within(module, place)]
    if not places:  # a package's __init__ that holds a docstring
        assert imports(path) == set()
        return
    place = max(places, key=len)
    for name in imports(path):
        allowed = within(name, place) or any(within(name, part) for part in ALLOWED[place])
        assert allowed, f"{module} imports {name}"


def test_torchscript_is_named_only_where_checkpoints_are_made_and_run():
    named = {str(path.relative_to(ROOT)) for _, path in modules() if "torch.jit" in path.read_text()}
    assert {name for name in named if not any(name.startswith(place) for place in TORCHSCRIPT)} == set()


def test_serving_imports_nothing_that_only_training_needs():
    script = "import sys, app.main, app.__main__; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert {"torch", "fastapi"} <= loaded
    # not tqdm: torch itself imports it where it is installed
    assert not loaded & {"training", "torchvision", "torch_fidelity", "matplotlib", "pytest", "httpx"}


def test_importing_the_app_starts_no_thread_and_reads_no_setting():
    script = (
        "import os, threading; os.environ['DIGITS_PORT'] = 'nonsense'; "
        "import app.main, app.__main__; print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1"
