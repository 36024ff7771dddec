"""A server as a process group: started, polled until ready, and ended with all its processes. Linux only."""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

START_TIMEOUT_S = 120
END_TIMEOUT_S = 20
TICK_S = 0.1
PR_SET_CHILD_SUBREAPER = 36


class ServerFailed(Exception):
    """A server did not start, or did not free its ports."""


def clean_environment() -> dict[str, str]:
    """The environment without the service's settings and without settings of memory allocators."""
    left_out = ("DIGITS_", "LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


@contextmanager
def running(
    command: list[str], environment: dict[str, str], ready_path: str, ports: list[int], folder: Path, log: Path
) -> Iterator[None]:
    """A server that is ready on the first of its ports; all its processes are ended afterwards. Raises ServerFailed."""
    adopt_orphans()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, ready_path, ports[0], log)
        yield
    finally:
        end(process)
        wait_until_free(ports)


def wait_until_ready(process: "subprocess.Popen[bytes]", path: str, port: int, log: Path) -> None:
    """Poll until the answer is 200. Raises ServerFailed when the process ends or the time is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                connection.close()
                return
        connection.close()
        time.sleep(TICK_S)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServerFailed(f"the server did not become ready (status {process.poll()}):\n{last}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the process group to end, then kill every descendant that is left. Raises ServerFailed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    deadline = time.monotonic() + END_TIMEOUT_S
    while left := descendants(os.getpid()):
        if time.monotonic() > deadline:
            raise ServerFailed(f"processes {left} cannot be ended")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(TICK_S)


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, so that `end` finds processes that left their group."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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


def wait_until_free(ports: list[int]) -> None:
    """Raises ServerFailed where a port is still taken after a while."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(TICK_S)
        else:
            return
    raise ServerFailed(f"one of the ports {ports} is still taken")
