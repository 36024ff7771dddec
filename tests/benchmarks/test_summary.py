"""Medians, spreads and ratios, computed again by hand."""

import pytest

from benchmarks.cells import GENERATE_SIXTEEN
from benchmarks.summary import outcomes, ratios
from tests.benchmarks.measured import record


def test_an_outcome_is_the_median_of_the_rounds_between_the_least_and_the_greatest():
    [outcome] = outcomes(
        [record("ray", requests=count, number=number) for number, count in enumerate((300, 100, 400), 1)]
    )
    assert outcome.rounds == 3
    assert outcome.images_per_s is not None
    assert outcome.images_per_s.model_dump() == {"median": 30, "least": 10, "greatest": 40}
    assert outcome.pss_mib is not None
    assert outcome.pss_mib.median == 512


def test_images_are_counted_not_requests():
    [outcome] = outcomes([record("digits", requests=100, cell=GENERATE_SIXTEEN)])
    assert outcome.images_per_s is not None
    assert outcome.cpu_ms_an_image is not None
    assert outcome.images_per_s.median == 160
    assert outcome.cpu_ms_an_image.median == pytest.approx(10_000 / 1600)


def test_a_round_that_failed_is_not_averaged_away():
    records = [record("ray"), record("ray", number=2, problem="1 socket errors, 0 answers of 400 or more")]
    [outcome] = outcomes([*records])
    assert outcome.images_per_s is None
    assert outcome.problem == records[1].problem
    assert ratios([record("digits"), *records]) == []


def test_a_ratio_is_of_the_medians_and_spreads_over_the_rounds():
    own = [record("digits", requests=count, number=number) for number, count in ((1, 300), (2, 500), (3, 420))]
    peer = [record("ray", requests=count, number=number) for number, count in ((1, 100), (2, 200), (3, 300))]
    [ratio] = ratios(own + peer)
    assert (ratio.peer, ratio.own_file, ratio.peer_file) == ("ray", "plain", "plain")
    assert (ratio.value, ratio.least, ratio.greatest) == (2.1, 1.4, 3.0)


def test_the_fast_file_is_compared_with_the_plain_one_of_peers_and_never_the_other_way():
    records = [record(server, file) for file in ("plain", "fast") for server in ("digits", "ray")]
    pairs = {(ratio.own_file, ratio.peer_file) for ratio in ratios(records)}
    assert pairs == {("plain", "plain"), ("fast", "fast"), ("fast", "plain")}


def test_there_is_no_ratio_where_this_project_was_not_measured():
    assert ratios([record("ray"), record("fastapi")]) == []
