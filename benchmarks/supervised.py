"""The service under a supervisor that starts it again when it ends with an error. Linux only. Knows no fault."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic

from benchmarks.places import LOGS, ROOT
from benchmarks.processes import ServerFailed, free_ports

START_S, END_S = 60, 30


@dataclass
class Exit:
    """When the process ended (monotonic seconds), and with which status; a negative one is a signal."""

    at: float
    status: int


def environment_of(port: int, models: Path) -> dict[str, str]:
    """The environment of this process, with these settings of the service and no others; on the CPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIGITS_", "LD_PRELOAD"))}
    return kept | {"DIGITS_PORT": str(port), "DIGITS_MODELS_DIR": str(models), "DIGITS_DEVICE": "cpu"}


@dataclass
class Supervised:
    """One service on one port. `restart`: whether an end with a status but 0 is followed by a start."""

    models: Path
    environment: dict[str, str] = field(default_factory=dict)
    command: Sequence[str] = (sys.executable, "-m", "app")
    cwd: Path = ROOT
    log: Path = LOGS / "supervised.log"
    restart: bool = True
    exits: list[Exit] = field(default_factory=list)

    async def __aenter__(self) -> "Supervised":
        """Start it and wait until it is ready. Raises ServerFailed."""
        self.port = free_ports(1)[0]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._ending = False
        await self._start()
        self._watching = asyncio.create_task(self._watch())
        await self.ready()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End it, whatever state it is in."""
        self._ending = True
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        try:
            async with asyncio.timeout(END_S):
                await self._watching
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._watching

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal, if there is somebody to take it."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ready(self) -> None:
        """Until readiness is green. Raises ServerFailed after a while."""
        end = monotonic() + START_S
        while monotonic() < end:
            if await asyncio.to_thread(self.status, "/readyz") == 200:
                return
            await asyncio.sleep(0.05)
        raise ServerFailed(f"the service was not ready in {START_S} s; see {self.log}")

    def get(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and content of one answer. Raises OSError and HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self, path: str) -> int | None:
        """Status of one answer; None where there is none."""
        try:
            return self.get(path)[0]
        except (OSError, HTTPException):
            return None

    def date(self) -> datetime | None:
        """The time that the service's answers carry; None where there is no answer."""
        if self.process.returncode is not None:
            return None
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/livez")
            header = connection.getresponse().getheader("Date")
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        return parsedate_to_datetime(header) if header else None

    def metric(self, line: str) -> float:
        """A sample of the metrics page that begins so, 0 where there is none. Raises OSError and HTTPException."""
        found = re.search(rf"^{re.escape(line)}\S* (\S+)$", self.get("/metrics")[1].decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def weight(self) -> tuple[float, int, int]:
        """Resident MiB, open files and threads of the process."""
        folder = Path("/proc") / str(self.pid)
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(folder / "fd")), int(fields["Threads"])

    async def _start(self) -> None:
        environment = environment_of(self.port, self.models) | self.environment
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=self.cwd, env=environment, stdout=output, stderr=output
            )

    async def _watch(self) -> None:
        while True:
            status = await self.process.wait()
            self.exits.append(Exit(monotonic(), status))
            if self._ending or not self.restart or status == 0:
                return
            await self._start()
