"""What callers of two replicas behind the proxy see of a restart and of faults, in network namespaces."""

import subprocess
import sys

import pytest

from benchmarks.cluster import CannotIsolate, check_isolation
from benchmarks.drills import DRILLS, REPLICAS, ROLLING, SLOW, Outcome
from benchmarks.paths import ROOT, WORK
from benchmarks.results import read_results


def why_not() -> str:
    """Why this machine has no network namespaces for the drills, if so."""
    try:
        check_isolation()
    except CannotIsolate as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def outcomes():
    command = [sys.executable, "-m", "benchmarks", "drills", "--seconds", "9", "--replicas", str(REPLICAS[0])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_results("drills", Outcome, WORK / "results")[0]


def test_every_drill_keeps_its_promises(outcomes):
    assert [each.drill for each in outcomes] == list(DRILLS)
    assert [each for each in outcomes if each.broken()] == []
    assert all(each.requests > 0 for each in outcomes)


def test_a_rolling_restart_fails_no_request(outcomes):
    assert [each.failed for each in outcomes if each.drill == ROLLING] == [0]


def test_a_slow_replica_gets_fewer_requests_than_the_others(outcomes):
    assert all(each.share < 1 / each.replicas for each in outcomes if each.drill == SLOW)
