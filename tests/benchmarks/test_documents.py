"""The documents show the committed results."""

from benchmarks.documents import TABLES, outdated
from benchmarks.paths import DOCUMENTS


def test_the_tables_in_the_documents_equal_the_results():
    assert [path.name for path, _ in outdated()] == []


def test_every_table_of_the_results_is_in_a_document():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert [name for name in TABLES if f"<!-- {name}: begin -->" not in text] == []
