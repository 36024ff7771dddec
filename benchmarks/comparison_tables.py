"""The tables of the comparison, in Markdown."""

from typing import Any

from benchmarks.archives import FILES
from benchmarks.comparison import Outcome, Spread
from benchmarks.servers import OWN
from benchmarks.workloads import GENERATE_ONE, Workload

Rates = dict[tuple[Workload, str, str], float]  # images a second by workload, file and server


def summary(found: list[Outcome]) -> str:
    """One image of the GAN for each of 64 callers: a line a server, and this project's ratio to it with each file."""
    rates = _rates(found)
    lines = [
        "| server | plain, images/s | fast, images/s | digits / server, plain | digits / server, fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    for server in dict.fromkeys(outcome.server for outcome in found):
        row = [rates.get((GENERATE_ONE, file, server)) for file in FILES]
        own = [rates.get((GENERATE_ONE, file, OWN)) for file in FILES]
        ratios = ["" if server == OWN else _ratio(*pair) for pair in zip(own, row, strict=True)]
        lines.append(f"| {server} | {' | '.join([*map(_number, row), *ratios])} |")
    return "\n".join(lines)


def details(found: list[Outcome], workload: Workload) -> str:
    """One workload: a line for each server and file, with latency and memory."""
    lines = [
        f"**{workload.title}**",
        "",
        "| server | file | images/s | p50 ms | p99 ms | MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        if each.workload == workload:
            figures = [each.p50_ms, each.p99_ms, each.memory_mib]
            columns = [_spread(each.images_per_s), *(f"{figure.median:,.1f}" if figure else "" for figure in figures)]
            lines.append(f"| {each.server} | {each.file} | {' | '.join(columns)} |")
    return "\n".join(lines)


def overview(found: list[Outcome], conditions: dict[str, Any]) -> str:
    """A line for each workload and file: images a second of every server, and the ratio to the best of the others."""
    rates = _rates(found)
    servers = list(dict.fromkeys(outcome.server for outcome in found))
    lines = [
        f"| request | callers | file | {' | '.join(servers)} | digits / best other |",
        f"| --- | --- | --- |{' --- |' * (len(servers) + 1)}",
    ]
    for workload, file in dict.fromkeys((outcome.workload, outcome.file) for outcome in found):
        row = [rates.get((workload, file, server)) for server in servers]
        best = max((rate or 0 for rate, server in zip(row, servers, strict=True) if server != OWN), default=0)
        columns = [*(_number(rate) for rate in row), _ratio(rates.get((workload, file, OWN)), best or None)]
        lines.append(f"| {workload.request} | {workload.callers} | {file} | {' | '.join(columns)} |")
    return "\n".join([*lines, "", measured_on(conditions)])


def measured_on(conditions: dict[str, Any]) -> str:
    """The conditions as a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    peers = ", ".join(conditions["peers"])
    return (
        f"Measured on {conditions['cores']} cores of {conditions['processor']}; {conditions['rounds']} rounds of "
        f"{conditions['seconds']} s; {conditions['allocator']} as the allocator of every server; commit "
        f"`{conditions['commit']}`, {conditions['date']}; {versions}; {peers}."
    )


def _rates(found: list[Outcome]) -> Rates:
    # A failed outcome is 0: it is shown as failed, and takes part in no ratio.
    return {(o.workload, o.file, o.server): o.images_per_s.median if o.images_per_s else 0.0 for o in found}


def _number(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}" if rate else "failed"


def _spread(spread: Spread | None) -> str:
    return f"{spread.median:,.0f} ({spread.least:,.0f} to {spread.greatest:,.0f})" if spread else "failed"


def _ratio(own: float | None, other: float | None) -> str:
    return f"{own / other:.2f}x" if own and other else ""
