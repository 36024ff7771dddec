"""What is done to a running service: the faults of the matrix, from outside of it. Linux only. Knows no load.

Faults of the network are archives that fail on marked latents (`faulty`); a worker ends by an exception that a
`sitecustomize` on the Python path throws into its thread at SIGUSR1. The app itself knows nothing of any of this.
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
from benchmarks.openloop import post
from benchmarks.places import ROOT, SCRATCH
from benchmarks.supervised import Supervised

MODELS = SCRATCH / "faults" / "models"
DISK = SCRATCH / "faults" / "disk"
SITE = SCRATCH / "faults" / "site"
CLOCK = SCRATCH / "faults" / "clock"
FAKETIME = "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1"

HEADROOM_BYTES = 8 * 2**20

SITECUSTOMIZE = """
import ctypes, signal, threading

def end_a_worker(*_):
    for thread in threading.enumerate():
        if thread.name == "inference_0":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))

signal.signal(signal.SIGUSR1, end_a_worker)
"""

Deed = Callable[[Supervised], object]


@dataclass(frozen=True)
class Fault:
    """What is done, and what is promised of it.

    beside: what is asked beside the load, by the model's latent_dim. beside_came_to: the statuses that it may come to,
    the first one at least once.
    ends: the exit status promised, None where the process goes on. may_crash: whether it may also be ended by a
    signal of its own native code or for want of a worker, or lose connections, or get by.
    loses: whether requests may end without an answer. other: whether answers change for good.
    """

    name: str
    do: Deed = lambda _: None
    undo: Deed = lambda _: None
    after_s: float = 2.0
    seconds: float = 6.0
    beside: Callable[[int], bytes] | None = None
    beside_came_to: tuple[str, ...] = ()
    moves_clock: bool = False
    ends: int | None = None
    may_crash: bool = False
    loses: bool = False
    other: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    command: Sequence[str] = (sys.executable, "-m", "app")
    missing: str | None = None


def prepare() -> None:
    """The models that fail on demand, a full disk's mount point, and what is put into the Python path."""
    for folder in (MODELS, DISK, SITE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    write_faulty(ROOT / "models" / "gan", MODELS / "gan")
    (SITE / "sitecustomize.py").write_text(SITECUSTOMIZE)
    CLOCK.write_text("+0")


def swap(service: Supervised) -> None:
    """Another checkpoint of the same name, and the signal to load it."""
    shutil.rmtree(service.models / "gan")
    shutil.copytree(ROOT / "models" / "gan", service.models / "gan")
    service.signal(signal.SIGHUP)


def truncate(service: Supervised) -> None:
    """Half an archive, and the signal to load it."""
    archive = service.models / "gan" / "faulty.pt"
    os.truncate(archive, archive.stat().st_size // 2)
    service.signal(signal.SIGHUP)


def fill(service: Supervised) -> None:
    """Not a byte left where the process keeps its log, its working directory and its temporary files."""
    folder = Path(f"/proc/{service.pid}/root{DISK}")
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


def cap(service: Supervised) -> None:
    """Little address space beyond what the process has: enough for a stack to grow, too little for a large answer."""
    pages = int(Path(f"/proc/{service.pid}/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM_BYTES
    resource.prlimit(service.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def uncap(service: Supervised) -> None:
    """As much as there is."""
    resource.prlimit(service.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def clock(offset: str) -> Deed:
    """The wall clock of this one process, by libfaketime, so far from the true one."""
    return lambda _: CLOCK.write_text(offset)


def marked(mark: float) -> Callable[[int], bytes]:
    """Requests for one image of a latent that is marked."""
    return lambda width: post(
        "/generate", json.dumps({"model": "gan", "latents": [[mark] + [0.0] * (width - 1)]}).encode()
    )


def large(_: int) -> bytes:
    """A request whose answer takes tens of megabytes to make."""
    return post("/interpolate", b'{"model":"gan","steps":256,"scale":9}', accept="image/png")


def send(number: int) -> Deed:
    """A signal."""
    return lambda service: service.signal(number)


def faults() -> list[Fault]:
    """The rows of the matrix."""
    library = FAKETIME.format(os.uname().machine)
    fake = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(CLOCK),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    no_clock = None if Path(library).exists() else "libfaketime is not installed: apt-get install libfaketime"
    mounted = ("unshare", "--mount", "sh", "-c")
    inside = f"mount -t tmpfs -o size=1m none {DISK} && cd {DISK} && exec {sys.executable} -m app 2>{DISK}/log"
    can = subprocess.run([*mounted, f"mount -t tmpfs none {DISK}"], capture_output=True, check=False).returncode == 0
    on_disk = {"TMPDIR": str(DISK), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return [
        Fault("kill -9", send(signal.SIGKILL), ends=-signal.SIGKILL, loses=True, seconds=8),
        Fault("SIGSTOP, SIGCONT after 2 s", send(signal.SIGSTOP), send(signal.SIGCONT)),
        Fault("SIGTERM", send(signal.SIGTERM), ends=0),
        Fault(
            "full disk",
            fill,
            environment=on_disk,
            command=(*mounted, inside),
            missing=None if can else "a tmpfs cannot be mounted here",
        ),
        Fault("memory cap", cap, uncap, beside=large, beside_came_to=("503", "200"), may_crash=True),
        Fault("checkpoint swapped, SIGHUP", swap, other=True),
        Fault("checkpoint truncated, SIGHUP", truncate),
        Fault("forward raises", beside=marked(RAISE), beside_came_to=("500", "503")),
        Fault("forward gives NaN", beside=marked(NAN), beside_came_to=("500", "503")),
        Fault("forward hangs", beside=marked(HANG), beside_came_to=("503",), ends=1, seconds=18),
        Fault("worker exits", send(signal.SIGUSR1), ends=1, seconds=8, environment={"PYTHONPATH": str(SITE)}),
        Fault(
            "clock + 1 day", clock("+1d"), clock("+0"), moves_clock=True, after_s=4, environment=fake, missing=no_clock
        ),
        Fault(
            "clock - 1 day", clock("-1d"), clock("+0"), moves_clock=True, after_s=4, environment=fake, missing=no_clock
        ),
    ]
