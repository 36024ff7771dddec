"""What counts as a broken promise, and how outcomes read."""

import pytest

from benchmarks.faults import Outcome, broken, markdown, read, write
from benchmarks.harm import Fault

SOUND = Outcome(
    fault="a fault",
    load="idle",
    per_s=20,
    counts={"200": 100},
    marked={},
    surplus_bytes=0,
    exits=[],
    exit_after_s=None,
    silence_s=0.1,
    p99_ms=5.0,
    served_at_the_end=True,
    same_bytes=True,
    clock_moved=False,
    promises=[],
)
CRASHED = {"counts": {"200": 9, "lost": 3, "unreachable": 40}, "exits": [-9], "exit_after_s": 0.2}


def seen(**changes: object) -> Outcome:
    return SOUND.model_copy(update=changes)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault("a fault"), SOUND),
        (Fault("a fault"), seen(counts={"200": 50, "503": 40, "504": 1, "unsent": 3})),
        (Fault("kill -9", ends=-9, loses=True), seen(**CRASHED)),
        (Fault("memory", may_crash=True), seen(**CRASHED)),
        (Fault("memory", may_crash=True), seen(**CRASHED | {"exits": [1]})),
        (Fault("memory", may_crash=True), SOUND),
        (Fault("memory", may_crash=True, beside=lambda _: b"", beside_came_to=("503", "200")), seen(marked={"200": 3})),
        (Fault("end", ends=0), seen(exits=[0], served_at_the_end=False, same_bytes=False)),
        (Fault("swap", other=True), seen(same_bytes=False)),
        (Fault("raise", beside=lambda _: b"", beside_came_to=("500", "503")), seen(marked={"500": 3, "503": 1})),
        (Fault("clock", moves_clock=True), seen(clock_moved=True)),
    ],
)
def test_a_promise_that_was_seen_to_hold_is_kept(fault, outcome):
    assert list(broken(fault, outcome)) == []


@pytest.mark.parametrize(
    ("fault", "outcome", "told"),
    [
        (Fault("a fault"), seen(counts={"200": 5, "500": 1}), "requests came to 500"),
        (Fault("a fault"), seen(counts={"200": 5, "lost": 1}), "requests came to lost"),
        (Fault("a fault"), seen(counts={"503": 5}), "nobody was served"),
        (Fault("a fault"), seen(surplus_bytes=1), "more than one answer"),
        (Fault("a fault"), seen(exits=[1]), "the process ended with [1]"),
        (Fault("hang", ends=1), SOUND, "the process ended with nothing"),
        (Fault("end", ends=0), seen(exits=[0], counts={"200": 5, "lost": 2}), "requests came to lost"),
        (Fault("raise", beside=lambda _: b"", beside_came_to=("500",)), seen(marked={"200": 3}), "marked requests"),
        (Fault("raise", beside=lambda _: b"", beside_came_to=("500",)), SOUND, "marked requests"),
        (Fault("a fault"), seen(served_at_the_end=False), "nobody was served at the end"),
        (Fault("a fault"), seen(same_bytes=False), "the bytes of a seed changed"),
        (Fault("swap", other=True), SOUND, "the old checkpoint served on"),
        (Fault("clock", moves_clock=True), SOUND, "the clock did not move"),
    ],
)
def test_a_promise_that_was_not_kept_is_told(fault, outcome, told):
    assert told in "; ".join(broken(fault, outcome))


def test_a_line_a_fault_and_a_column_a_load_with_what_was_broken():
    worse = seen(load="capacity", promises=["nobody was served"], **CRASHED)
    head, _, row = markdown([SOUND, worse]).splitlines()
    assert head == "| fault | idle | capacity | as promised |"
    assert row.startswith("| a fault | 200: 100, longest silence 0.1 s | 200: 9, lost: 3, unreachable: 40, ")
    assert row.endswith("exit -9 after 0.2 s | nobody was served |")


def test_outcomes_are_read_as_they_were_written(tmp_path):
    write([SOUND], tmp_path / "faults.json")
    assert read(tmp_path / "faults.json") == [SOUND]
