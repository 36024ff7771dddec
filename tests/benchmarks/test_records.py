"""What a run that was cut off measures again, and what not."""

from benchmarks.cells import GENERATE_ONE, GENERATE_SIXTEEN, Configuration
from benchmarks.records import Store
from tests.benchmarks.measured import CONDITIONS, record

RAY = Configuration("ray", "plain")
CELLS = [GENERATE_ONE, GENERATE_SIXTEEN]


def test_a_finished_cell_of_a_round_is_not_run_again(tmp_path):
    store = Store("full", tmp_path)
    store.write(record("ray"))
    assert store.missing(1, RAY, CELLS, CONDITIONS) == [GENERATE_SIXTEEN]
    assert store.missing(2, RAY, CELLS, CONDITIONS) == CELLS
    assert store.missing(1, Configuration("ray", "fast"), CELLS, CONDITIONS) == CELLS
    assert store.read(1, RAY, GENERATE_ONE) == record("ray")


def test_a_failed_cell_is_run_again(tmp_path):
    store = Store("full", tmp_path)
    store.write(record("ray", problem="it did not start"))
    assert store.missing(1, RAY, [GENERATE_ONE], CONDITIONS) == [GENERATE_ONE]


def test_a_cell_measured_under_other_conditions_is_run_again(tmp_path):
    store = Store("full", tmp_path)
    store.write(record("ray"))
    changes: list[dict[str, object]] = [{"seconds": 15}, {"allocator": "tcmalloc"}, {"knobs": {}}, {"digests": {}}]
    changes.append({"source": "of another commit"})
    for change in changes:
        assert store.missing(1, RAY, [GENERATE_ONE], CONDITIONS.model_copy(update=change)) == [GENERATE_ONE]


def test_a_record_that_cannot_be_read_counts_as_none(tmp_path):
    store = Store("full", tmp_path)
    store.write(record("ray"))
    [path] = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:40])
    assert store.missing(1, RAY, [GENERATE_ONE], CONDITIONS) == [GENERATE_ONE]


def test_the_forms_keep_their_records_apart_and_starting_over_forgets_one(tmp_path):
    short, full = Store("short", tmp_path), Store("full", tmp_path)
    short.write(record("ray"))
    full.write(record("ray"))
    short.clear()
    assert short.read(1, RAY, GENERATE_ONE) is None
    assert full.read(1, RAY, GENERATE_ONE) is not None
