"""A request that two HTTP implementations could read differently is refused before the app sees it."""

import pytest

from tests.contract.wire import answers, connection, send, until_closed
from tests.corpus.wires import TWO_WAYS

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("content", TWO_WAYS.values(), ids=TWO_WAYS.keys())
def test_an_ambiguous_request_is_refused_and_ends_the_connection(patient, content):
    with connection(patient) as caller:
        send(caller, content + GET)
        ((status, body),) = until_closed(caller)
        assert (status, body["status"], body["code"]) == (400, 400, "bad_request")


@pytest.mark.parametrize("name", ["not a request", "two hosts", "length and chunks"])
def test_complete_requests_before_it_are_answered_and_nothing_after_it_is_read(patient, name):
    with connection(patient) as caller:
        send(caller, GET + TWO_WAYS[name] + GET)
        assert [status for status, _ in until_closed(caller)] == [200]


@pytest.mark.parametrize("host", [b"y", b"Y:80", b"[::1]:8", b"127.0.0.1"])
def test_a_target_may_repeat_the_host(patient, host):
    with connection(patient) as caller:
        send(caller, b"GET http://%b/echo?a=b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
        ((status, body),) = answers(caller, 1)
        assert (status, body["query"]) == (200, "a=b")


@pytest.mark.parametrize("target", [b"http://y/echo", b"http://x:80/echo", b"http://x"])
def test_a_target_with_another_host_or_without_a_path_is_refused(patient, target):
    with connection(patient) as caller:
        send(caller, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + GET)
        assert [status for status, _ in until_closed(caller)] == [400]


@pytest.mark.parametrize("target", [b"*", b"//echo", b"/%00", b"/%ff", b"/.."])
def test_an_odd_target_reaches_the_app(patient, target):
    with connection(patient) as caller:
        send(caller, b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + GET)
        assert [status for status, _ in answers(caller, 2)] == [404, 200]


@pytest.mark.parametrize("host", [b"", b"x:8000", b"[::1]:8000", b"a_b.c-d.e."])
def test_a_host_may_be_any_name_or_address(patient, host):
    with connection(patient) as caller:
        send(caller, b"GET /echo HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert [status for status, _ in answers(caller, 1)] == [200]


def test_http_1_0_needs_no_host(patient):
    with connection(patient) as caller:
        send(caller, b"GET /echo HTTP/1.0\r\n\r\n")
        assert [status for status, _ in until_closed(caller)] == [200]
