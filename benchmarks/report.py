"""Results as JSON, as a picture and as Markdown. Knows nothing of how they were measured."""

import io
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.cells import GENERATE_ONE, Cell, Form
from benchmarks.places import RESULTS
from benchmarks.records import Record
from benchmarks.servers import OWN
from benchmarks.summary import Outcome, Ratio, Spread, outcomes, ratios

COLOURS = {
    ("own", "plain"): "#2a7f62",
    ("own", "fast"): "#7fc8a9",
    ("peer", "plain"): "#56606b",
    ("peer", "fast"): "#aab4bf",
}


def write_results(form: Form, records: list[Record], facts: dict[str, Any], folder: Path = RESULTS) -> None:
    """`<form>.json` and `<form>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "form": form,
        "machine": facts,
        "outcomes": [outcome.model_dump(mode="json") for outcome in outcomes(records)],
        "ratios": [ratio.model_dump(mode="json") for ratio in ratios(records)],
        "records": [record.model_dump(mode="json") for record in records],
    }
    (folder / f"{form}.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / f"{form}.png").write_bytes(plot(outcomes(records)))


def read_results(path: Path) -> tuple[list[Record], dict[str, Any]]:
    """The records of a file of results, and the facts of its machine."""
    content = json.loads(path.read_text())
    return [Record.model_validate(record) for record in content["records"]], content["machine"]


def plot(found: list[Outcome]) -> bytes:
    """Bars of images a second, one plot a cell, the spread of the rounds as whiskers; PNG."""
    cells = _cells(found)
    columns = min(len(cells), 3)
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(6 * columns, 4.2 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, cell in zip(grid, cells, strict=False):
        _bars(axes, [outcome for outcome in found if outcome.cell == cell])
        axes.set_title(cell.title, fontsize=10)
    for axes in grid[len(cells) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _bars(axes: Any, found: list[Outcome]) -> None:
    for place, outcome in enumerate(reversed(found)):
        rate = outcome.images_per_s
        if rate is None:
            axes.text(0, place, " failed", va="center", fontsize=8, color="firebrick")
            continue
        whiskers = [[rate.median - rate.least], [rate.greatest - rate.median]]
        colour = COLOURS["own" if outcome.server == OWN else "peer", outcome.file]
        axes.barh(place, rate.median, xerr=whiskers, color=colour, error_kw={"capsize": 2, "lw": 1})
        axes.annotate(
            f"{rate.median:,.0f}", (rate.greatest, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    labels = [f"{outcome.server}, {outcome.file}" for outcome in reversed(found)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_xlabel("images/s, median of the rounds", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def markdown(records: list[Record], facts: dict[str, Any]) -> str:
    """A table a cell, then what it was measured on."""
    found, compared = outcomes(records), ratios(records)
    parts = [_table(cell, [outcome for outcome in found if outcome.cell == cell], compared) for cell in _cells(found)]
    return "\n\n".join([*parts, _conditions(records, facts)])


def _conditions(records: list[Record], facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    peers = ", ".join(line for lines in facts["peers"].values() for line in lines[:1])
    rounds, seconds = max(record.round for record in records), records[0].conditions.seconds
    machine = f"{facts['cores']} cores of {facts['processor']}"
    how = f"{rounds} rounds of {seconds} s, {facts['allocator']} as allocator of every server"
    commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(record.commit for record in records))
    return f"Measured on {machine}; {how}; commit {commits}, {facts['date']}; {versions}; {peers}."


def _table(cell: Cell, found: list[Outcome], compared: list[Ratio]) -> str:
    same = {(ratio.peer, ratio.peer_file): ratio for ratio in compared if _is_same(ratio, cell)}
    fast = {(ratio.peer, ratio.peer_file): ratio for ratio in compared if _is_fast_over_plain(ratio, cell)}
    lines = [
        f"**{cell.title}**",
        "",
        "| server | file | images/s | p50 ms | p99 ms | MiB | digits, same file | digits fast over it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in found:
        key = (outcome.server, outcome.file)
        name = f"**{outcome.server}**" if outcome.server == OWN else outcome.server
        if outcome.images_per_s is None:
            figures = "failed | | | | | "
        else:
            columns = (outcome.images_per_s, outcome.p50_ms, outcome.p99_ms, outcome.pss_mib)
            numbers = [_spread(columns[0], 0), *(_median(column) for column in columns[1:])]
            figures = " | ".join([*numbers, _times(same.get(key)), _times(fast.get(key))])
        lines.append(f"| {name} | {outcome.file} | {figures} |")
    return "\n".join(lines)


def summary(records: list[Record]) -> str:
    """One image of the GAN for each of 64 callers: a line a server, the ratios of this project over it."""
    found = {(one.server, one.file): one.images_per_s for one in outcomes(records) if one.cell == GENERATE_ONE}
    compared = [ratio for ratio in ratios(records) if ratio.cell == GENERATE_ONE]
    same = {ratio.peer: ratio for ratio in compared if (ratio.own_file, ratio.peer_file) == ("plain", "plain")}
    fast = {ratio.peer: ratio for ratio in compared if (ratio.own_file, ratio.peer_file) == ("fast", "plain")}
    lines = [
        "| server | plain, images/s | fast, images/s | digits over it, both plain | digits, fast, over it, plain |",
        "| --- | --- | --- | --- | --- |",
    ]
    for server in dict.fromkeys(server for server, _ in found):
        rates = [found.get((server, file)) for file in ("plain", "fast")]
        figures = ["failed" if rate is None else f"{rate.median:,.0f}" for rate in rates]
        lines.append(f"| {server} | {' | '.join([*figures, _times(same.get(server)), _times(fast.get(server))])} |")
    return "\n".join(lines)


def overview(records: list[Record], facts: dict[str, Any]) -> str:
    """A line a cell and file: images a second of every server, and of this one over the best of the others."""
    found = {(one.cell, one.file, one.server): one for one in outcomes(records)}
    servers = list(dict.fromkeys(server for _, _, server in found))
    lines = [
        f"| request | callers | file | {' | '.join(servers)} | digits over the best other |",
        f"| --- | --- | --- |{' --- |' * (len(servers) + 1)}",
    ]
    for cell, file in dict.fromkeys((cell, file) for cell, file, _ in found):
        rates = {server: _rate(found.get((cell, file, server))) for server in servers}
        own, others = rates[OWN], [rate for name, rate in rates.items() if rate and name != OWN]
        figures = ["" if rate is None else f"{rate:,.0f}" if rate else "failed" for rate in rates.values()]
        times = f"{own / max(others):.2f}x" if own and others else ""
        lines.append(f"| {cell.kind} | {cell.callers} | {file} | {' | '.join([*figures, times])} |")
    return "\n".join([*lines, "", _conditions(records, facts)])


def _rate(outcome: Outcome | None) -> float | None:
    """Images a second; 0 where it failed, None where it was not measured."""
    if outcome is None:
        return None
    return outcome.images_per_s.median if outcome.images_per_s else 0.0


def _cells(found: list[Outcome]) -> list[Cell]:
    return list(dict.fromkeys(outcome.cell for outcome in found))


def _is_same(ratio: Ratio, cell: Cell) -> bool:
    return ratio.cell == cell and ratio.own_file == ratio.peer_file


def _is_fast_over_plain(ratio: Ratio, cell: Cell) -> bool:
    return ratio.cell == cell and ratio.own_file != ratio.peer_file


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f} to {spread.greatest:,.{digits}f})"


def _median(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:,.1f}"


def _times(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f}x ({ratio.least:.2f} to {ratio.greatest:.2f})"
