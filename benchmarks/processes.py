"""A server as a process group of its own: started, waited for, weighed, ended with all it has started. Linux only."""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cells import Configuration
from benchmarks.environments import python_of
from benchmarks.places import LOGS, ROOT
from benchmarks.servers import SERVERS, Knobs, Server, environment

START_TIMEOUT_S = 120
END_TIMEOUT_S = 20
TICK_S = 0.1
PR_SET_CHILD_SUBREAPER = 36


class ServerFailed(Exception):
    """It did not start, or did not leave its ports."""


@dataclass(frozen=True)
class Weight:
    """What a server and all its processes have used so far."""

    processes: int
    rss_bytes: int
    pss_bytes: int
    cpu_s: float
    others_cpu_s: float = 0.0  # of everything on the machine but the server, the load and this process


@contextmanager
def running(configuration: Configuration, knobs: Knobs, allocator: str) -> Iterator[int]:
    """The port of a server that is ready; its whole tree is ended afterwards. Raises ServerFailed."""
    server = SERVERS[configuration.server]
    python = python_of(server)
    adopt_orphans()
    ports = free_ports(1 + server.more_ports)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{configuration.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", server.module],
            cwd=ROOT,
            env=environment(server, configuration.file, knobs, allocator, ports),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, server, ports[0], log)
        yield ports[0]
    finally:
        end(process)
        wait_until_free(ports)


def wait_until_ready(process: "subprocess.Popen[bytes]", server: Server, port: int, log: Path) -> None:
    """Another process can only be asked: again and again until it says so, ends, or the time is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"{server.name} ended with status {process.returncode}:\n{tail(log)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", server.ready)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(TICK_S)
    raise ServerFailed(f"{server.name} was not ready after {START_TIMEOUT_S} s:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the group to end, then make everything end that it has left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(TICK_S)
    raise ServerFailed(f"processes {left} cannot be ended")


def adopt_orphans() -> None:
    """Processes whose parent has gone become children of this one, so that none can get lost."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """The ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat(path)[1]), []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def weigh() -> Weight:
    """All processes below this one, which are the server's while no other is running."""
    ticks = pages = proportional = 0
    pids = descendants(os.getpid())
    for pid in pids:
        folder = Path("/proc") / str(pid)
        with suppress(OSError):
            # Own time and that of children that have gone; children that live are counted themselves.
            ticks += sum(int(value) for value in _stat(folder / "stat")[11:15])
            pages += int((folder / "statm").read_text().split()[1])
            proportional += _pss(folder / "smaps_rollup")
    page, second = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    times = os.times()
    here = times.user + times.system + times.children_user + times.children_system
    others = _machine_ticks() / second - ticks / second - here
    return Weight(len(pids), pages * page, proportional, ticks / second, others)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens at."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def wait_until_free(ports: list[int]) -> None:
    """Raises ServerFailed where something still listens after a while."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(TICK_S)
        else:
            return
    raise ServerFailed(f"something still listens at one of the ports {ports}")


def _stat(path: Path) -> list[str]:
    # The name, in parentheses, may hold anything.
    return path.read_text().rpartition(")")[2].split()


def _machine_ticks() -> int:
    values = [int(value) for value in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = values
    return user + nice + system + irq + softirq + steal


def _pss(path: Path) -> int:
    lines = path.read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
