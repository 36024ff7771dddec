"""The start of a process before libraries are imported: address, threads, metrics, number of processes; and its end."""

import logging
import os
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from app.server.descriptors import BACKLOG, raise_limit
from app.settings import Settings

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- a directory with an unpredictable name is made in it


class CannotListen(Exception):
    """Nothing can listen at the address of the settings."""


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        address = f"DIGITS_HOST={settings.host} DIGITS_PORT={settings.port}"
        raise CannotListen(f"nothing can listen at {address}: {error}") from error


def prepare(settings: Settings) -> int:
    """Prepare this process and those forked from it, and return the number of processes that will serve.

    Raises TooFewDescriptors.
    """
    raise_limit(settings.max_connections)
    # Batches are computed side by side, each on one thread; libraries would start one a core in each process.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # MKL would keep 5 MB of buffers for each thread.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    from app.inference.machine import default_processes  # noqa: PLC0415 -- imports PyTorch

    processes = settings.processes or default_processes(settings.device)
    if processes > 1:
        folder = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        # prometheus-client reads it when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="digits-", dir=folder)
    return processes


def leave(status: int) -> NoReturn:
    """End the process without waiting for its threads: one that hangs in native code would keep it for ever."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
