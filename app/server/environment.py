"""What must be set before libraries are imported: threads, the directory of metrics, the number of processes."""

import os
import tempfile
from pathlib import Path

from app.server.descriptors import raise_limit
from app.settings import Settings

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- a directory with an unpredictable name is made in it


def prepare(settings: Settings) -> int:
    """Prepare this process and those forked from it, and return the number of processes that will serve.

    Raises TooFewDescriptors.
    """
    raise_limit(settings.max_connections)
    # Batches are computed side by side, each on one thread; libraries would start one a core in each process.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from app.inference.machine import default_processes  # noqa: PLC0415 -- imports PyTorch

    processes = settings.processes or default_processes(settings.device)
    if processes > 1:
        folder = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        # prometheus-client reads it when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="digits-", dir=folder)
    return processes
