"""The tables of figures in the documents are those of the committed results."""

import json

import pytest

from benchmarks.documents import TABLES
from benchmarks.places import REPORTS, RESULTS

TEXTS = {path.name: path.read_text() for path in REPORTS}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_the_results(name):
    where = [text for text in TEXTS.values() if f"<!-- {name}: begin -->" in text]
    assert where
    table = TABLES[name]()
    for text in where:
        assert f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->" in text


@pytest.mark.parametrize("name", ["short", "full", *(name for name in TABLES if not name.startswith("bench"))])
def test_results_name_the_machine_they_were_measured_on(name):
    machine = json.loads((RESULTS / f"{name}.json").read_text())["machine"]
    assert machine["processor"]
    assert machine["versions"]["torch"]
    assert not machine["commit"].endswith("-dirty")
