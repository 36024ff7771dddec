"""The faults that are injected into a running service, all from outside of its processes. Linux only.

A network that fails is an archive that fails on marked latents (`faulty`). The others are signals, files, resource
limits, and libfaketime.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faulty import HANG, NAN, RAISE, write_faulty
from benchmarks.load_generator import post
from benchmarks.paths import ROOT, SCRATCH, SHIPPED
from benchmarks.processes import Service

MODELS = SCRATCH / "faults" / "models"
DISK = SCRATCH / "faults" / "disk"
CLOCK = SCRATCH / "faults" / "clock"
FAKETIME = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1")
HEADROOM_BYTES = 8 * 2**20

Action = Callable[[Service], object]


@dataclass(frozen=True)
class Fault:
    """An injection, and what is promised of it.

    marked: requests sent beside the load, built from the model's latent_dim. marked_results: the results they may
    have; the first must occur. ends: the exit status; None where the process goes on. may_crash: it may also lose its
    process or connections, or have no effect. loses: requests may end without an answer. new_bytes: a seed gives
    other bytes afterwards. missing: why the fault cannot be injected on this machine.
    """

    name: str
    inject: Action = lambda _: None
    undo: Action = lambda _: None
    after_s: float = 2.0
    seconds: float = 6.0
    marked: Callable[[int], bytes] | None = None
    marked_results: tuple[str, ...] = ()
    moves_clock: bool = False
    ends: int | None = None
    may_crash: bool = False
    loses: bool = False
    new_bytes: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    command: Sequence[str] = (sys.executable, "-m", "app")
    missing: str | None = None


def prepare() -> None:
    """Write the faulty checkpoint, the mount point of the full disk and the offset of the clock."""
    for folder in (MODELS, DISK):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    write_faulty(SHIPPED / "gan", MODELS / "gan")
    CLOCK.write_text("+0")


def swap_checkpoint(service: Service) -> None:
    """Replace the checkpoint by the shipped one of the same name, and reload."""
    shutil.rmtree(service.models / "gan")
    shutil.copytree(SHIPPED / "gan", service.models / "gan")
    service.signal(signal.SIGHUP)


def truncate_checkpoint(service: Service) -> None:
    """Cut the archive in half, and reload."""
    (archive,) = (service.models / "gan").glob("*.pt")
    os.truncate(archive, archive.stat().st_size // 2)
    service.signal(signal.SIGHUP)


def fill_disk(service: Service) -> None:
    """Fill the disk of the log, the working directory and the temporary files."""
    with Path(f"/proc/{service.pid}/root{DISK}/filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


def limit_memory(service: Service) -> None:
    """Limit the address space to what is used and 8 MiB: enough for a stack, too little for a large answer."""
    for pid in service.processes:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def unlimit_memory(service: Service) -> None:
    """Remove the limit."""
    for pid in service.processes:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def send(number: int) -> Action:
    """Send a signal to the supervisor."""
    return lambda service: service.signal(number)


def send_to_all(number: int) -> Action:
    """Send a signal to the supervisor and all processes."""
    return lambda service: os.killpg(service.pid, number)


def send_to_one(number: int) -> Action:
    """Send a signal to one of the processes."""
    return lambda service: os.kill(service.processes[0], number)


def marked(mark: float) -> Callable[[int], bytes]:
    """Requests for one image of a marked latent."""
    return lambda width: post(
        "/generate", json.dumps({"model": "gan", "latents": [[mark] + [0.0] * (width - 1)]}).encode()
    )


def large_answer(_: int) -> bytes:
    """A request whose answer needs tens of megabytes."""
    return post("/interpolate", b'{"model":"gan","steps":256,"scale":9}', accept="image/png")


def full_disk() -> Fault:
    """A small file system of its own, mounted in a namespace of the process."""
    mounted = ("unshare", "--mount", "sh", "-c")
    probe = subprocess.run([*mounted, f"mount -t tmpfs none {DISK}"], capture_output=True, check=False)
    start = f"mount -t tmpfs -o size=1m none {DISK} && cd {DISK} && exec {sys.executable} -m app 2>{DISK}/log"
    return Fault(
        "full disk",
        fill_disk,
        environment={"TMPDIR": str(DISK), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        command=(*mounted, start),
        missing=None if probe.returncode == 0 else "mounting a tmpfs needs root",
    )


def clock(name: str, offset: str) -> Fault:
    """Move the wall clock of the process by libfaketime."""
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(CLOCK),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DIGITS_PROCESSES": "1",  # Python's time.sleep, on which gunicorn waits, fails under libfaketime
    }
    return Fault(
        name,
        lambda _: CLOCK.write_text(offset),
        lambda _: CLOCK.write_text("+0"),
        moves_clock=True,
        after_s=4,
        environment=environment,
        missing=None if FAKETIME.exists() else "libfaketime is not installed: apt-get install libfaketime",
    )


def faults() -> list[Fault]:
    """The rows of the matrix."""
    return [
        Fault("a process killed", send_to_one(signal.SIGKILL), loses=True),
        Fault("a process stopped", send_to_one(signal.SIGSTOP), loses=True, seconds=18),
        Fault("the supervisor killed", send(signal.SIGKILL), ends=-signal.SIGKILL, loses=True, seconds=8),
        Fault("all stopped, for 2 s", send_to_all(signal.SIGSTOP), send_to_all(signal.SIGCONT)),
        Fault("SIGTERM", send(signal.SIGTERM), ends=0),
        full_disk(),
        Fault(
            "memory cap",
            limit_memory,
            unlimit_memory,
            marked=large_answer,
            marked_results=("503", "200"),
            may_crash=True,
        ),
        Fault("checkpoint swapped, SIGHUP", swap_checkpoint, new_bytes=True),
        Fault("checkpoint truncated, SIGHUP", truncate_checkpoint),
        Fault("forward raises", marked=marked(RAISE), marked_results=("500", "503")),
        Fault("forward gives NaN", marked=marked(NAN), marked_results=("500", "503")),
        Fault("forward hangs", marked=marked(HANG), marked_results=("503",), seconds=18),
        clock("clock + 1 day", "+1d"),
        clock("clock - 1 day", "-1d"),
    ]
