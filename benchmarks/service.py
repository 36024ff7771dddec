"""The service as a subprocess, started again on request when it ends with an error. Linux only."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

from benchmarks.paths import LOGS, ROOT
from benchmarks.processes import ServerFailed, clean_environment, descendants, free_ports

START_S, END_S = 60, 30


@dataclass
class Exit:
    """When the process ended (monotonic seconds), and its status; a negative one is a signal."""

    at: float
    status: int


def service_environment(port: int, models: Path) -> dict[str, str]:
    """The environment of a service on the CPU, with these settings and no others."""
    return clean_environment() | {
        "DIGITS_PORT": str(port),
        "DIGITS_MODELS_DIR": str(models),
        "DIGITS_DEVICE": "cpu",
    }


class Service:
    """`python -m app` on a port of its own.

    restart: start it again, as a process supervisor would, after an exit with a status other than 0.
    """

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
        self.port = free_ports(1)[0]
        self.exits: list[Exit] = []
        self._environment = service_environment(self.port, models) | (environment or {})
        self._command = command
        self._log = LOGS / f"{log}.log"
        self._restart = restart
        self._ending = False

    def __enter__(self) -> "Service":
        """Start and wait until ready. Raises ServerFailed."""
        LOGS.mkdir(parents=True, exist_ok=True)
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
        """End the process in whatever state it is."""
        self._ending = True
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        self._watcher.join(END_S)
        self.signal(signal.SIGKILL)
        self._watcher.join()

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
        """Poll `/readyz`. Raises ServerFailed after a minute."""
        end = monotonic() + START_S
        while monotonic() < end and (self.running or self._restart):
            with suppress(OSError, HTTPException):
                if self.ask("/readyz")[0] == 200:
                    return
            sleep(0.05)
        raise ServerFailed(f"the service did not become ready; see {self._log.relative_to(ROOT)}")

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, Message, bytes]:
        """Status, headers and content of the answer to a GET, or to a POST of JSON. Raises OSError, HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric, whatever their labels."""
        page = self.ask("/metrics")[2].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))

    def resources(self) -> tuple[float, int, int]:
        """Resident MiB, open files and threads of all its processes."""
        folders = [Path(f"/proc/{pid}") for pid in (self.pid, *descendants(self.pid))]
        statuses = [dict(line.split(":", 1) for line in (f / "status").read_text().splitlines()) for f in folders]
        mib = sum(int(status["VmRSS"].split()[0]) for status in statuses) / 1024
        files = sum(len(os.listdir(folder / "fd")) for folder in folders)
        return mib, files, sum(int(status["Threads"]) for status in statuses)

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )

    def _watch(self) -> None:
        while True:
            status = self._process.wait()
            self.exits.append(Exit(monotonic(), status))
            if self._ending or not self._restart or status == 0:
                return
            self._start()
