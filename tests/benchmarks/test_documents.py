"""The tables of figures in the documents are those of the committed results."""

import json

import pytest

from benchmarks import batching, faults, parts, profiling, raw, soak, starts
from benchmarks.places import REPORTS, RESULTS
from benchmarks.report import markdown, read_results, summary

TEXTS = {path.name: path.read_text() for path in REPORTS}


def tables() -> dict[str, str]:
    records, facts = read_results(RESULTS / "short.json")
    return {
        "bench": markdown(records, facts),
        "bench-summary": summary(records),
        "raw": raw.markdown(raw.read()),
        "batching": batching.markdown(batching.read()),
        "profile": profiling.markdown(profiling.read()),
        "parts": parts.markdown(parts.read()),
        "starts": starts.markdown(starts.read()),
        "faults": faults.markdown(faults.read()),
        "soak": soak.markdown(soak.read()),
    }


@pytest.mark.parametrize(
    "name", ["bench", "bench-summary", "raw", "batching", "profile", "parts", "starts", "faults", "soak"]
)
def test_a_table_is_that_of_the_results(name):
    where = [text for text in TEXTS.values() if f"<!-- {name}: begin -->" in text]
    assert where
    for text in where:
        assert f"<!-- {name}: begin -->\n{tables()[name]}\n<!-- {name}: end -->" in text


@pytest.mark.parametrize("name", ["raw", "short", "batching", "profile", "parts", "starts", "faults", "soak"])
def test_results_name_the_machine_they_were_measured_on(name):
    machine = json.loads((RESULTS / f"{name}.json").read_text())["machine"]
    assert machine["processor"]
    assert machine["versions"]["torch"]
    assert not machine["commit"].endswith("-dirty")
