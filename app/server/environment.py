"""What a process does before libraries are imported: streams, signals, settings, address, threads; and its exit.

Only the standard library is imported at the top, so that signals are handled from the first milliseconds.
"""

import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from app.server.descriptors import BACKLOG, TooFewDescriptors, open_standard_streams, raise_limit

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- a directory with an unpredictable name is made in it
METRICS_PREFIX = "digits-metrics-"


class CannotListen(Exception):
    """Nothing can listen at the address of the settings."""


class ExtraMissing(Exception):
    """A setting needs packages that are not installed."""


class NothingShared(Exception):
    """There is no folder in which the processes could share their metrics."""


def initialize_process() -> None:
    """The first step of a process, before it imports libraries.

    It opens the standard streams, lets signals end the process with status 0 until the server handles them, and limits
    numerical libraries to one thread.
    """
    open_standard_streams()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exit_process(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Each batch is computed on one thread; NumPy and PyTorch would start one per core in each process.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # MKL would keep 5 MB of buffers for each thread.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def prepare_service(*, supervised: bool = False) -> "tuple[Settings, socket.socket, int]":
    """Prepare this process to serve, and return the settings, the listening socket and the number of processes.

    supervised: whether a single process has a supervisor, too.
    Raises SystemExit after printing or logging the cause: with status 2 for bad settings, else 1.
    """
    from app import logs  # noqa: PLC0415
    from app.checkpoints.store import CheckpointError, check_files  # noqa: PLC0415
    from app.settings import BadSettings, read_settings, unknown_variables  # noqa: PLC0415

    try:
        settings = read_settings()
    except BadSettings as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    logs.configure(settings.log_level)
    if unknown := unknown_variables(os.environ):
        log.warning("not settings of this service, and ignored: %s", ", ".join(unknown))
    try:
        check_files(settings.models_dir, settings.models)
        listener = listen(settings)
        check_grpc(settings)
        return settings, listener, prepare_processes(settings, supervised=supervised)
    except (CheckpointError, CannotListen, ExtraMissing, TooFewDescriptors, NothingShared) as error:
        log.error("cannot start: %s", error)
        raise SystemExit(1) from None


def listen(settings: "Settings") -> socket.socket:
    """The listening socket. Raises CannotListen."""
    return listen_at(settings.host, settings.port, "DIGITS_PORT")


def listen_at(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket at a port that a setting names. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"nothing can listen at DIGITS_HOST={host} {setting}={port}: {error}") from error


def check_grpc(settings: "Settings") -> None:
    """Raises ExtraMissing or CannotListen if gRPC is to be served and cannot be.

    The processes listen by themselves and share the port. Without this check, they could share it with another service.
    """
    if settings.grpc_port is None:
        return
    try:
        version("grpcio"), version("protobuf")
    except PackageNotFoundError:
        raise ExtraMissing("DIGITS_GRPC_PORT needs the extra grpc: pip install '.[grpc]'") from None
    listen_at(settings.host, settings.grpc_port, "DIGITS_GRPC_PORT").close()


def prepare_processes(settings: "Settings", *, supervised: bool = False) -> int:
    """Prepare this process and those forked from it, and return the number of processes that will serve.

    Raises TooFewDescriptors and NothingShared.
    """
    raise_limit(settings.max_connections)
    from app.inference.machine import default_processes  # noqa: PLC0415 -- imports PyTorch

    processes = settings.processes or default_processes(settings.device)
    if processes > 1 or supervised:
        try:
            parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
            remove_stale_metrics(parent)
            # prometheus-client reads it when it is imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(make_metrics_folder(parent))
        except OSError as error:
            raise NothingShared(
                f"processes cannot share metrics: {error}; DIGITS_PROCESSES=1 serves without"
            ) from error
    return processes


def make_metrics_folder(parent: Path) -> Path:
    """Make a folder for the metrics of the processes, locked while this process or one forked from it lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=METRICS_PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # another service removed it as stale before it was locked
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder
            os.close(descriptor)


def remove_stale_metrics(parent: Path) -> None:
    """Remove the folders that no process has locked: those of services whose processes were all killed."""
    for folder in parent.glob(f"{METRICS_PREFIX}*"):
        with suppress(OSError):  # another user's, locked, or just removed
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def exit_process(status: int) -> NoReturn:
    """Exit without waiting for threads: one that hangs in native code would keep the process alive."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
