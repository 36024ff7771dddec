"""Writes the tables of the committed results into the documents, between markers."""

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    comparison_tables,
    drills,
    fairness,
    fault_injection,
    growth,
    neighbours,
    raw,
    soak,
    upload_cost,
)
from benchmarks.comparison import Outcome
from benchmarks.paths import DOCUMENTS
from benchmarks.results import read_results
from benchmarks.workloads import GENERATE_ONE

# By the name of the markers.
TABLES: dict[str, Callable[[], str]] = {
    "bench-summary": lambda: comparison_tables.summary(read_results("comparison", Outcome)[0]),
    "bench": lambda: comparison_tables.details(read_results("comparison", Outcome)[0], GENERATE_ONE),
    "bench-full": lambda: comparison_tables.overview(*read_results("comparison", Outcome)),
    "growth": lambda: growth.markdown(*read_results("growth", growth.Point)),
    "raw": lambda: raw.markdown(read_results("raw", raw.Rate)[0]),
    "normalize": lambda: upload_cost.markdown(read_results("normalize", upload_cost.Cost)[0]),
    "faults": lambda: fault_injection.markdown(read_results("faults", fault_injection.Outcome)[0]),
    "fairness": lambda: fairness.markdown(read_results("fairness", fairness.Cell)[0]),
    "drills": lambda: drills.markdown(read_results("drills", drills.Outcome)[0]),
    "neighbours": lambda: neighbours.markdown(read_results("neighbours", neighbours.Beside)[0]),
    "soak": lambda: soak.markdown(read_results("soak", soak.Soak)[0][0]),
}


def with_tables(text: str) -> str:
    """A document with the text between the markers of each table replaced by the table."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, marker, rest = text.partition(begin)
        if marker:
            _, marker, tail = rest.partition(end)
            assert marker, f"{begin} has no end"
            try:
                content = table()
            except FileNotFoundError:
                content = "Not measured yet."
            text = f"{head}{begin}\n{content}\n{end}{tail}"
    return text


def outdated() -> Iterator[tuple[Path, str]]:
    """Each document whose tables differ from the results, with its new text."""
    for path in DOCUMENTS:
        old = path.read_text()
        if (new := with_tables(old)) != old:
            yield path, new
