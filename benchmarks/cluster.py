"""Pods without Kubernetes: replicas in network namespaces, DNS with the addresses of the ready ones, and the proxy.

It takes the part of kubelet and of the endpoints' controller, with the manifests' own settings. Linux only, as root.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from threading import Event, Thread

from benchmarks.paths import LOGS, ROOT, SCRATCH, SHIPPED
from benchmarks.processes import TICK_S, ServerFailed, clean_environment

KUBERNETES = ROOT / "deploy" / "kubernetes"
HAPROXY = KUBERNETES / "components" / "proxy" / "haproxy.cfg"
PROGRAMS = {"haproxy": "haproxy", "dnsmasq": "dnsmasq-base", "ip": "iproute2", "unshare": "util-linux", "wrk": "wrk"}
PORT, PROXY_PORT, METRICS_PORT = 8000, 8080, 8405
MODEL = "gan"
NAME, NODE, ADDRESS = "digits-pods", "10.80.0.1", "10.80.0.{}"
START_S = 120
# A slow pod runs for a twentieth of each period.
SLOW_PERIOD_S, SLOW_SHARE = 0.2, 0.05
# Marks the process that `in_namespaces` starts.
INSIDE = "BENCH_IN_NAMESPACES"


class CannotIsolate(Exception):
    """Network namespaces or a program are missing; the text says which."""


def in_namespaces() -> None:
    """Replace this process by the same command in namespaces of its own; return if it is that one.

    They have their own network, mounts and processes: what runs in them ends with the command, however that ends.
    Raises CannotIsolate.
    """
    if INSIDE in os.environ:
        return
    check_isolation()
    os.environ[INSIDE] = "1"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp(command[0], [*command, sys.executable, "-m", "benchmarks", *sys.argv[1:]])  # noqa: S606


def check_isolation() -> None:
    """Raises CannotIsolate where namespaces or bridges are not to be had, as in most containers."""
    if os.geteuid() != 0:
        raise CannotIsolate("network namespaces need root")
    if missing := [package for program, package in PROGRAMS.items() if shutil.which(program) is None]:
        raise CannotIsolate(f"a program is missing: apt-get install {' '.join(missing)}")
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add", "pods", "type", "bridge"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotIsolate(f"this machine has no network namespaces with bridges: {done.stderr.strip()}")


class Manifest:
    """What the Deployment and its settings say."""

    def __init__(self) -> None:
        base = KUBERNETES / "base"
        deployment = (base / "deployment.yaml").read_text()
        self.settings = dict(
            re.findall(r"^ +- (DIGITS_\w+)=(.*)$", (base / "kustomization.yaml").read_text(), re.MULTILINE)
        )
        (self.pre_stop_s,) = (
            int(each) for each in re.findall(r"^ +sleep:\n +seconds: (\d+)$", deployment, re.MULTILINE)
        )
        (self.grace_s,) = (int(each) for each in re.findall(r"terminationGracePeriodSeconds: (\d+)", deployment))


class Pod:
    """A network namespace with an address, as the sandbox of a pod, and the service in it."""

    def __init__(self, number: int, manifest: Manifest) -> None:
        self.address = ADDRESS.format(10 + number)
        self._manifest = manifest
        self._link = f"pod{number}"
        self._log = LOGS / f"drills-{self._link}.log"
        self._log.unlink(missing_ok=True)
        self._sandbox = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        _wait(lambda: Path(f"/proc/{self._sandbox.pid}/ns/net").readlink() != own, "the namespace of a pod")
        _run(f"ip link add {self._link} type veth peer name eth0 netns {self._sandbox.pid}")
        _run(f"ip link set {self._link} master pods up")
        _run(f"{self._inside} ip address add {self.address}/24 dev eth0")
        _run(f"{self._inside} ip link set eth0 up")
        self.start()

    @property
    def _inside(self) -> str:
        return f"nsenter --net=/proc/{self._sandbox.pid}/ns/net"

    def start(self) -> None:
        """Start the service, or start it again after it ended, as kubelet does."""
        settings = {"DIGITS_HOST": "0.0.0.0", "DIGITS_PORT": str(PORT), "DIGITS_MODELS_DIR": str(SHIPPED)}  # noqa: S104
        settings |= {"DIGITS_MODELS": MODEL, "DIGITS_PROCESSES": "2"}  # as many as the pod has cores
        environment = clean_environment() | self._manifest.settings | settings
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._inside.split(), sys.executable, "-m", "app"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Raises ServerFailed where the service ends or is not ready in time."""
        _wait(lambda: self._process.poll() is not None or self.ask("/readyz")[0] == 200, f"{self.address}: readiness")
        if (status := self._process.poll()) is not None:
            raise ServerFailed(f"a replica ended with status {status}, see {self._log.name}")

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and content of an answer. Raises OSError, HTTPException."""
        return ask(self.address, PORT, path, body)

    def kill(self) -> None:
        """End all processes of the service at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def delete(self) -> None:
        """End the service as kubelet does. Raises ServerFailed where it does not end by itself, with status 0."""
        time.sleep(self._manifest.pre_stop_s)
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(self._manifest.grace_s - self._manifest.pre_stop_s)
        except subprocess.TimeoutExpired:
            raise ServerFailed("a replica did not end within terminationGracePeriodSeconds") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._sandbox.kill()
            self._sandbox.wait()
        if status != 0:
            raise ServerFailed(f"a replica ended with status {status}")

    @contextmanager
    def partitioned(self) -> Iterator[None]:
        """No packet reaches or leaves the pod."""
        _run(f"ip link set {self._link} nomaster")
        yield
        _run(f"ip link set {self._link} master pods")

    @contextmanager
    def slow(self) -> Iterator[None]:
        """All processes of the service are stopped for most of the time."""
        over = Event()

        def alternate() -> None:
            while not over.is_set():
                os.killpg(self._process.pid, signal.SIGSTOP)
                over.wait(SLOW_PERIOD_S * (1 - SLOW_SHARE))
                os.killpg(self._process.pid, signal.SIGCONT)
                over.wait(SLOW_PERIOD_S * SLOW_SHARE)

        thread = Thread(target=alternate)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Cluster:
    """Replicas behind the proxy. Only in the namespaces of `in_namespaces`, which end all of it."""

    def __init__(self) -> None:
        """Start DNS and the proxy, without replicas."""
        LOGS.mkdir(parents=True, exist_ok=True)
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self.pods: list[Pod] = []
        self._manifest = Manifest()
        self._numbers = count()
        self._hosts = SCRATCH / "drills-hosts"
        self._hosts.write_text("")
        resolver = SCRATCH / "drills-resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\n")
        _run(f"mount --bind {resolver} /etc/resolv.conf")
        _run("ip link set lo up")
        _run("ip link add pods type bridge")
        _run(f"ip address add {NODE}/24 dev pods")
        _run("ip link set pods up")
        dns = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces"
        self._dns = _background(f"{dns} --listen-address=127.0.0.1 --pid-file --user=root --addn-hosts={self._hosts}")
        _background(f"haproxy -db -f {HAPROXY}", DIGITS_PODS=NAME)

    def grow(self, replicas: int) -> None:
        """Add replicas up to a number, and wait until the proxy has found them. Raises ServerFailed."""
        new = [Pod(next(self._numbers), self._manifest) for _ in range(replicas - len(self.pods))]
        for pod in new:
            pod.wait_until_ready()
        self.pods += new
        self._publish()
        self.wait_until_served()

    def replace(self) -> None:
        """A rolling restart with `maxSurge: 1` and `maxUnavailable: 0`. Raises ServerFailed."""
        for old in list(self.pods):
            new = Pod(next(self._numbers), self._manifest)
            new.wait_until_ready()
            self.pods = [*(pod for pod in self.pods if pod is not old), new]
            self._publish()
            old.delete()

    def wait_until_served(self) -> None:
        """Wait until the proxy's checks of all replicas succeed. Raises ServerFailed."""
        up = re.compile(r'^haproxy_server_status{proxy="digits",server="[^"]+",state="UP"} 1$', re.MULTILINE)
        page = partial(ask, "127.0.0.1", METRICS_PORT, "/metrics")
        _wait(lambda: len(up.findall(page()[1].decode())) == len(self.pods), "the proxy")

    def _publish(self) -> None:
        """The addresses of the replicas in DNS."""
        self._hosts.write_text("".join(f"{pod.address} {NAME}\n" for pod in self.pods))
        self._dns.send_signal(signal.SIGHUP)


def ask(host: str, port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and content of the answer to a GET, or to a POST of JSON. Raises OSError, HTTPException."""
    connection = HTTPConnection(host, port, timeout=10)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(OSError, HTTPException):
            if condition():
                return
        time.sleep(TICK_S)
    raise ServerFailed(f"{what} was waited for in vain")


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"{command}: {done.stderr.strip()}")


def _background(command: str, **environment: str) -> subprocess.Popen[bytes]:
    words = command.split()
    with (LOGS / f"drills-{words[0]}.log").open("wb") as output:
        return subprocess.Popen(words, env=os.environ | environment, stdout=output, stderr=output)
