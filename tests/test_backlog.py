"""Bytes of later requests come back in order, and are bounded for one connection and for all of them."""

from app.backlog import MAX_HELD_BYTES, MAX_HELD_BYTES_OF_ALL, Backlog, Held


def test_what_is_held_comes_back_in_order_and_counts_no_more():
    everyone = Held()
    backlog = Backlog(everyone)
    assert not backlog
    assert backlog.hold(b"abc")
    assert backlog.hold(b"defg")
    assert everyone.count == 7
    assert [backlog.take(4), backlog.take(4), backlog.take(4)] == [b"abcd", b"efg", b""]
    assert not backlog
    assert everyone.count == 0


def test_one_connection_holds_so_much_and_of_more_nothing():
    everyone = Held()
    backlog, other = Backlog(everyone), Backlog(everyone)
    assert other.hold(b"kept")
    assert backlog.hold(bytes(MAX_HELD_BYTES))
    assert not backlog.hold(b"x")
    assert not backlog
    assert everyone.count == len(other) == 4


def test_all_connections_hold_so_much_and_who_lets_go_makes_room():
    everyone = Held()
    full = [Backlog(everyone) for _ in range(MAX_HELD_BYTES_OF_ALL // MAX_HELD_BYTES)]
    assert all(backlog.hold(bytes(MAX_HELD_BYTES)) for backlog in full)
    late = Backlog(everyone)
    assert not late.hold(bytes(1 + MAX_HELD_BYTES_OF_ALL - everyone.count))
    full.pop().clear()
    assert late.hold(bytes(MAX_HELD_BYTES))
    late.clear()
    late.clear()
    assert everyone.count == sum(map(len, full))
