"""Which figures of an attack keep the promises."""

import pytest

from benchmarks.fairness import Cell, Seen, seen
from benchmarks.load_generator import LOST, UNSENT, Record, Sample

PROBES = Seen(requests=60, answered=60, worst_ms=100)
SOUND = Cell(
    attack="an attack",
    connections=8,
    honest={"generate": Seen(requests=100, answered=100, worst_ms=1000)},
    livez=PROBES,
)


def cell(**changes: object) -> Cell:
    return SOUND.model_copy(update=changes)


def honest(**figures: float) -> dict[str, Seen]:
    return {"generate": Seen(requests=100, answered=100), "score": Seen(requests=100, **figures)}


@pytest.mark.parametrize(
    "found",
    [
        SOUND,
        cell(honest=honest(answered=98, refused=2)),
        cell(honest=honest(answered=100, worst_ms=9000), connections=64),
    ],
)
def test_figures_within_the_bounds_break_no_promise(found):
    assert found.broken() == []


@pytest.mark.parametrize(
    "found",
    [
        cell(honest=honest(answered=97, refused=3)),
        cell(honest=honest(answered=99)),
        cell(honest=honest(answered=100, worst_ms=1001)),
        cell(livez=PROBES.model_copy(update={"answered": 59})),
        cell(livez=PROBES.model_copy(update={"worst_ms": 101})),
    ],
)
def test_a_figure_beyond_its_bound_is_reported_once(found):
    assert len(found.broken()) == 1


def test_a_record_is_reduced_to_requests_answers_refusals_in_time_and_the_worst_latency():
    record = Record()
    for latency_s, result in ((0.25, "200"), (0.03, "503"), (0.06, "503"), (4, LOST), (0, UNSENT)):
        record.samples.append(Sample(due=8, ended=8 + latency_s, result=result))
    assert seen(record) == Seen(requests=4, answered=1, refused=1, worst_ms=250)
    assert seen(record, every=True).worst_ms == 4000
