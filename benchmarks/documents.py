"""The tables of the committed results, and the documents that show them between markers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import batching, faults, memory, parts, profiling, raw, soak, starts
from benchmarks.cells import Form
from benchmarks.places import REPORTS, RESULTS
from benchmarks.records import Record
from benchmarks.report import markdown, overview, read_results, summary


def _of(form: Form, show: Callable[[list[Record], dict[str, Any]], str]) -> Callable[[], str]:
    return lambda: show(*read_results(RESULTS / f"{form}.json"))


# By the name of its markers, what makes the text of a table. Raises OSError where the result is missing.
TABLES: dict[str, Callable[[], str]] = {
    "bench": _of("short", markdown),
    "bench-summary": _of("short", lambda records, _: summary(records)),
    "bench-full": _of("full", overview),
    "raw": lambda: raw.markdown(raw.read()),
    "batching": lambda: batching.markdown(batching.read()),
    "memory": lambda: memory.markdown(memory.read()),
    "profile": lambda: profiling.markdown(profiling.read()),
    "parts": lambda: parts.markdown(parts.read()),
    "starts": lambda: starts.markdown(starts.read()),
    "faults": lambda: faults.markdown(faults.read()),
    "soak": lambda: soak.markdown(soak.read()),
}


def render() -> int:
    """Write every table into the documents that have its markers; 0."""
    for name, text in TABLES.items():
        for path in REPORTS:
            if write_between_markers(path, name, text()):
                print(f"wrote {name} into {path.name}")
    return 0


def write_between_markers(path: Path, name: str, text: str) -> bool:
    """Replace what stands between the markers of a name; whether the file has them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text() if path.exists() else ""
    if begin not in old or end not in old:
        return False
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    path.write_text(re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", old, count=1, flags=re.DOTALL))
    return True
