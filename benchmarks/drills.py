"""Drills without a cluster: replicas behind the proxy lose one, or are replaced, under load."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from benchmarks.cluster import MODEL, PROXY_PORT, Cluster, Pod
from benchmarks.wrk import WrkFailed, WrkResult, read_result, wrk_command

REPLICAS = (2, 3)
CALLERS, SECONDS = 32, 15.0
REFERENCE = json.dumps({"model": MODEL, "n": 4, "seed": 8}).encode()
# Ends a load that nothing stops.
LOAD_LIMIT_S = 600
NONE, ROLLING, KILL, PARTITION, SLOW = "none", "rolling restart", "one killed", "one partitioned", "one slow"
# Requests in flight may be lost, at most one of each caller.
MAY_LOSE_REQUESTS = {KILL, PARTITION}


class Outcome(BaseModel):
    """One drill. requests: answered; failed: those with an error, a time-out or a status of 400 or more.

    share: the affected replica's of all requests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drill: str
    replicas: int
    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    share: float | None = None
    same_bytes: bool

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = []
        if self.failed > (CALLERS if self.drill in MAY_LOSE_REQUESTS else 0):
            found.append(f"{self.failed} failed requests")
        if not self.same_bytes:
            found.append("the bytes of a seed differ between replicas")
        return found


def measure(only: str | None, seconds: float, numbers: Sequence[int] = REPLICAS) -> Iterator[Outcome]:
    """Every drill with each of these numbers of replicas. seconds: before, during and after a fault, together.

    Raises ServerFailed and WrkFailed.
    """
    cluster = Cluster()
    for replicas in numbers:
        cluster.grow(replicas)
        for drill, act in DRILLS.items():
            if only is not None and only not in drill:
                continue
            yield run(cluster, drill, act, seconds / 3)


def run(cluster: Cluster, drill: str, act: Callable[[Cluster, float], float | None], wait_s: float) -> Outcome:
    """One drill under load, from its start to the end of its consequences."""
    reference = cluster.pods[0].ask("/generate", REFERENCE)
    with load() as finish:
        time.sleep(wait_s)
        share = act(cluster, wait_s)
        cluster.wait_until_served()
        time.sleep(wait_s)
        seen = finish()
    return Outcome(
        drill=drill,
        replicas=len(cluster.pods),
        requests=seen.requests,
        failed=seen.errors,
        seconds=seen.seconds,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        max_ms=seen.max_ms,
        share=share,
        same_bytes=all(pod.ask("/generate", REFERENCE) == reference for pod in cluster.pods),
    )


@contextmanager
def load() -> Iterator[Callable[[], WrkResult]]:
    """A closed loop of callers through the proxy; the function ends it and gives its figures, or raises WrkFailed."""
    command = wrk_command(PROXY_PORT, "/generate", CALLERS, LOAD_LIMIT_S, ["generate", MODEL, "1", "0"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as wrk:

        def finish() -> WrkResult:
            if wrk.poll() is not None:
                raise WrkFailed("wrk ended before the drill")
            wrk.send_signal(signal.SIGINT)
            return read_result(wrk.communicate()[0])

        try:
            yield finish
        finally:
            wrk.kill()


def nothing(_: Cluster, wait_s: float) -> None:
    """What the other drills are compared with."""
    time.sleep(wait_s)


def rolling_restart(cluster: Cluster, _: float) -> None:
    """Every replica is replaced."""
    cluster.replace()


def killed(cluster: Cluster, _: float) -> None:
    """All processes of a replica end at once; kubelet starts it again at the same address."""
    pod = cluster.pods[0]
    pod.kill()
    pod.start()
    pod.wait_until_ready()


def partitioned(cluster: Cluster, wait_s: float) -> None:
    """A replica runs on, and no packet reaches or leaves it."""
    with cluster.pods[0].partitioned():
        time.sleep(wait_s)


def slow(cluster: Cluster, wait_s: float) -> float:
    """A replica runs for a twentieth of the time; its share of the requests."""
    before = [served(pod) for pod in cluster.pods]
    with cluster.pods[0].slow():
        time.sleep(wait_s)
    counts = [served(pod) - count for pod, count in zip(cluster.pods, before, strict=True)]
    return counts[0] / sum(counts)


def served(pod: Pod) -> int:
    """Images that a replica has generated."""
    lines = pod.ask("/metrics")[1].decode().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("digits_images_total{")))


DRILLS: dict[str, Callable[[Cluster, float], float | None]] = {
    NONE: nothing,
    ROLLING: rolling_restart,
    KILL: killed,
    PARTITION: partitioned,
    SLOW: slow,
}


def markdown(found: list[Outcome]) -> str:
    """A table: a line a drill and number of replicas."""
    lines = [
        "| fault | replicas | requests | failed | requests/s | p50 ms | p99 ms | longest ms | as promised |",
        "| --- " * 9 + "|",
    ]
    for each in sorted(found, key=lambda outcome: (list(DRILLS).index(outcome.drill), outcome.replicas)):
        fault = each.drill if each.share is None else f"{each.drill}, which served {each.share:.0%}"
        figures = f"{each.requests / each.seconds:,.0f} | {each.p50_ms:.1f} | {each.p99_ms:.1f} | {each.max_ms:,.0f}"
        verdict = "; ".join(each.broken()) or "yes"
        lines.append(f"| {fault} | {each.replicas} | {each.requests:,} | {each.failed:,} | {figures} | {verdict} |")
    return "\n".join(lines)
