"""The table of callers: latency is told where every answer was one of images."""

from benchmarks.batching import Run, Step, markdown


def test_latency_among_refusals_is_left_out():
    steps = [
        Step(64, 1700.0, 0.0, 36.0, 61.0, 19.0, 5.0, 600.0),
        Step(512, 1100.0, 4500.0, 27.0, 415.0, 32.0, 264.0, 650.0),
    ]
    lines = markdown(Run(2.4, steps)).splitlines()
    assert lines[2] == "| 64 | 1700 | 0 | 36.0 | 61.0 | 19.0 | 5.0 | 600 |"
    assert lines[3] == "| 512 | 1100 | 4500 |  |  | 32.0 | 264.0 | 650 |"
