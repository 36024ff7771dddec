"""Which outcomes of a drill keep the promises, and that the drills take the manifests' settings."""

import pytest

from benchmarks.cluster import Manifest
from benchmarks.drills import CALLERS, KILL, PARTITION, ROLLING, SLOW, Outcome, markdown

SOUND = Outcome(
    drill=ROLLING, replicas=2, requests=1000, failed=0, seconds=10, p50_ms=8, p99_ms=20, max_ms=1500, same_bytes=True
)


def outcome(**changes: object) -> Outcome:
    return SOUND.model_copy(update=changes)


@pytest.mark.parametrize("drill", [KILL, PARTITION])
def test_a_lost_replica_may_take_the_requests_in_flight_with_it(drill):
    assert outcome(drill=drill, failed=CALLERS).broken() == []
    assert len(outcome(drill=drill, failed=CALLERS + 1).broken()) == 1


@pytest.mark.parametrize("drill", [ROLLING, SLOW])
def test_no_request_may_fail_while_no_replica_is_lost(drill):
    assert outcome(drill=drill).broken() == []
    assert len(outcome(drill=drill, failed=1).broken()) == 1


def test_replicas_with_other_bytes_are_reported():
    assert len(outcome(same_bytes=False).broken()) == 1


def test_the_table_has_a_line_for_each_outcome():
    table = markdown([outcome(drill=SLOW, share=0.125), SOUND])
    first, second = table.splitlines()[2:]
    assert first.startswith(f"| {ROLLING} | 2 | 1,000 | 0 | 100 |")
    assert second.startswith(f"| {SLOW}, which served 12% |")


def test_the_settings_of_a_replica_are_those_of_the_deployment():
    manifest = Manifest()
    assert "DIGITS_SHUTDOWN_GRACE_S" in manifest.settings
    assert 0 < manifest.pre_stop_s < manifest.grace_s
