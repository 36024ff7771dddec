"""Which outcomes of a fault keep the promises."""

import pytest

from benchmarks.fault_injection import Outcome, broken
from benchmarks.injections import Fault

SOUND = Outcome(
    fault="a fault", load="idle", per_s=20, counts={"200": 100}, silence_s=0.1, served_at_the_end=True, same_bytes=True
)
CRASHED = {"counts": {"200": 9, "lost": 3, "unreachable": 40}, "exits": [-9], "exit_after_s": 0.2}
NO_FAULT = Fault("a fault")
RAISES = Fault("raises", marked=lambda _: b"", marked_results=("500", "503"))


def outcome(**changes: object) -> Outcome:
    return SOUND.model_copy(update=changes)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (NO_FAULT, SOUND),
        (NO_FAULT, outcome(counts={"200": 50, "503": 40, "504": 1, "unsent": 3})),
        (Fault("kill -9", ends=-9, loses=True), outcome(**CRASHED)),
        (Fault("memory", may_crash=True), outcome(**CRASHED)),
        (Fault("memory", may_crash=True), SOUND),
        (Fault("end", ends=0), outcome(exits=[0], served_at_the_end=False, same_bytes=False)),
        (Fault("swap", new_bytes=True), outcome(same_bytes=False)),
        (RAISES, outcome(marked={"500": 3, "503": 1})),
        (Fault("clock", moves_clock=True), outcome(clock_moved=True)),
    ],
)
def test_a_promised_outcome_breaks_no_promise(fault, seen):
    assert list(broken(fault, seen)) == []


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (NO_FAULT, outcome(counts={"200": 5, "500": 1})),
        (NO_FAULT, outcome(counts={"200": 5, "lost": 1})),
        (NO_FAULT, outcome(counts={"503": 5})),
        (NO_FAULT, outcome(surplus_bytes=1)),
        (NO_FAULT, outcome(exits=[1])),
        (Fault("hang", ends=1), SOUND),
        (Fault("end", ends=0), outcome(exits=[0], counts={"200": 5, "lost": 2})),
        (RAISES, outcome(marked={"200": 3})),
        (RAISES, SOUND),
        (NO_FAULT, outcome(served_at_the_end=False)),
        (NO_FAULT, outcome(same_bytes=False)),
        (Fault("swap", new_bytes=True), SOUND),
        (Fault("clock", moves_clock=True), SOUND),
    ],
)
def test_an_outcome_that_was_not_promised_is_reported_once(fault, seen):
    assert len(list(broken(fault, seen))) == 1
