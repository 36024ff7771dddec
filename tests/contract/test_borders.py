"""The arrows between the folders, read from the imports in the code."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

# A folder and what its modules must not import.
FORBIDDEN = {
    "app": ("training", "benchmarks", "tests"),
    "app/checkpoints": ("app.main", "app.server", "app.operations", "app.api", "app.inference", "app.images"),
    "app/inference": ("app.main", "app.server", "app.operations", "app.api"),
    "app/images": ("app.main", "app.server", "app.operations", "app.api", "app.inference", "app.checkpoints"),
    "app/api": ("app.main", "app.server", "app.operations"),
    "app/operations": ("app.main", "app.server", "app.dataset"),
    "app/dataset": ("app.main", "app.server", "app.operations", "app.api"),
    "app/open_inference": ("app.main", "app.server", "app.operations"),
    # The data plane serves HTTP and gRPC alike.
    "app/open_inference/dataplane.py": ("fastapi", "starlette", "grpc", "app.api"),
    "app/open_inference/servable.py": ("fastapi", "starlette", "grpc", "app.api"),
    "training": ("app.main", "app.server", "app.operations", "app.api", "app.inference", "app.images", "benchmarks"),
}
# The checkpoint format is behind these.
TORCHSCRIPT = ("app/inference/runtime.py", "training/archive.py")


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Each file below a folder with each `module` and `module.name` that it imports."""
    for path in [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py")):
        file = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} has a relative import"
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_nothing_against_the_arrows(folder):
    against = [each for each in imported(folder) if any(within(each[1], part) for part in FORBIDDEN[folder])]
    assert against == []


def test_torchscript_is_used_only_where_checkpoints_are_made_and_run():
    files = [path for folder in ("app", "training") for path in (ROOT / folder).rglob("*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if "torch.jit" in path.read_text()}
    assert {user for user in users if not user.startswith(TORCHSCRIPT)} == set()


def test_importing_the_service_loads_no_training_library_starts_no_thread_and_reads_no_setting():
    script = """
import os, sys, threading
os.environ["DIGITS_PORT"] = "nonsense"
import app.main, app.__main__
print(threading.active_count(), *sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    threads, *modules = done.stdout.split()
    assert threads == "1"
    assert {"torch", "fastapi"} <= set(modules)
    # Not tqdm: torch imports it where it is installed.
    assert not {"training", "torchvision", "torch_fidelity", "matplotlib", "pytest", "httpx"} & set(modules)
    # Extras of the service. Not opentelemetry: FastAPI imports it where it is installed.
    assert not {"grpc", "google", "pyarrow", "ray"} & set(modules)
