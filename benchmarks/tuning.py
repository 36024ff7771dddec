"""The best of a small grid of a peer's knobs, kept beside the peer with the whole sweep."""

import json
from math import inf, sqrt
from typing import Any

from benchmarks.campaign import WARM_UP_S, measure_cell
from benchmarks.cells import GENERATE_ONE, GENERATE_SIXTEEN, Configuration
from benchmarks.load import Load
from benchmarks.machine import cores, facts
from benchmarks.places import WORK
from benchmarks.processes import ServerFailed, running
from benchmarks.servers import Knobs, Server

CELLS = (GENERATE_ONE, GENERATE_SIXTEEN)
NOISY_SHARE = 0.1  # of the machine, used by something else during a cell: the trial is made once more


def tune(server: Server, seconds: int, allocator: str, *, fresh: bool) -> None:
    """Try what was not tried yet, then write `tuned.json`."""
    kept = WORK / "tuning" / f"{server.name}.json"
    if fresh:
        kept.unlink(missing_ok=True)
    sweep: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    sweep = [entry for entry in sweep if entry["knobs"] in server.grid and entry["seconds"] == seconds]
    for knobs in server.grid:
        if any(entry["knobs"] == knobs for entry in sweep):
            continue
        sweep.append(quiet_attempt(server, knobs, seconds, allocator))
        print(json.dumps(sweep[-1]), flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(sweep))
    content = {
        "knobs": best(sweep),
        "score": "the geometric mean of images/s with 1 and with 16 images a request; 64 callers, GAN, plain file",
        "seconds": seconds,
        "warm_up_s": WARM_UP_S,
        "machine": facts(allocator),
        "sweep": sweep,
    }
    (server.folder / "tuned.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{server.name}: {content['knobs']}", flush=True)


def quiet_attempt(server: Server, knobs: Knobs, seconds: int, allocator: str) -> dict[str, Any]:
    """A trial, or the quieter of two where something else was busy during the first."""
    first = attempt(server, knobs, seconds, allocator)
    if first.get("others_cpu_s", 0.0) <= NOISY_SHARE * seconds * cores():
        return first
    second = attempt(server, knobs, seconds, allocator)
    return min((first, second), key=lambda entry: float(entry.get("others_cpu_s", inf)))


def attempt(server: Server, knobs: Knobs, seconds: int, allocator: str) -> dict[str, Any]:
    """Images a second of each cell with these knobs; zero where one failed."""
    entry: dict[str, Any] = {"knobs": knobs, "seconds": seconds, "score": 0.0}
    try:
        with running(Configuration(server.name, "plain"), knobs, allocator) as port:
            for cell in CELLS:
                measured = measure_cell(port, server.name, cell, seconds)
                load = measured.get("load")
                if isinstance(load, Load):
                    entry[cell.name] = round(load.requests * cell.n / load.duration_s, 1)
                    entry["others_cpu_s"] = max(entry.get("others_cpu_s", 0.0), measured["others_cpu_s"])
                if measured["problem"]:
                    entry["problem"] = measured["problem"]
    except ServerFailed as error:
        entry["problem"] = str(error)
    if "problem" not in entry:
        entry["score"] = round(sqrt(entry[CELLS[0].name] * entry[CELLS[1].name]), 1)
    return entry


def best(sweep: list[dict[str, Any]]) -> Knobs:
    """The knobs of the highest score. Raises ServerFailed where nothing worked."""
    first = max(sweep, key=lambda entry: float(entry["score"]))
    if not first["score"]:
        raise ServerFailed("no combination works")
    knobs: Knobs = first["knobs"]
    return knobs
