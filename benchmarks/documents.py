"""The tables of the committed results, and the documents that show them between markers."""

import re
from pathlib import Path

from benchmarks import batching, faults, parts, profiling, raw, soak, starts
from benchmarks.places import REPORTS, RESULTS
from benchmarks.report import markdown, overview, read_results, summary


def tables() -> dict[str, str]:
    """The text of every table by the name of its markers. Raises OSError where a result is missing."""
    short, facts = read_results(RESULTS / "short.json")
    full, full_facts = read_results(RESULTS / "full.json")
    return {
        "bench": markdown(short, facts),
        "bench-summary": summary(short),
        "bench-full": overview(full, full_facts),
        "raw": raw.markdown(raw.read()),
        "batching": batching.markdown(batching.read()),
        "profile": profiling.markdown(profiling.read()),
        "parts": parts.markdown(parts.read()),
        "starts": starts.markdown(starts.read()),
        "faults": faults.markdown(faults.read()),
        "soak": soak.markdown(soak.read()),
    }


def render() -> int:
    """Write every table into the documents that have its markers; 0."""
    for name, text in tables().items():
        for path in REPORTS:
            if write_between_markers(path, name, text):
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
