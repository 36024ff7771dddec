"""The tables of the comparison, in Markdown."""

from typing import Any

from benchmarks.comparison import Outcome, Spread
from benchmarks.servers import OWN
from benchmarks.workloads import Workload

EXPERT = ("fastapi-batched", "mosec")  # peers that batch all work and check nothing

Rates = dict[tuple[Workload, str, str], float]  # images a second by workload, file and server


def summary(found: list[Outcome]) -> str:
    """A line for each workload with the files that ship: this project, the best framework, and the expert servers.

    The ratios are of this project to the other; those below 1 are bold.
    """
    rates = _rates(found)
    frameworks = dict.fromkeys(outcome.server for outcome in found if outcome.server not in {OWN, *EXPERT})
    lines = [
        f"| request | callers | {OWN} | best framework | {' | '.join(EXPERT)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(EXPERT)}",
    ]
    for workload in dict.fromkeys(outcome.workload for outcome in found if outcome.file == "fast"):
        row = {server: rates.get((workload, "fast", server)) for server in (OWN, *frameworks, *EXPERT)}
        best = max(frameworks, key=lambda server: row[server] or 0, default=OWN)
        cells = [f"{best} {_compared(row[OWN], row[best])}", *(_compared(row[OWN], row[name]) for name in EXPERT)]
        lines.append(f"| {workload.request} | {workload.callers} | {_number(row[OWN])} | {' | '.join(cells)} |")
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


def _compared(own: float | None, other: float | None) -> str:
    if not own or not other:
        return _number(other)
    ratio = _ratio(own, other)
    return f"{_number(other)} ({ratio if own >= other else f'**{ratio}**'})"


def _ratio(own: float | None, other: float | None) -> str:
    return f"{own / other:.2f}x" if own and other else ""
