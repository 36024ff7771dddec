"""A virtual environment a peer, which takes torch and numpy from the project's own."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.places import ENVIRONMENTS
from benchmarks.servers import Server


def python_of(server: Server) -> Path:
    """The interpreter that runs a server; made on the first call, and again when its requirements change."""
    requirements = server.folder / "requirements.txt"
    if not requirements.exists():
        return Path(sys.executable)
    folder = ENVIRONMENTS / server.name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {server.name} into {folder.name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    _share_packages(folder)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
    stamp.write_text(wanted)
    return python


def _share_packages(folder: Path) -> None:
    # Sorted last and after the environment's own packages, which go first where both have one.
    paths = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", paths))
    (own / "zz_project.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
