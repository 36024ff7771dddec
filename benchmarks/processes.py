"""Servers as subprocesses: started, polled until ready, and ended with all their processes. Linux only."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Self

from benchmarks.paths import LOGS, ROOT

START_S, END_S = 120, 30
TICK_S = 0.05
PR_SET_CHILD_SUBREAPER = 36


class ServerFailed(Exception):
    """A server did not start, or its processes or ports remain."""


@dataclass
class Exit:
    """When the process ended (monotonic seconds), and its status; a negative one is a signal."""

    at: float
    status: int


class ServerProcess:
    """A server process, which answers on the first of its ports of the loopback interface.

    restart: start it again, as a process supervisor would, after an exit with a status other than 0.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        ports: list[int],
        ready: str,
        log: str,
        *,
        restart: bool = False,
    ) -> None:
        self.port = ports[0]
        self.exits: list[Exit] = []
        self._command = command
        self._environment = environment
        self._ready = ready
        self._log = LOGS / f"{log}.log"
        self._restart = restart
        self._ending = False

    def __enter__(self) -> Self:
        """Start and wait until ready. Raises ServerFailed."""
        # Orphaned descendants become children of this process, so that they are found at the end.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        self._start()
        self._watcher = Thread(target=self._watch, daemon=True)
        self._watcher.start()
        try:
            self.wait_until_ready()
        except ServerFailed:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, in whatever state it is, and every process that it leaves. Raises ServerFailed."""
        self._ending = True
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        self._watcher.join(END_S)
        self.signal(signal.SIGKILL)
        self._watcher.join()
        deadline = time.monotonic() + END_S
        while left := descendants(os.getpid()):
            for pid in left:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise ServerFailed(f"processes {left} cannot be ended")
            time.sleep(TICK_S)

    @property
    def pid(self) -> int:
        """The id of the process that runs now, or ran last."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait_until_ready(self) -> None:
        """Poll until the answer is 200. Raises ServerFailed when the process ends or the time is over."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._watcher.is_alive():
            with suppress(OSError, HTTPException):
                if self.ask(self._ready)[0] == 200:
                    return
            time.sleep(TICK_S)
        last = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        raise ServerFailed(f"the server did not become ready (status {self._process.poll()}):\n{last}")

    def ask(
        self, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> tuple[int, Message, bytes]:
        """Status, headers and content of the answer to a GET, or a POST of a body. Raises OSError, HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {} if body is None else {"Content-Type": content_type}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while True:
            status = self._process.wait()
            self.exits.append(Exit(time.monotonic(), status))
            if self._ending or not self._restart or status == 0:
                return
            while left := descendants(os.getpid()):  # systemd and containers start anew once nothing is left
                for pid in left:
                    with suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
                time.sleep(TICK_S)
            self._start()


class Service(ServerProcess):
    """`python -m app` on the CPU with its default settings, apart from those in `environment`."""

    def __init__(
        self,
        models: Path,
        environment: dict[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "app"),
        *,
        log: str = "service",
        restart: bool = False,
    ) -> None:
        self.models = models
        ports = free_ports(1)
        settings = {"DIGITS_PORT": str(ports[0]), "DIGITS_MODELS_DIR": str(models), "DIGITS_DEVICE": "cpu"}
        environment = clean_environment() | settings | (environment or {})
        super().__init__(command, environment, ports, "/readyz", log, restart=restart)

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that serve: those under the supervisor, or the only one."""
        return descendants(self.pid) or [self.pid]

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric, whatever their labels. Raises OSError, HTTPException."""
        page = self.ask("/metrics")[2].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))

    def resources(self) -> tuple[float, int, int]:
        """Resident MiB, open files and threads of all its processes."""
        folders = [Path(f"/proc/{pid}") for pid in (self.pid, *descendants(self.pid))]
        statuses = [dict(line.split(":", 1) for line in (f / "status").read_text().splitlines()) for f in folders]
        mib = sum(int(status["VmRSS"].split()[0]) for status in statuses) / 1024
        files = sum(len(os.listdir(folder / "fd")) for folder in folders)
        return mib, files, sum(int(status["Threads"]) for status in statuses)


def clean_environment() -> dict[str, str]:
    """The environment without the service's settings and without settings of memory allocators."""
    left_out = ("DIGITS_", "LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def descendants(root: int) -> list[int]:
    """The ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The fields after the name, which is in parentheses and may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def proportional_memory() -> int:
    """Bytes of all processes below this one, with shared pages counted once (PSS)."""
    total = 0
    for pid in descendants(os.getpid()):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
