"""Measurements of the comparison: which are kept, and how they are summarised and shown."""

import pytest

from benchmarks.comparison import Log, Measurement, summarise
from benchmarks.comparison_tables import details, overview, summary
from benchmarks.results import read_results, write_results
from benchmarks.workloads import GENERATE_ONE
from benchmarks.wrk import WrkFailed, read_result

CONDITIONS = {"seconds": 10, "knobs": {"workers": 2}, "source": "b"}
RAY = Measurement(round=1, server="ray", file="plain", workload=GENERATE_ONE, conditions=CONDITIONS, images_per_s=100)
FIGURES = {"seconds": 15}
NEEDED = ("cores", "processor", "rounds", "allocator", "commit", "date")


def measured(server: str, rate: float, number: int = 1, **changes: object) -> Measurement:
    return RAY.model_copy(update={"server": server, "images_per_s": rate, "round": number, **changes})


def test_a_finished_measurement_is_found_again_after_an_interruption(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(RAY)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(f"\n{RAY.model_dump_json()[:40]}")
    log.add(measured("litserve", 200))
    assert log.find(measured("ray", 0)) == RAY
    assert log.find(measured("litserve", 0)) == measured("litserve", 200)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 2},
        {"file": "fast"},
        {"conditions": CONDITIONS | {"seconds": 15}},
        {"conditions": CONDITIONS | {"source": "c"}},
    ],
)
def test_a_measurement_under_other_conditions_does_not_count(tmp_path, changes):
    log = Log(tmp_path / "log.jsonl")
    log.add(RAY)
    assert log.find(RAY.model_copy(update=changes)) is None


def test_a_failed_measurement_does_not_count(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(measured("ray", 100, error="it did not start"))
    assert log.find(RAY) is None


def test_an_outcome_is_the_median_and_range_of_the_rounds_and_survives_its_file(tmp_path):
    found = summarise([measured("ray", rate, number) for number, rate in enumerate((30, 10, 40), 1)])
    assert [outcome.images_per_s for outcome in found] == [(30, 10, 40)]
    write_results("comparison", found, FIGURES, tmp_path)
    assert read_results("comparison", type(found[0]), tmp_path) == (found, FIGURES)


def test_a_failed_round_leaves_a_server_without_figures_and_without_ratios():
    failed = [measured("ray", 100), measured("ray", 0, 2, error="3 errors in 9 requests")]
    found = summarise([measured("digits", 300), *failed, measured("litserve", 150)])
    ratios = overview(found, {**FIGURES, **dict.fromkeys(NEEDED, 0), "versions": {}, "peers": []})
    assert "failed" in details(found, GENERATE_ONE)
    assert "| 300 | failed | 150 | 2.00x |" in ratios


def test_the_summary_names_the_best_framework_and_marks_what_is_lost():
    rates = {"digits": 300, "ray": 100, "litserve": 150, "fastapi-batched": 300, "mosec": 600}
    found = summarise([measured(server, rate, file="fast") for server, rate in rates.items()])
    assert summary(found).endswith("| 64 | 300 | litserve 150 (2.00x) | 300 (1.00x) | 600 (**0.50x**) |")


def test_output_of_wrk_without_a_result_is_refused():
    with pytest.raises(WrkFailed):
        read_result("Running 3s test\n")
