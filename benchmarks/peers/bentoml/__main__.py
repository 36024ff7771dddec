"""Starts BentoML as its own command does."""

import os
import sys
from pathlib import Path

from benchmarks.peers import rows

if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    command = Path(sys.executable).parent / "bentoml"
    service = "benchmarks.peers.bentoml.service:Digits"
    os.execv(command, ["bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(rows.port()), "-q"])  # noqa: S606
