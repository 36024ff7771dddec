"""A virtual environment for each peer, which takes torch and numpy from the project's own."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.paths import WORK


def python_of(peer: Path) -> Path:
    """The interpreter of a peer, a folder; its environment is made once, and again when its requirements change."""
    requirements = peer / "requirements.txt"
    folder = WORK / "env" / peer.name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {peer.name} into {folder.name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # The path file sorts last: packages of the peer's own environment come first where both have one.
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    (own / "zz_project.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
    stamp.write_text(wanted)
    return python
