"""The bound on what is in flight."""

import pytest

from app.errors import InferenceFailed, Overloaded
from app.inference.limit import Limit
from app.scoreboard import Scoreboard


def test_large_requests_leave_a_quarter_of_the_bound_to_small_ones():
    limit = Limit(100, Scoreboard().counter("rows"), small=16, what="rows")
    with limit.admit(60):
        with pytest.raises(Overloaded), limit.admit(17):
            pass
        with limit.admit(16), limit.admit(15), limit.admit(9):
            pass
    with limit.admit(100):
        pass


def test_what_exceeds_the_bound_is_refused_and_what_was_admitted_is_given_back():
    rows = Scoreboard().counter("rows")
    limit = Limit(10, rows, small=16, what="rows")
    with limit.admit(6):
        with pytest.raises(Overloaded), limit.admit(5):
            pass
        with limit.admit(4):
            assert rows.total == 10
        with pytest.raises(InferenceFailed), limit.admit(4):
            raise InferenceFailed("a bad row")
        assert rows.total == 6
    assert rows.total == 0
