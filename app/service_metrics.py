"""The metrics that are read at a scrape: what is in flight, the models, and the resources of the processes."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.scoreboard import Scoreboard
from app.settings import MAX_GRPC_CONNECTIONS

ESTABLISHED = "01"  # in /proc/net/tcp


class ServiceCollector(Collector):
    """What is in flight in the whole service, the models it serves, and the resources of its processes."""

    # Counters of the scoreboard. The bound on each, where there is one, is a gauge of its own.
    IN_USE = (
        ("connections", "connections", "Open connections."),
        ("requests", "requests_in_flight", "Requests that were admitted and not yet answered."),
        ("bytes", "body_in_flight_bytes", "Bytes of large bodies that have arrived."),
        ("rows", "rows_in_flight", "Rows that were admitted and not yet computed."),
        (
            "sequential_rows",
            "sequential_rows_in_flight",
            "Rows in flight of sequential models, which have a bound of their own.",
        ),
        ("files", "files_in_flight", "Uploaded files that are decoded or wait for it."),
        ("streams", "streams_in_flight", "Streamed answers that were admitted and have not ended."),
        ("scrapes", "scrapes_in_flight", "Scrapes of this page, with the one that reads it."),
        ("busy", "busy_workers", "Workers that compute a batch."),
        ("busy_sequential", "busy_sequential_workers", "Workers that compute a batch of a sequential model."),
    )
    # The label `process` is the column of the scoreboard, which a process that replaces another one takes over.
    BY_PROCESS = (
        ("connections", "process_connections", "Open connections of a process."),
        ("rows", "process_rows_in_flight", "Rows that a process has admitted and not yet computed."),
        ("busy", "process_busy_workers", "Workers of a process that compute a batch."),
    )
    MODEL = ("model", "family", "digest", "precision", "runtime")

    def __init__(self, scoreboard: Scoreboard, limits: Mapping[str, int], grpc_port: int | None) -> None:
        self._scoreboard = scoreboard
        self._grpc_port = grpc_port
        self.limits = {**limits}  # by counter
        self.ready: Callable[[], bool] = lambda: False
        self.models: Iterable[tuple[str, ...]] = ()  # values of the labels `MODEL`

    def collect(self) -> Iterable[Metric]:
        """Read the values."""
        board = self._scoreboard
        for counter, name, text in self.IN_USE:
            yield _gauge(name, text, board.counter(counter).total)
            if counter in self.limits:
                stem, unit, _ = name.partition("_bytes")
                yield _gauge(f"{stem}_limit{unit}", f"Bound on digits_{name}.", self.limits[counter])
        yield _gauge("processes", "Processes that serve.", board.serving)
        yield _gauge("processes_limit", "Processes that should serve.", board.processes)
        replacements = "Processes that replaced one that ended or hung."
        yield CounterMetricFamily("digits_process_replacements", replacements, board.replacements)
        yield _gauge("ready", "1 while the service is ready.", self.ready())
        refused = board.reload_refused
        yield _gauge("last_reload_successful", "0 from a refused reload to the next one that is not.", not refused)
        models = [dict(zip(self.MODEL, labels, strict=True)) for labels in self.models]
        yield _info("model_info", "1 for each loaded model, with its digest and runtime.", models)
        common = {"version": __version__, "processes": str(board.processes)}
        runtimes = sorted({model["runtime"] for model in models}) or [""]
        builds = [{**common, "runtime": runtime} for runtime in runtimes]
        yield _info("build_info", "1 for each runtime, with the version and the number of processes.", builds)
        for counter, name, text in self.BY_PROCESS:
            yield _by_process(name, text, board.by_column(counter))
        pids = board.by_column("pid")
        if self._grpc_port is not None:
            name, open_now = "process_grpc_connections", connections_at(self._grpc_port, pids)
            yield _by_process(name, "Open connections of gRPC of a process.", open_now)
            yield _gauge(f"{name}_limit", f"Bound on digits_{name}.", MAX_GRPC_CONNECTIONS)
        yield from process_metrics(pids)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"digits_{name}", text, float(value))


def _by_process(name: str, text: str, by_column: Mapping[int, int]) -> Metric:
    family = GaugeMetricFamily(f"digits_{name}", text, labels=["process"])
    for column, value in by_column.items():
        family.add_metric([str(column)], value)
    return family


def _info(name: str, text: str, series: Iterable[dict[str, str]]) -> Metric:
    family = Metric(f"digits_{name}", text, "gauge")
    for labels in series:
        family.add_sample(family.name, labels, 1)
    return family


def process_metrics(pids: Mapping[int, int]) -> list[Metric]:
    """prometheus-client's metrics of a process, summed over processes; of start times, the least.

    pids: by column. The CPU time is also there for each process.
    """
    merged: dict[str, Metric] = {}
    cpu = CounterMetricFamily("digits_process_cpu_seconds", "CPU time of a process.", labels=["process"])
    for column, pid in pids.items():
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            (b,) = metric.samples
            if metric.name == "process_cpu_seconds":
                cpu.add_metric([str(column)], b.value)
            if (first := merged.setdefault(metric.name, metric)) is not metric:
                (a,) = first.samples
                least = metric.name == "process_start_time_seconds"
                first.samples = [a._replace(value=min(a.value, b.value) if least else a.value + b.value)]
    return [cpu, *merged.values()]


def connections_at(port: int, pids: Mapping[int, int]) -> dict[int, int]:
    """The established connections to a TCP port that each process holds, by column. pids: by column.

    Read from /proc (proc(5)), because gRPC does not expose it.
    """
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # a system without IPv6
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{inode}]")
    return {column: len(inodes & _open_files(pid)) for column, pid in pids.items()}


def _open_files(pid: int) -> set[str]:
    """What the descriptors of a process refer to."""
    found = set()
    with suppress(OSError):  # the process has ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.add(os.readlink(descriptor))
    return found
